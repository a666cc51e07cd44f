"""One run with a NumPy framework: what it reads, what it keeps, what it leaves on disk, and what it says."""

import dataclasses
import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tiny import (
    MASK_RECIPE,
    MASK_SPEC,
    RECIPE,
    SPEC,
    SUBTYPE_RECIPE,
    SUBTYPE_SPEC,
    Model,
    TinyFramework,
    hash_batches,
    make_mask,
    make_study,
    tiny_world,
    write_pictures,
    write_strokes,
)

from common import config, seals
from common import run as run_module
from common.alarms import STOP_RULE
from common.config import TASKS, ConvNextSpec, ModelSpec, Run, Study
from common.data.batches import Part, Witness, evaluation_batches, training_batches, weigh_classes
from common.data.cache import open_cache
from common.distributed import RANK
from common.errors import StudyError
from common.files import file_digest
from common.fitting import Fit, describe_speed, fit_model, judge
from common.flops import forward_work
from common.framework import Batch
from common.inference import load_model
from common.losses import binary_cross_entropy, dice_cross_entropy, sigmoid
from common.measure import StepClock
from common.metrics import segmentation
from common.metrics.classification import auroc_score, choose_threshold
from common.prediction import choose_mask_threshold, predict_masks
from common.pretrained import Pretrained, file_sha256
from common.random_numbers import generator
from common.results import (
    HISTORY_COLUMNS,
    read_json,
    read_run,
    read_study,
    run_directory,
    unpack_masks,
    write_csv,
    write_json,
)
from common.run import RunData, clear_unfinished, execute, load_data, record_failure, starting_weights
from common.schedule import learning_rate
from common.seals import file_digests
from common.study import prepare_study
from common.weights import initial_weights, read_checkpoint, weights_digest

__all__ = ["tiny_world"]  # a fixture

A, B = (Run("binary", "cnn", name, "aligned", seed=0, fold=0) for name in ("tiny-a", "tiny-b"))
A1 = dataclasses.replace(A, seed=1)
pytestmark = pytest.mark.usefixtures("tiny_world")


class Spoiling(TinyFramework):
    """Forgets everything in its last epochs."""

    good_epochs = 1

    def train_epoch(self, trainer: Model, batches: Iterable[tuple[Batch, float]]) -> NDArray[np.float64]:
        losses = super().train_epoch(trainer, batches)
        if self.epochs_trained > self.good_epochs:
            trainer["dense.weight"] = -100 * trainer["dense.weight"]
        return losses


@pytest.fixture
def directory(tmp_path: Path, tiny_world: None) -> Path:
    data = write_pictures(
        tmp_path / "pictures", patients=16, more_normal=1
    )  # 5 in a part: 2 batches, one padded
    prepare_study(make_study(data), tmp_path / "study")
    return tmp_path / "study"


def carry_through(directory: Path, run: Run, framework: TinyFramework | None = None) -> list[dict[str, Any]]:
    """Execute a run; returns what it emitted."""
    events: list[dict[str, Any]] = []
    execute(framework or TinyFramework(run.framework), directory, run, 1, events.append)
    return events


def document_of(directory: Path, run: Run) -> dict[str, Any]:
    record = read_run(directory, run)
    assert record is not None
    return dict(record.document)


def through_json(*values: object) -> tuple[Any, ...]:
    """Config objects as they are read back from a file."""
    return tuple(json.loads(json.dumps(config.to_json(value))) for value in values)


def logits_of(framework: TinyFramework, model: Model, part: Part) -> NDArray[np.float64]:
    """Of a part's samples, predicted in batches that do not fit it."""
    return np.concatenate(list(framework.predict_logits(model, evaluation_batches(part, 3, SPEC))))[
        : len(part)
    ]


# --- a whole run --------------------------------------------------------------------------------------------------


