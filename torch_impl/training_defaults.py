"""What PyTorch's losses, optimizers and loops do unless told otherwise. Twin of `keras_impl.training_defaults`."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from common import rules
from common.framework import Array, Probe
from common.rules import absent, measured

BETA2 = 0.999  # of Adam as it is probed


def probe_training() -> dict[str, Probe]:
    """Item -> probe, of losses, optimizers, schedules, the training loop and metrics."""
    return _losses() | _optimizers() | _decay() | _schedules() | _loop()


def _losses() -> dict[str, Probe]:
    one, scores, true = np.ones((1, 1)), np.array([[0.1, 0.7, 0.2]]), np.array([[0.0, 1.0, 0.0]])
    logits, weights = np.array([[0.5], [-1.0], [2.0]]), np.array([1.0, 2.0, 4.0])
    binary = nn.BCEWithLogitsLoss(weight=_tensor(weights[:, None]))
    binary_losses = np.log1p(np.exp(-logits[:, 0]))
    classes = nn.CrossEntropyLoss(weight=_tensor(weights))
    class_losses = np.log(np.exp(scores).sum()) - scores[0]
    behind_sigmoid = functional.binary_cross_entropy(torch.sigmoid(_tensor(-1000 * one)), _tensor(one))
    return {
        "binary_cross_entropy_input": measured(
            rules.binary_input_rule(0.9, _number(nn.BCEWithLogitsLoss()(_tensor(0.9 * one), _tensor(one)))),
            "BCEWithLogitsLoss; BCELoss takes probabilities",
        ),
        "cross_entropy_input": measured(
            rules.class_input_rule(
                scores[0], 1, _number(nn.CrossEntropyLoss()(_tensor(scores), _tensor(true)))
            ),
            "CrossEntropyLoss",
        ),
        "largest_loss": measured(
            _number(nn.BCELoss()(_tensor(0 * one), _tensor(one))),
            "BCELoss of probability 0 where the truth is 1",
        ),
        "loss_behind_sigmoid": measured(
            rules.sigmoid_rule(-1000, _number(behind_sigmoid)), "BCELoss of sigmoid(-1000), truth 1"
        ),
        "binary_cross_entropy_divisor": measured(
            rules.divisor_rule(
                binary_losses, weights, _number(binary(_tensor(logits), _tensor(np.ones((3, 1)))))
            ),
            "BCEWithLogitsLoss(weight=), three samples",
        ),
        "cross_entropy_divisor": measured(
            rules.divisor_rule(
                class_losses, weights, _number(classes(_tensor(np.tile(scores, (3, 1))), torch.arange(3)))
            ),
            "CrossEntropyLoss(weight=), a sample of each class",
        ),
        "empty_dice_loss": absent("PyTorch has no Dice loss"),
    }


def _optimizers() -> dict[str, Probe]:
    gradient = np.array([1e-7])
    adam = _walk(
        lambda w: torch.optim.AdamW(w, lr=1e-3, betas=(0.9, BETA2), weight_decay=0),
        [0 * gradient],
        [gradient],
        [1e-3] * 2,
    )
    places = [0.0, *(float(step[0][0]) for step in adam)]
    form, epsilon = rules.adam_rule(np.diff(places).tolist(), 1e-7, 1e-3, BETA2)
    ((coasted,),) = _walk(
        lambda w: torch.optim.SGD(w, momentum=0.9), [np.zeros(1)], [np.ones(1)], [1.0, 0.0]
    )[1:]
    clipped = [nn.Parameter(_tensor(np.zeros(1))) for _ in range(2)]
    for parameter, value in zip(clipped, (3.0, 4.0), strict=True):
        parameter.grad = _tensor(np.array([value]))
    nn.utils.clip_grad_norm_(clipped, 1.0)
    return {
        "adam_learning_rate": rules.signed(torch.optim.AdamW, "lr"),
        "adam_betas": rules.signed(torch.optim.AdamW, "betas"),
        "adam_epsilon": measured(epsilon, "AdamW's first two moves under a gradient of 1e-7"),
        "adam_form": measured(form, "AdamW's first two moves under a gradient of 1e-7"),
        "sgd_learning_rate": rules.signed(torch.optim.SGD, "lr"),
        "sgd_momentum": rules.signed(torch.optim.SGD, "momentum"),
        "momentum_and_rate": measured(
            "coasts" if coasted[0] < -1.1 else "stops",
            "SGD(momentum=0.9), a step at rate 1, then one at rate 0",
        ),
        "clipping": measured(
            rules.clipping_rule((3, 4), [_number(one.grad) for one in clipped], 1.0),
            "clip_grad_norm_, gradients 3 and 4, limit 1",
        ),
    }


def _decay() -> dict[str, Probe]:
    one, still = np.ones(1), np.zeros(1)
    adamw = _walk(lambda w: torch.optim.AdamW(w, lr=0.1), [one], [still], [0.1])[0]
    adam = _walk(lambda w: torch.optim.Adam(w, lr=0.1, weight_decay=0.05), [one], [still], [0.1])[0]
    sgd = _walk(
        lambda w: torch.optim.SGD(w, lr=0.1, momentum=0.9, weight_decay=0.05), [one], [still], [0.1] * 2
    )[1]
    tensors = {"kernel": np.ones((2, 2)), "bias": np.ones(2), "scale": np.ones(2)}
    fallen = _walk(
        lambda w: torch.optim.AdamW(w, lr=0.1),
        list(tensors.values()),
        [np.zeros_like(one) for one in tensors.values()],
        [0.1],
    )[0]
    return {
        "adamw_weight_decay": measured((1 - float(adamw[0][0])) / 0.1, "AdamW, one step without gradient"),
        "decay_scope": measured(
            rules.scope_rule(
                {name: float(value.flat[0]) for name, value in zip(tensors, fallen, strict=True)}
            ),
            "AdamW, one step without gradient",
        ),
        "adam_decay": measured(
            rules.adam_decay_rule(float(adam[0][0]), 0.1, 0.05),
            "Adam(weight_decay=), one step without gradient",
        ),
        "sgd_decay": measured(
            rules.sgd_decay_rule(float(sgd[0][0]), 0.1, 0.05, 0.9),
            "SGD(momentum=0.9, weight_decay=), two steps without gradient",
        ),
    }


def _schedules() -> dict[str, Probe]:
    def plateau(losses: Sequence[float], **options: float) -> list[float]:
        """The rate after each epoch."""
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **options)  # type: ignore[arg-type]
        rates = []
        for loss in losses:
            schedule.step(loss)
            rates.append(float(optimizer.param_groups[0]["lr"]))
        return rates

    return {
        "plateau_patience": rules.signed(torch.optim.lr_scheduler.ReduceLROnPlateau, "patience"),
        "plateau_wait": measured(
            rules.epochs_until_lower(plateau([1.0] * 6, patience=2)), "ReduceLROnPlateau(patience=2)"
        ),
        "plateau_threshold": measured(
            rules.threshold_rule(plateau([1000.0, 999.95], patience=0)),
            "ReduceLROnPlateau, 1000 falls to 999.95",
        ),
    }


def _loop() -> dict[str, Probe]:
    shown = [[int(one) for one in batch] for batch in DataLoader(range(97))]  # type: ignore[arg-type]
    order = [one for batch in shown for one in batch]
    batches = list(DataLoader(range(10), batch_size=4))  # type: ignore[arg-type]
    return {
        "shuffle": measured(order != sorted(order), "DataLoader of 97 samples"),
        "batch_size": measured(len(shown[0]), "DataLoader of 97 samples"),
        "last_batch": measured(
            rules.last_batch_rule([len(one) for one in batches], 10), "DataLoader(batch_size=4) of 10"
        ),
        "reported_loss": absent("PyTorch has no training loop of its own"),
        "compilation": measured(_compilation(), "a module, and whether a third call runs its Python code"),
        "accuracy_threshold": absent("PyTorch has no metrics"),
        "auc_thresholds": absent("PyTorch has no metrics"),
    }


def _compilation() -> str:
    """What a module is that was made without a word on how."""
    runs = []

    class Watched(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            runs.append(x)
            return x

    model, one = Watched(), torch.ones(1)
    for _ in range(3):
        runs.clear()
        model(one)
    return "eager" if runs else "graph"


def _walk(
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    starts: Sequence[Array],
    gradients: Sequence[Array],
    rates: Sequence[float],
) -> list[list[Array]]:
    """The tensors after each step under constant gradients, one step a rate."""
    parameters = [nn.Parameter(_tensor(start)) for start in starts]
    running, steps = optimizer(parameters), []
    for rate in rates:
        running.param_groups[0]["lr"] = rate
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = _tensor(gradient)
        running.step()
        steps.append([parameter.detach().numpy().copy() for parameter in parameters])
    return steps


def _tensor(array: Array) -> torch.Tensor:
    return torch.from_numpy(np.array(array, np.float64))


def _number(tensor: torch.Tensor | None) -> float:
    assert tensor is not None
    return float(tensor.detach())
