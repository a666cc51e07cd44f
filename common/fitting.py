"""Training one model: phases, epochs, the validation after each, and the epoch that is kept.

Everything that could make two frameworks differ by choice is fixed here: which samples in which order, the rate of
each step, what is judged and when.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd

from common import alarms, config, measure
from common.config import ModelSpec, Recipe
from common.data import batches as stream
from common.data.batches import Part
from common.errors import StudyError
from common.framework import Array, Batch, Framework, Model
from common.losses import MeanLoss
from common.metrics import classification, segmentation
from common.prediction import masks_of, predict_batches, probabilities_of
from common.results import HISTORY_COLUMNS
from common.schedule import Phase, learning_rate, phases
from common.snapshots import Progress, SnapshotKeeper, best_epoch

# Receives progress: {"steps": done, "of": total} now and then, and one dict an epoch.
Emit = Callable[[dict[str, Any]], object]
PROGRESS_SECONDS = 0.25  # at most one step message in this time


@dataclass(frozen=True)
class Fit:
    """What training left behind."""

    history: pd.DataFrame  # HISTORY_COLUMNS
    weights: dict[str, Array]  # of the chosen epoch
    epoch: int  # chosen, from 1
    val_loss: float
    train_seconds: float
    evaluate_seconds: float
    trainer_seconds: float = 0.0  # making loss and optimizer, and what else lay between the epochs
    snapshot_seconds: float = 0.0
    resumed: tuple[int, ...] = ()  # epochs after which another process had been interrupted and this went on
    alarms: tuple[dict[str, Any], ...] = ()  # `alarms` of run.json


def fit_model(
    framework: Framework,
    model: Model,
    train: Part,
    val: Part,
    spec: ModelSpec,
    recipe: Recipe,
    seed: int,
    clock: measure.StepClock,
    witness: stream.Witness,
    emit: Emit,
    keeper: SnapshotKeeper | None = None,
) -> Fit:
    """Train for the recipe's epochs, judging each on the validation part, and keep the chosen epoch's weights.

    Training stops early by `alarms.STOP_RULE`. With a `keeper` it goes on from its snapshot, where there is one, and
    leaves snapshots on the way. Raises StudyError where training diverges.
    """
    entered = time.perf_counter()
    steps = stream.steps_per_epoch(train, recipe)
    earlier = keeper.read() if keeper else None
    if keeper and earlier and not _recall(witness, earlier, train, spec, recipe, seed, framework.name()):
        keeper.refuse("the batches before it were others")
        witness.forget()
        earlier = None
    rows: list[Mapping[str, float]] = []
    kept: dict[str, Array] = {}
    state: dict[str, Array] = {}
    resumed: tuple[int, ...] = ()
    train_seconds = evaluate_seconds = before = snapshot_seconds = 0.0
    if earlier:
        framework.write_weights(model, earlier.weights)
        rows, kept, state = list(earlier.rows), dict(earlier.kept), dict(earlier.trainer)
        train_seconds, evaluate_seconds = earlier.train_seconds, earlier.evaluate_seconds
        before, resumed = train_seconds + evaluate_seconds, (*earlier.resumed, earlier.epoch)
        clock.go_on_from(earlier.step_seconds.tolist(), earlier.cold_steps, earlier.wait_seconds)
        earlier = None  # several times as large as the model
    since = before  # seconds of training when the last snapshot was written
    for epoch, phase, trainer in _epochs(framework, model, recipe, clock, len(rows), state):
        if alarms.lost([bool(row["constant"]) for row in rows]):
            emit({"alarm": f"stopped before epoch {epoch}: {alarms.STOP_RULE}"})
            break
        done = (epoch - phase.start) * steps
        rates = [learning_rate(step, phase.epochs * steps, recipe) for step in range(done, done + steps)]
        waited, began = clock.wait_seconds, time.perf_counter()
        batches = witness.watch(stream.training_batches(train, recipe, spec, seed, epoch, framework.name()))
        pairs = zip(batches, rates, strict=True)
        reported = report_steps(pairs, (epoch - 1) * steps, recipe.epochs * steps, emit)
        losses = framework.train_epoch(trainer, clock.watch(reported))
        framework.synchronise()
        seconds = time.perf_counter() - began
        if not np.isfinite(losses).all():
            step = int(np.flatnonzero(~np.isfinite(losses))[0]) + 1
            raise StudyError(
                f"the training loss is {losses[step - 1]} at step {step} of epoch {epoch}; lower the learning rate"
            )
        began = time.perf_counter()
        val_loss, val_score, constant = judge(framework, model, val, spec, recipe)
        if not np.isfinite(val_loss):  # the epoch's last step may overflow after its loss was taken
            raise StudyError(
                f"the validation logits after epoch {epoch} are not finite; lower the learning rate"
            )
        rows.append(
            {
                "epoch": epoch,
                "step": epoch * steps,
                "learning_rate": rates[-1],
                "train_loss": float(losses.mean()),
                "val_loss": val_loss,
                "val_score": val_score,
                "seconds": seconds,
                "images_per_second": steps * recipe.batch_size / seconds,
                "wait_seconds": clock.wait_seconds - waited,
                # No column of history.csv. Before the backbone learns there is nothing that could have died
                "constant": float(constant and phase.trainable == "all"),
            }
        )
        if best_epoch(rows) == epoch:
            kept = framework.read_weights(model)
        train_seconds += seconds
        evaluate_seconds += time.perf_counter() - began
        if keeper and epoch < recipe.epochs and keeper.due(epoch, train_seconds + evaluate_seconds - since):
            began, since = time.perf_counter(), train_seconds + evaluate_seconds
            keeper.write(
                Progress(
                    epoch,
                    tuple(rows),
                    weights=kept if best_epoch(rows) == epoch else framework.read_weights(model),
                    trainer=framework.read_trainer_state(trainer),
                    kept=kept,
                    train_seconds=train_seconds,
                    evaluate_seconds=evaluate_seconds,
                    wait_seconds=clock.wait_seconds,
                    step_seconds=np.array(clock.step_seconds, dtype=np.float64),
                    cold_steps=clock.cold_steps,
                    batches=witness.record(),
                    resumed=resumed,
                )
            )
            snapshot_seconds += time.perf_counter() - began
        # Last, so that who stops a run after an epoch that was told finds its snapshot
        shown = {name: rows[-1][name] for name in ("train_loss", "val_loss", "val_score")}
        emit({"epoch": epoch, "epochs": recipe.epochs, **shown})
        for alarm in _alarms(rows):
            if alarm["epoch"] == epoch:
                emit({"alarm": alarm["words"]})
    best = best_epoch(rows)
    own = train_seconds + evaluate_seconds - before  # of this process
    return Fit(
        pd.DataFrame(rows, columns=list(HISTORY_COLUMNS)),
        kept,
        best,
        rows[best - 1]["val_loss"],
        train_seconds,
        evaluate_seconds,
        time.perf_counter() - entered - own - snapshot_seconds,
        snapshot_seconds,
        resumed,
        tuple(_alarms(rows)),
    )


def _alarms(rows: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
    return alarms.constant_alarms([bool(row["constant"]) for row in rows])


def _epochs(
    framework: Framework,
    model: Model,
    recipe: Recipe,
    clock: measure.StepClock,
    done: int,
    state: dict[str, Array],
) -> Iterator[tuple[int, Phase, Any]]:
    """Every epoch from 1 that is not done, with its phase and the phase's trainer.

    `state`, which is emptied, is that of the trainer after the epochs that are done.
    """
    for phase in phases(recipe):
        end = phase.start + phase.epochs  # the first epoch of the next
        if end <= done:
            continue
        clock.expect_cold_step()
        trainer = framework.create_trainer(model, recipe, trainable=phase.trainable)
        if phase.start <= done:  # also where the phase is at its end: draws go on into the next
            framework.write_trainer_state(trainer, state)
            state.clear()
        for epoch in range(max(phase.start, done + 1), end):
            yield epoch, phase, trainer


def _recall(
    witness: stream.Witness,
    earlier: Progress,
    train: Part,
    spec: ModelSpec,
    recipe: Recipe,
    seed: int,
    framework: str,
) -> bool:
    """Show the witness once more what the epochs before were given: whether it comes to the same digests."""
    hashed = 0
    for epoch in range(1, earlier.epoch + 1):
        order = stream.epoch_rows(train, recipe, seed, epoch, framework)
        whole = min(config.HASHED_BATCHES - hashed, len(order))
        if whole:
            batches = witness.watch(stream.training_batches(train, recipe, spec, seed, epoch, framework))
            hashed += len(list(islice(batches, whole)))
        witness.recall(order[whole:])
    return witness.record() == earlier.batches


def describe_speed(fit: Fit, clock: measure.StepClock, recipe: Recipe) -> dict[str, float | None]:
    """The part of a run's timings that tells how quickly it trained; None where nothing can be said.

    Steady images a second are those of the steps but the cold ones, waiting for data left out unless it may lie behind
    a step; where whole epochs are timed, those of the epochs but the first of each phase and of each process, with
    whatever waiting was not hidden behind the steps.
    """
    if clock.steps:
        idle = 0.0 if clock.overlaps else clock.wait_seconds
        seconds = fit.train_seconds - clock.first_step_seconds - idle
        images = float(recipe.batch_size * len(clock.steady_step_seconds))
    else:
        cold = [phase.start for phase in phases(recipe)] + [epoch + 1 for epoch in fit.resumed]
        warm = fit.history[~fit.history["epoch"].isin(cold)]
        seconds = float(warm["seconds"].sum())
        images = float((warm["images_per_second"] * warm["seconds"]).sum())
    return {
        "first_step_seconds": clock.first_step_seconds if clock.steps else None,
        "step_p50_seconds": clock.steady_quantile_seconds(0.50),
        "step_p95_seconds": clock.steady_quantile_seconds(0.95),
        "steady_images_per_second": images / seconds if images else None,
        "wait_seconds": clock.wait_seconds if clock.steps else None,
        "train_seconds": fit.train_seconds,
    }


def judge(
    framework: Framework, model: Model, part: Part, spec: ModelSpec, recipe: Recipe
) -> tuple[float, float, bool]:
    """Loss and primary score of a part, and whether every answer is the same; the loss is NaN where a logit is not
    finite.

    For segmentation the score is the mean Dice of the slices with a lesion, at a probability of 0.5: the threshold is
    chosen when training is over.
    """
    loss = MeanLoss(recipe)
    seen: list[Array] = []
    spread = alarms.Spread()
    for batch, logits in predict_batches(framework, model, part, recipe.batch_size, spec):
        if not np.isfinite(logits).all():
            return float("nan"), float("nan"), False
        spread.add(logits[batch.rows >= 0])
        loss.add(logits, batch.targets, batch.weights)
        if part.task.kind == "segmentation":
            y_true, probabilities = masks_of(batch, logits)
            counts = segmentation.count_pixels(y_true, probabilities >= 0.5)
            dice = segmentation.scores_from_counts(counts)["dice_score"]
            seen.append(dice[y_true.any(axis=(1, 2))])
        else:
            seen.append(logits[batch.rows >= 0])
    if part.task.kind == "segmentation":
        lesions = np.concatenate(seen)
        return loss.value(), float(lesions.mean()) if len(lesions) else float("nan"), spread.constant()
    score = getattr(classification, part.task.primary_metric)
    return (
        loss.value(),
        float(score(part.labels, probabilities_of(np.concatenate(seen)))),
        spread.constant(),
    )


def report_steps(
    pairs: Iterable[tuple[Batch, float]], done: int, total: int, emit: Emit
) -> Iterator[tuple[Batch, float]]:
    """The pairs unchanged, telling `emit` now and then how far training is."""
    last = 0.0
    for step, pair in enumerate(pairs, start=done):
        if time.monotonic() - last > PROGRESS_SECONDS:
            last = time.monotonic()
            emit({"steps": step, "of": total})
        yield pair