def test_a_rank_that_does_not_lead_trains_and_touches_no_file(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run_directory(directory, A)
    folder.mkdir(parents=True)
    (folder / "history.csv").write_text("of the first rank")
    monkeypatch.setenv(RANK, "1/2")
    framework = TinyFramework("tiny-a")
    carry_through(directory, A, framework)
    assert framework.epochs_trained == RECIPE.epochs
    assert [path.read_text() for path in folder.iterdir()] == ["of the first rank"]


def test_a_run_leaves_its_files_and_a_true_record(directory: Path) -> None:
    framework = TinyFramework("tiny-a")
    carry_through(directory, A1, framework)
    folder = run_directory(directory, A1)
    files = ["history.csv", "model.safetensors", "predictions.npz", "run.json"]
    assert sorted(path.name for path in folder.iterdir()) == files
    document = document_of(directory, A1)
    assert document["status"] == "complete"
    assert document["recipe"] == config.to_json(RECIPE)
    assert config.model_spec_from_json(document["spec"]) == SPEC
    assert document["environment"].items() >= framework.environment().items()
    assert (document["device"], document["threads"], document["precision"]) == ("cpu", 1, "float32")
    (settings,) = framework.settings
    assert (settings.device, settings.precision, settings.threads, settings.seed) == ("cpu", "float32", 1, 1)

    timings = document["timings"]
    names = ("import", "data", "build", "trainer", "train", "evaluate", "checkpoint", "latency")
    parts = [timings[f"{name}_seconds"] for name in names]
    assert min(parts) > 0
    assert 0.5 * timings["total_seconds"] < sum(parts) <= timings["total_seconds"]
    assert 0 < timings["first_step_seconds"] < timings["train_seconds"]
    assert 0 <= timings["compile_seconds"] < timings["first_step_seconds"]
    assert timings["step_p50_seconds"] <= timings["step_p95_seconds"]
    latency = timings["latency"]
    assert set(latency) == {"1", str(RECIPE.batch_size), "batch_size"}
    assert 0 < 3 * latency["1"] < timings["latency_seconds"]  # the median of several
    assert document["memory"]["peak_rss_mib"] > 10
    assert document["memory"]["peak_device_mib"] is None
    size = (folder / "model.safetensors").stat().st_size
    assert document["model"] == {"flops": forward_work(SPEC).flops, "checkpoint_bytes": size}

    counts = document["data"]["counts"]
    assert sum(part["samples"] for part in counts.values()) == 40
    assert document["weights"]["parameters"] == 17
    assert document["files"] == {
        name: file_digest(folder / name) for name in ("history.csv", "predictions.npz", "model.safetensors")
    }
    assert seals.SEAL in document
    assert not seals.is_broken(document)


class Dying(TinyFramework):
    """Its weights are all 0 after the second epoch and whatever follows: every image gets the same answer."""

    def train_epoch(self, trainer: Model, batches: Iterable[tuple[Batch, float]]) -> NDArray[np.float64]:
        losses = super().train_epoch(trainer, batches)
        if self.epochs_trained > 1:
            trainer["dense.weight"][:] = 0
        return losses


def test_a_training_that_is_lost_is_told_and_stops_and_stays_a_result(
    tmp_path: Path, tiny_world: None
) -> None:
    study = make_study(write_pictures(tmp_path / "pictures", patients=16, more_normal=1))
    longer = {key: dataclasses.replace(recipe, epochs=9) for key, recipe in study.recipes.items()}
    prepare_study(dataclasses.replace(study, recipes=longer), tmp_path / "study")
    events = carry_through(tmp_path / "study", A, Dying(A.framework))
    record = read_run(tmp_path / "study", A)
    assert record is not None
    assert record.complete
    last = 1 + config.CONSTANT_EPOCHS
    assert record.history()["epoch"].tolist() == list(range(1, last + 1))
    assert record.document["stopped"] == {"epoch": last, "rule": STOP_RULE}
    assert [alarm["epoch"] for alarm in record.document["alarms"]] == [2]
    told = [str(event["alarm"]) for event in events if "alarm" in event]
    assert told[0].startswith("from epoch 2 on the validation logits are the same")
    assert told[1].startswith(
        f"stopped before epoch {last + 1}: training stops after {config.CONSTANT_EPOCHS} epochs"
    )
    assert len(told) == 2
    carry_through(tmp_path / "study", A1)
    healthy = document_of(tmp_path / "study", A1)
    assert (healthy["alarms"], healthy["stopped"]) == ([], None)


def test_the_history_is_that_of_the_schedule_and_the_loss(directory: Path) -> None:
    events = carry_through(directory, A)
    record = read_run(directory, A)
    assert record is not None
    history = record.history()
    assert tuple(history.columns) == HISTORY_COLUMNS
    steps = -(-record.document["data"]["counts"]["train"]["samples"] // RECIPE.batch_size)
    assert history["epoch"].tolist() == [1, 2]
    assert history["step"].tolist() == [steps, 2 * steps]
    rates = [learning_rate(step, 2 * steps, RECIPE) for step in (steps - 1, 2 * steps - 1)]
    np.testing.assert_allclose(history["learning_rate"], rates, rtol=1e-12)
    assert history["train_loss"].iloc[1] < history["train_loss"].iloc[0]
    assert record.document["choice"]["val_loss"] == pytest.approx(history["val_loss"].min())
    epochs = [event for event in events if "epoch" in event]
    assert [(event["epoch"], event["epochs"]) for event in epochs] == [(1, 2), (2, 2)]
    np.testing.assert_allclose([event["val_loss"] for event in epochs], history["val_loss"])
    told = [event for event in events if "steps" in event]
    assert told[0] == {"steps": 0, "of": 2 * steps}
    assert all(0 <= event["steps"] < event["of"] == 2 * steps for event in told)


@pytest.mark.parametrize("kind", [TinyFramework, Spoiling])
def test_predictions_are_those_of_the_saved_weights_on_val_and_test(
    directory: Path, kind: type[TinyFramework]
) -> None:
    carry_through(directory, A, kind())
    record, study = read_run(directory, A), read_study(directory)
    assert record is not None
    predictions = record.predictions()
    split = study.split().set_index("id")["split"]
    labels = study.samples().set_index("id")["label"]
    assert sorted(predictions.sample_id) == sorted(split[split != "train"].index)
    assert [split[name] for name in predictions.sample_id] == predictions.split.tolist()
    assert [int(labels[name] != "normal") for name in predictions.sample_id] == predictions.y_true.tolist()

    weights, header = read_checkpoint(record.directory / "model.safetensors")
    framework = TinyFramework()
    model = framework.build(SPEC)
    framework.write_weights(model, weights)
    data = load_data(study, A, TASKS["binary"], SPEC, RECIPE)
    assert list(data.judged) == ["val", "test"]
    for name, part in data.judged.items():
        logits = logits_of(framework, model, part)[:, 0]
        assert len(part) % RECIPE.batch_size  # so that the last batch is padded
        np.testing.assert_allclose(predictions.of(name).y_score, sigmoid(logits), rtol=1e-6)

    val = predictions.of("val")
    threshold = choose_threshold(val.y_true, val.y_score, config.THRESHOLD_RULE)
    assert record.document["threshold"]["value"] == header["threshold"] == threshold
    assert header["classes"] == ["normal", "stroke"]


def test_training_starts_from_the_weights_of_the_seed(directory: Path) -> None:
    carry_through(directory, A)
    document = document_of(directory, A)
    start = initial_weights({"dense.weight": (1, 16), "dense.bias": (1,)}, SPEC, seed=0)
    assert document["weights"]["initial_sha256"] == weights_digest(start)
    assert document["weights"]["final_sha256"] != weights_digest(start)


# --- what two frameworks share ------------------------------------------------------------------------------------


def test_frameworks_get_the_same_bytes_and_seeds_get_others(directory: Path) -> None:
    for run in (A, B, A1):
        carry_through(directory, run)
    a, b, other = (document_of(directory, run) for run in (A, B, A1))
    assert a["batches"] == b["batches"]
    assert a["weights"] == b["weights"]  # the two are one algorithm here
    assert a["data"] == b["data"] == other["data"]
    assert other["batches"]["sha256"] != a["batches"]["sha256"]
    assert other["weights"]["initial_sha256"] != a["weights"]["initial_sha256"]
    data = load_data(read_study(directory), A, TASKS["binary"], SPEC, RECIPE)
    witness = Witness()
    for epoch in (1, 2):
        assert list(witness.watch(training_batches(data.train, RECIPE, SPEC, 0, epoch)))
    assert a["batches"] == witness.record()
    first = islice(training_batches(data.train, RECIPE, SPEC, 0, 1), config.HASHED_BATCHES)
    assert a["batches"]["sha256"] == hash_batches(first)
    assert a["batches"]["hashed"] == config.HASHED_BATCHES
    assert other["batches"]["order_sha256"] != a["batches"]["order_sha256"]


def test_every_part_is_weighed_by_the_classes_of_the_training_part(directory: Path) -> None:
    data = load_data(read_study(directory), A, TASKS["binary"], SPEC, RECIPE)
    weights = weigh_classes(data.train.labels, 2, "balanced")
    for part in (data.train, *data.judged.values()):
        np.testing.assert_array_equal(part.weights, weights[part.labels])


def test_a_framework_is_handed_every_batch_of_every_epoch_in_order(directory: Path) -> None:
    seen: list[str] = []

    class Watching(TinyFramework):
        def train_epoch(self, trainer: Model, batches: Iterable[tuple[Batch, float]]) -> NDArray[np.float64]:
            pairs = list(batches)
            seen.append(hash_batches(batch for batch, _ in pairs))
            return super().train_epoch(trainer, pairs)

    carry_through(directory, A, Watching())
    data = load_data(read_study(directory), A, TASKS["binary"], SPEC, RECIPE)
    assert seen == [hash_batches(training_batches(data.train, RECIPE, SPEC, 0, epoch)) for epoch in (1, 2)]


# --- the native lane ----------------------------------------------------------------------------------------------

TORCH, KERAS = (Run("binary", "cnn", name, "native", seed=0, fold=0) for name in ("torch", "tiny-b"))


class Native(TinyFramework):
    """Has starting weights of its own, which come from its name and the seed that it was configured with."""

    def build(self, spec: ModelSpec) -> Model:
        draw = generator("own", self.name(), self.settings[-1].seed)
        return {name: draw.normal(size=array.shape) for name, array in super().build(spec).items()}


def test_natively_each_framework_has_its_own_spec_recipe_weights_and_order(directory: Path) -> None:
    found = {}
    for run in (TORCH, KERAS):
        framework = Native(run.framework)
        carry_through(directory, run, framework)
        found[run] = document = document_of(directory, run)
        spec, recipe = config.in_lane(SPEC, RECIPE, run.framework, "native")
        assert (document["spec"], document["recipe"]) == through_json(spec, recipe)
        assert (
            weights_digest(framework.read_weights(framework.build(spec)))
            == (document["weights"]["initial_sha256"])
        )
        data = load_data(read_study(directory), run, TASKS["binary"], spec, recipe)
        witness = Witness()
        for epoch in (1, 2):
            list(witness.watch(training_batches(data.train, recipe, spec, 0, epoch, run.framework)))
        assert document["batches"] == witness.record()
    torch, keras = found[TORCH], found[KERAS]
    assert (torch["recipe"]["loop"], keras["recipe"]["loop"]) == ("steps", "fit")
    assert (torch["spec"]["flatten_order"], keras["spec"]["flatten_order"]) == (
        "channels_first",
        "channels_last",
    )
    for name in ("sha256", "order_sha256"):
        assert torch["batches"][name] != keras["batches"][name]
    assert torch["weights"]["initial_sha256"] != keras["weights"]["initial_sha256"]
    assert torch["data"] == keras["data"]
    study = read_study(directory).study  # free of lanes
    assert (study.specs["binary/cnn"], study.recipes["binary/cnn"]) == (SPEC, RECIPE)


def test_a_native_checkpoint_says_how_its_model_is_built(directory: Path) -> None:
    framework = Native("torch")
    carry_through(directory, TORCH, framework)
    path = run_directory(directory, TORCH) / "model.safetensors"
    trained = load_model(TinyFramework("tiny-b"), path)  # in the other framework
    assert trained.spec == config.in_lane(SPEC, RECIPE, "torch", "native")[0] != SPEC
    record = read_run(directory, TORCH)
    assert record is not None
    data = load_data(read_study(directory), TORCH, TASKS["binary"], trained.spec, RECIPE)
    logits = logits_of(TinyFramework("tiny-b"), trained.model, data.judged["test"])[:, 0]
    np.testing.assert_allclose(record.predictions().of("test").y_score, sigmoid(logits), rtol=1e-6)


def test_natively_whole_epochs_are_timed(directory: Path) -> None:
    """Alike in all frameworks: Keras's loop reads batches ahead, so nobody sees when a step of it ends."""
    for run in (TORCH, KERAS):
        carry_through(directory, run, Native(run.framework))
        record = read_run(directory, run)
        assert record is not None
        timings, history = record.document["timings"], record.history()
        for name in ("first_step_seconds", "step_p50_seconds", "step_p95_seconds", "wait_seconds"):
            assert timings[name] is None
        assert history["wait_seconds"].isna().all()
        assert timings["train_seconds"] == pytest.approx(history["seconds"].sum())
        # Of the epochs but the first, in which things are compiled and allocated
        assert timings["steady_images_per_second"] == pytest.approx(history["images_per_second"][1])


def test_the_first_epoch_of_each_phase_is_no_steady_one() -> None:
    history = pd.DataFrame(
        {"epoch": [1, 2, 3, 4], "seconds": [9.0, 2.0, 5.0, 4.0], "images_per_second": [1.0, 10.0, 2.0, 5.0]}
    )
    done = Fit(history, {}, epoch=1, val_loss=0.5, train_seconds=20.0, evaluate_seconds=1.0)
    whole = StepClock(lambda: None, steps=False)
    two_phases = dataclasses.replace(RECIPE, epochs=4, head_epochs=2)  # warm: 20 images in 2 s, 20 in 4 s
    assert describe_speed(done, whole, two_phases)["steady_images_per_second"] == pytest.approx(40 / 6)
    one_epoch = dataclasses.replace(done, history=history[:1])
    assert describe_speed(one_epoch, whole, RECIPE)["steady_images_per_second"] is None


def test_the_epoch_is_chosen_by_one_loss_in_every_lane(directory: Path) -> None:
    val = load_data(read_study(directory), A, TASKS["binary"], SPEC, RECIPE).judged["val"]
    model: Model = {"dense.weight": np.full((1, 16), 0.3), "dense.bias": np.zeros(1)}
    losses = set()
    for name in ("torch", "tiny-a"):
        for lane in config.LANES:
            spec, recipe = config.in_lane(SPEC, RECIPE, name, lane)
            losses.add(judge(TinyFramework(name), model, val, spec, recipe))
    assert len(losses) == 1


def test_own_starting_weights_keep_the_layer_scale_and_a_pretrained_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A layer scale is ConvNeXt's own; of a public file everything but the last layer is taken."""
    drawn: Model = {"blocks.0.gamma": np.ones(4), "blocks.0.fc.weight": np.full((4, 4), 0.5)}
    drawn["head.fc.bias"] = np.full(3, 0.25)
    spec = ConvNextSpec(layer_scale=1e-6, initialiser="framework")
    start = starting_weights(TinyFramework(), drawn, spec, seed=0, pretrained=None)
    np.testing.assert_array_equal(start["blocks.0.gamma"], np.full(4, 1e-6, np.float32))
    for name in ("blocks.0.fc.weight", "head.fc.bias"):
        np.testing.assert_array_equal(start[name], drawn[name])
    given = {"blocks.0.gamma": np.full(4, 2.0), "blocks.0.fc.weight": np.full((4, 4), 3.0)}
    monkeypatch.setattr(run_module, "load_pretrained", lambda path, shapes, head: given)
    transferred = starting_weights(
        TinyFramework(), drawn, spec, seed=0, pretrained=Pretrained(Path("file"), "a file", "")
    )
    assert transferred.keys() == drawn.keys()
    for name, array in (drawn | given).items():
        np.testing.assert_array_equal(transferred[name], array)


# --- the other tasks ----------------------------------------------------------------------------------------------


@pytest.fixture
def strokes(tmp_path: Path, tiny_world: None) -> Path:
    """A prepared study of three classes with masks, all three tasks."""
    data = write_strokes(tmp_path / "strokes", patients=24)
    prepare_study(make_task_study(data), tmp_path / "study")
    return tmp_path / "study"


def make_task_study(data: Path) -> Study:
    return dataclasses.replace(
        make_study(data),
        tasks=("binary", "subtype", "segmentation"),
        recipes={"binary/cnn": RECIPE, "subtype/cnn": SUBTYPE_RECIPE, "segmentation/unet": MASK_RECIPE},
        specs={"binary/cnn": SPEC, "subtype/cnn": SUBTYPE_SPEC, "segmentation/unet": MASK_SPEC},
    )


def test_three_classes_are_scored_without_a_threshold(strokes: Path) -> None:
    run = Run("subtype", "cnn", "tiny-a", "aligned", 0, 0)
    carry_through(strokes, run)
    record = read_run(strokes, run)
    assert record is not None
    predictions = record.predictions()
    assert predictions.y_score.shape == (len(predictions.y_true), 3)
    np.testing.assert_allclose(predictions.y_score.sum(axis=1), 1)
    assert record.document["threshold"] == {"value": None, "rule": "largest"}
    assert record.document["phases"] == [{"trainable": "all", "epochs": 2, "batch_norm": "training"}]
    assert record.document["pretrained"] is None
    assert "masks_sha256" not in record.document["data"]
    labels = read_study(strokes).samples().set_index("id")["label"]
    names = np.array(TASKS["subtype"].classes)[predictions.y_true]
    assert names.tolist() == [labels[name] for name in predictions.sample_id]


def test_masks_are_saved_with_what_is_counted_on_them(strokes: Path) -> None:
    run = Run("segmentation", "unet", "tiny-a", "aligned", 0, 0)
    carry_through(strokes, run)
    record = read_run(strokes, run)
    assert record is not None
    found = record.mask_predictions()
    assert set(found.split) == {"val", "test"}
    assert set(found.size) == {16}
    y_true, y_pred = unpack_masks(found.y_true, 16), unpack_masks(found.y_pred, 16)
    labels = read_study(strokes).samples().set_index("id")["label"]
    for mask, name in zip(y_true, found.sample_id, strict=True):
        np.testing.assert_array_equal(mask, make_mask(labels[name]))
    counts = segmentation.count_pixels(y_true, y_pred)
    for name in ("tp", "fp", "fn", "tn"):
        np.testing.assert_array_equal(getattr(found, name), getattr(counts, name))
    assert np.isnan(found.pixel_mm).all()
    assert (y_pred.any(axis=(1, 2)) == (found.y_score >= record.document["threshold"]["value"])).all()
    assert record.document["threshold"]["value"] in config.MASK_THRESHOLDS
    assert record.document["threshold"]["rule"] == "pooled_dice"
    cache = open_cache(strokes / read_study(strokes).document["caches"]["16"])
    data = record.document["data"]
    assert (data["cache_sha256"], data["masks_sha256"]) == (cache.sha256, cache.masks_sha256)
    assert cache.sha256 != cache.masks_sha256 != ""


def test_the_mask_threshold_is_the_best_on_validation(strokes: Path) -> None:
    run = Run("segmentation", "unet", "tiny-a", "aligned", 0, 0)
    study = read_study(strokes)
    data = load_data(study, run, TASKS["segmentation"], MASK_SPEC, MASK_RECIPE)
    framework, val = TinyFramework(), data.judged["val"]
    model: Model = {"dense.weight": np.full((1, 1, 1, 1), 4.0), "dense.bias": np.array([0.3])}
    chosen = choose_mask_threshold(framework, model, val, 3, MASK_SPEC)
    dice = {}
    for threshold in config.MASK_THRESHOLDS:
        part = predict_masks(framework, model, {"val": val}, 3, MASK_SPEC, threshold)
        dice[threshold] = 2 * part.tp.sum() / (2 * part.tp + part.fp + part.fn).sum()
    assert len(set(dice.values())) > 1
    assert dice[chosen] == max(dice.values())


def test_the_validation_loss_of_a_segmenter_is_that_of_the_whole_part(strokes: Path) -> None:
    run = Run("segmentation", "unet", "tiny-a", "aligned", 0, 0)
    val = load_data(read_study(strokes), run, TASKS["segmentation"], MASK_SPEC, MASK_RECIPE).judged["val"]
    framework = TinyFramework()
    model: Model = {"dense.weight": np.full((1, 1, 1, 1), 4.0), "dense.bias": np.array([-0.3])}
    batches = list(evaluation_batches(val, 3, MASK_SPEC))
    logits = np.concatenate(list(framework.predict_logits(model, batches)))[: len(val)]
    targets = np.concatenate([batch.targets for batch in batches])[: len(val)]
    recipe = dataclasses.replace(MASK_RECIPE, batch_size=3)
    loss, score, constant = judge(framework, model, val, MASK_SPEC, recipe)
    assert not constant
    assert loss == pytest.approx(
        dice_cross_entropy(logits, targets, val.weights, MASK_RECIPE.dice_smooth), rel=1e-9
    )
    each = [
        segmentation.dice_score(mask[..., 0] > 0.5, logit[..., 0] >= 0)
        for mask, logit in zip(targets, logits, strict=True)
        if mask.any()
    ]
    assert score == pytest.approx(np.mean(each))


def test_external_samples_are_judged_and_never_trained_on(directory: Path) -> None:
    study = read_study(directory)
    table = study.split()
    moved = table.loc[table["split"] == "test", "id"].iloc[:3].tolist()
    table.loc[table["id"].isin(moved), "split"] = "external"
    write_csv(directory / "data" / "split.csv", table)
    digests = file_digests(directory / "data", ("samples.csv", "split.csv"))
    write_json(directory / "study.json", {**study.document, "files": digests})
    carry_through(directory, A)
    record = read_run(directory, A)
    assert record is not None
    assert sorted(record.predictions().of("external").sample_id) == sorted(moved)
    assert not set(moved) & set(record.predictions().of("test").sample_id)


def test_a_transferred_run_starts_from_the_file_with_its_head_alone(directory: Path) -> None:
    """Everything but the last layer comes from the file; here there is only the last layer, so nothing does."""
    document = read_json(directory / "study.json")
    path = directory / "data" / "weights.safetensors"
    save_file({"classifier.weight": np.ones((5, 5), np.float32)}, path)
    spec = dataclasses.replace(SPEC, head="dense")
    recipe = dataclasses.replace(RECIPE, head_epochs=1)
    document["study"]["specs"]["binary/cnn"] = config.to_json(spec)
    document["study"]["recipes"]["binary/cnn"] = config.to_json(recipe)
    entry = {"path": "data/weights.safetensors", "source": "a file", "sha256": file_sha256(path)}
    document["pretrained"] = {"cnn": entry}
    write_json(directory / "study.json", document)
    framework = TinyFramework()
    with pytest.raises(StudyError, match=r"classifier\.weight"):  # a file of another model
        carry_through(directory, A, framework)
    save_file({"dense.weight": np.ones((1000, 5), np.float32)}, path)
    digest = file_sha256(path)
    with pytest.raises(StudyError, match=f"has sha256 {digest}, but study.json has {entry['sha256']}"):
        carry_through(directory, A, framework)  # the bytes count, not what the study says of them
    assert read_run(directory, A) is None
    entry["sha256"] = digest
    write_json(directory / "study.json", document)
    carry_through(directory, A, framework)
    found = document_of(directory, A)
    assert found["pretrained"] == {"source": "a file", "sha256": digest}
    assert [phase["trainable"] for phase in found["phases"]] == ["head", "all"]
    assert [phase["batch_norm"] for phase in found["phases"]] == ["evaluation", "training"]
    assert framework.trainable[-2:] == ["head", "all"]
    record = read_run(directory, A)
    assert record is not None
    rates = record.history()["learning_rate"]
    assert rates[0] == pytest.approx(rates[1])  # each phase has a schedule of its own


# --- which epoch is kept ------------------------------------------------------------------------------------------


def fit(directory: Path, framework: TinyFramework, **changes: float) -> tuple[Fit, RunData, Model]:
    """Train run A under a changed recipe."""
    data = load_data(read_study(directory), A, TASKS["binary"], SPEC, RECIPE)
    model = framework.build(SPEC)
    framework.write_weights(model, initial_weights({"dense.weight": (1, 16), "dense.bias": (1,)}, SPEC, 0))
    recipe = dataclasses.replace(RECIPE, **changes)  # type: ignore[arg-type]
    clock = StepClock(framework.synchronise)
    val = data.judged["val"]
    found = fit_model(
        framework, model, data.train, val, SPEC, recipe, 0, clock, Witness(), lambda event: None
    )
    return found, data, model


def test_the_weights_of_the_best_epoch_are_kept(directory: Path) -> None:
    framework = Spoiling()
    found, data, model = fit(directory, framework, epochs=3)
    losses = found.history["val_loss"]
    assert found.epoch == 1
    assert losses[0] < min(losses[1], losses[2])
    framework.write_weights(model, found.weights)
    val = data.judged["val"]
    logits, targets = logits_of(framework, model, val), val.labels[:, None].astype(np.float64)
    expected = binary_cross_entropy(logits, targets, val.weights)
    assert len(set(val.weights)) == 2
    assert losses[0] == pytest.approx(expected, rel=1e-6)
    assert found.val_loss == losses[0]


def test_labels_and_pixels_belong_together(directory: Path) -> None:
    """The tiny strokes are easy: training on them tells new patients apart."""
    found, data, model = fit(directory, TinyFramework(), epochs=30, learning_rate=2.0)
    test = data.judged["test"]
    assert found.history["val_score"].iloc[-1] == 1
    assert auroc_score(test.labels, logits_of(TinyFramework(), model, test)[:, 0]) == 1


# --- what goes wrong ----------------------------------------------------------------------------------------------


class Diverging(TinyFramework):
    """The loss of step 2 of epoch 2 is not a number."""

    def train_epoch(self, trainer: Model, batches: Iterable[tuple[Batch, float]]) -> NDArray[np.float64]:
        losses = super().train_epoch(trainer, batches)
        if self.epochs_trained == 2:
            losses[1:] = np.nan
        return losses


class Overflowing(TinyFramework):
    """The last step of an epoch ruins the weights after its loss was taken."""

    def train_epoch(self, trainer: Model, batches: Iterable[tuple[Batch, float]]) -> NDArray[np.float64]:
        losses = super().train_epoch(trainer, batches)
        trainer["dense.bias"] = np.full(1, np.nan)
        return losses


@pytest.mark.parametrize(
    ("framework", "message"),
    [
        (Diverging, "the training loss is nan at step 2 of epoch 2; lower the learning rate"),
        (Overflowing, "the validation logits after epoch 1 are not finite; lower the learning rate"),
    ],
)
def test_divergence_is_named_and_no_run_happened(
    directory: Path, framework: type[TinyFramework], message: str
) -> None:
    with pytest.raises(StudyError, match=message):
        carry_through(directory, A, framework())
    assert read_run(directory, A) is None


def test_run_json_is_written_last(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_module, "write_predictions", fail)
    with pytest.raises(OSError, match="No space left"):
        carry_through(directory, A)
    assert (run_directory(directory, A) / "model.safetensors").exists()
    assert read_run(directory, A) is None
    monkeypatch.undo()
    monkeypatch.setitem(config.MODELS, "cnn", SPEC)
    carry_through(directory, A)
    assert document_of(directory, A)["status"] == "complete"


def test_what_an_interrupted_run_left_is_cleared_and_a_finished_one_is_not(directory: Path) -> None:
    folder = run_directory(directory, A)
    folder.mkdir(parents=True)
    for name in ("history.csv", "predictions.npz", ".run.json.abc.partial", "run.log"):
        (folder / name).write_text("left behind")
    clear_unfinished(folder)
    assert [path.name for path in folder.iterdir()] == ["run.log"]
    carry_through(directory, A)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    with pytest.raises(StudyError, match="holds a finished run; delete that folder to run it again"):
        carry_through(directory, A)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_recorded_failure_is_read_as_one(directory: Path) -> None:
    record_failure(directory, A, "no memory", "2026-01-01T00:00:00+00:00")
    record = read_run(directory, A)
    assert record is not None
    assert not record.complete
    assert record.document["reason"] == "no memory"
    assert record.document["started"] <= record.document["finished"]
    clear_unfinished(record.directory)  # a new try begins without it
    assert read_run(directory, A) is None
    carry_through(directory, A)
    assert document_of(directory, A)["status"] == "complete"


def test_a_repeat_is_given_the_same_but_for_the_framework_s_own_draws(directory: Path) -> None:
    record = read_study(directory)
    write_json(
        directory / "study.json",
        {
            **record.document,
            "study": config.to_json(dataclasses.replace(record.study, repeats=1)),
        },
    )
    again, framework = dataclasses.replace(A, repeat=1), TinyFramework(A.framework)
    carry_through(directory, A, framework)
    carry_through(directory, again, framework)
    first, second = framework.settings[-2:]
    assert second.seed != first.seed == A.seed
    one, other = document_of(directory, A), document_of(directory, again)
    for name in ("batches", "data", "spec", "recipe"):
        assert one[name] == other[name]
    assert one["weights"]["initial_sha256"] == other["weights"]["initial_sha256"]
    assert other["run"] == {**one["run"], "repeat": 1}
