"""What Keras's losses, optimizers and loops do unless told otherwise. Twin of `torch_impl.training_defaults`."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import losses, ops

from common import rules
from common.framework import Array, Probe
from common.rules import measured

BETA2 = 0.999  # of Adam as it is probed


def probe_training() -> dict[str, Probe]:
    """Item -> probe, of losses, optimizers, schedules, the training loop and metrics."""
    return _losses() | _optimizers() | _decay() | _schedules() | _loop()


def _losses() -> dict[str, Probe]:
    one, scores, true = np.ones((1, 1)), np.array([[0.1, 0.7, 0.2]]), np.array([[0.0, 1.0, 0.0]])
    logits, weights = np.array([[0.5], [-1.0], [2.0]]), np.array([1.0, 2.0, 4.0])
    binary = losses.BinaryCrossentropy(from_logits=True)
    binary_losses = np.log1p(np.exp(-logits[:, 0]))
    classes = losses.CategoricalCrossentropy(from_logits=True)
    class_losses = np.log(np.exp(scores).sum()) - scores[0]
    behind_sigmoid = losses.BinaryCrossentropy()(_tensor(one), ops.sigmoid(_tensor(-1000 * one)))
    return {
        "binary_cross_entropy_input": measured(
            rules.binary_input_rule(
                0.9, _number(losses.BinaryCrossentropy()(_tensor(one), _tensor(0.9 * one)))
            ),
            "BinaryCrossentropy",
        ),
        "cross_entropy_input": measured(
            rules.class_input_rule(
                scores[0], 1, _number(losses.CategoricalCrossentropy()(_tensor(true), _tensor(scores)))
            ),
            "CategoricalCrossentropy",
        ),
        "largest_loss": measured(
            _number(losses.BinaryCrossentropy()(_tensor(one), _tensor(0 * one))),
            "BinaryCrossentropy of probability 0 where the truth is 1",
        ),
        "loss_behind_sigmoid": measured(
            rules.sigmoid_rule(-1000, _number(behind_sigmoid)),
            "BinaryCrossentropy of sigmoid(-1000), truth 1",
        ),
        "binary_cross_entropy_divisor": measured(
            rules.divisor_rule(
                binary_losses,
                weights,
                _number(binary(_tensor(np.ones((3, 1))), _tensor(logits), _tensor(weights))),
            ),
            "BinaryCrossentropy with sample weights, three samples",
        ),
        "cross_entropy_divisor": measured(
            rules.divisor_rule(
                class_losses,
                weights,
                _number(classes(_tensor(np.eye(3)), _tensor(np.tile(scores, (3, 1))), _tensor(weights))),
            ),
            "CategoricalCrossentropy with sample weights, a sample of each class",
        ),
        "empty_dice_loss": measured(
            _number(losses.Dice()(_tensor(np.zeros((1, 4, 4, 1))), _tensor(np.zeros((1, 4, 4, 1))))),
            "Dice of an empty mask and an empty prediction",
        ),
    }


def _optimizers() -> dict[str, Probe]:
    gradient = np.array([1e-7])
    adam = _walk(
        lambda: keras.optimizers.AdamW(1e-3, beta_2=BETA2, weight_decay=0),
        [0 * gradient],
        [gradient],
        [1e-3] * 2,
    )
    places = [0.0, *(float(step[0][0]) for step in adam)]
    form, epsilon = rules.adam_rule(np.diff(places).tolist(), 1e-7, 1e-3, BETA2)
    ((coasted,),) = _walk(
        lambda: keras.optimizers.SGD(momentum=0.9), [np.zeros(1)], [np.ones(1)], [1.0, 0.0]
    )[1:]
    (clipped,) = _walk(
        lambda: keras.optimizers.SGD(clipnorm=1.0),
        [np.zeros(1)] * 2,
        [np.array([3.0]), np.array([4.0])],
        [1.0],
    )
    return {
        "adam_learning_rate": rules.signed(keras.optimizers.AdamW, "learning_rate"),
        "adam_betas": rules.signed_together(keras.optimizers.AdamW, "beta_1", "beta_2"),
        "adam_epsilon": measured(epsilon, "AdamW's first two moves under a gradient of 1e-7"),
        "adam_form": measured(form, "AdamW's first two moves under a gradient of 1e-7"),
        "sgd_learning_rate": rules.signed(keras.optimizers.SGD, "learning_rate"),
        "sgd_momentum": rules.signed(keras.optimizers.SGD, "momentum"),
        "momentum_and_rate": measured(
            "coasts" if coasted[0] < -1.1 else "stops",
            "SGD(momentum=0.9), a step at rate 1, then one at rate 0",
        ),
        "clipping": measured(
            rules.clipping_rule((3, 4), [-float(one[0]) for one in clipped], 1.0),
            "SGD(clipnorm=), gradients 3 and 4, limit 1",
        ),
    }


def _decay() -> dict[str, Probe]:
    one, still = np.ones(1), np.zeros(1)
    adamw = _walk(lambda: keras.optimizers.AdamW(0.1), [one], [still], [0.1])[0]
    adam = _walk(lambda: keras.optimizers.Adam(0.1, weight_decay=0.05), [one], [still], [0.1])[0]
    sgd = _walk(lambda: keras.optimizers.SGD(0.1, 0.9, weight_decay=0.05), [one], [still], [0.1] * 2)[1]
    tensors = {"kernel": np.ones((2, 2)), "bias": np.ones(2), "scale": np.ones(2)}
    fallen = _walk(
        lambda: keras.optimizers.AdamW(0.1),
        list(tensors.values()),
        [0 * one for one in tensors.values()],
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
    def plateau(values: Sequence[float], **options: float) -> list[float]:
        """The rate after each epoch."""
        model = _identity(keras.optimizers.SGD(1.0))
        schedule = keras.callbacks.ReduceLROnPlateau(monitor="loss", **options)
        schedule.set_model(model)
        schedule.on_train_begin()
        rates = []
        for epoch, value in enumerate(values):
            schedule.on_epoch_end(epoch, {"loss": value})
            rates.append(_number(model.optimizer.learning_rate))
        return rates

    return {
        "plateau_patience": rules.signed(keras.callbacks.ReduceLROnPlateau, "patience"),
        "plateau_wait": measured(
            rules.epochs_until_lower(plateau([1.0] * 6, patience=2)), "ReduceLROnPlateau(patience=2)"
        ),
        "plateau_threshold": measured(
            rules.threshold_rule(plateau([1000.0, 999.95], patience=1)),
            "ReduceLROnPlateau, 1000 falls to 999.95",
        ),
    }


def _loop() -> dict[str, Probe]:
    shown, _ = _fit(np.arange(97.0))
    order = np.concatenate(shown).tolist()
    batches, reported = _fit(np.arange(10.0), batch_size=4, shuffle=False)
    step_losses = [float(np.mean(batch**2)) for batch in batches]
    scores = [-0.25, 0.25, 0.75]
    judge = _identity(keras.optimizers.SGD(), metrics=["accuracy"], run_eagerly=True)
    accuracies = [judge.evaluate(np.full((1, 1), one), np.ones((1, 1)), verbose=0)[1] for one in scores]
    return {
        "shuffle": measured(order != sorted(order), "Model.fit of 97 samples"),
        "batch_size": measured(len(shown[0]), "Model.fit of 97 samples"),
        "last_batch": measured(
            rules.last_batch_rule([len(one) for one in batches], 10), "Model.fit(batch_size=4) of 10"
        ),
        "reported_loss": measured(
            rules.reported_loss_rule(step_losses[:2], reported[:2]),
            "`loss` in the logs after each batch of Model.fit",
        ),
        "compilation": measured(
            _compilation(), "Model.compile, and whether a third step runs its Python code"
        ),
        "accuracy_threshold": measured(
            rules.threshold_between(scores, accuracies),
            "metrics=['accuracy'] for one output, on three scores",
        ),
        "auc_thresholds": rules.signed(keras.metrics.AUC, "num_thresholds"),
    }


def _fit(values: Array, **options: Any) -> tuple[list[Array], list[float]]:
    """Each batch that one epoch of Model.fit shows of the values, (N,), and the loss that is reported after it."""
    shown: list[Any] = []
    reported: list[float] = []

    def square(y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        shown.append(y_true)
        return ops.square(y_pred)

    watch = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: shown.clear(),  # Keras tries the loss on tensors without values before
        on_train_batch_end=lambda batch, logs: reported.append(float(logs["loss"])),
    )
    model = _identity(keras.optimizers.SGD(0.0), loss=square, run_eagerly=True)
    model.fit(values[:, None], values[:, None], verbose=0, callbacks=[watch], **options)
    return [np.array(ops.convert_to_numpy(one)).ravel() for one in shown], reported


def _compilation() -> str:
    """What a model is that was compiled without a word on how."""
    runs = []

    def square(y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        runs.append(y_true)
        return ops.square(y_true - y_pred)

    model, one = _identity(keras.optimizers.SGD(), loss=square), np.ones((1, 1))
    for _ in range(3):
        runs.clear()
        model.train_on_batch(one, one)
    return "eager" if runs else "XLA" if model.jit_compile else "graph"


def _identity(optimizer: keras.optimizers.Optimizer, loss: Any = "mse", **options: Any) -> keras.Model:
    """A compiled model of one weight that returns its input."""
    model = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")]
    )
    model.compile(optimizer, loss, **options)
    return model


def _walk(
    optimizer: Callable[[], keras.optimizers.Optimizer],
    starts: Sequence[Array],
    gradients: Sequence[Array],
    rates: Sequence[float],
) -> list[list[Array]]:
    """The tensors after each step under constant gradients, one step a rate."""
    variables = [keras.Variable(start, dtype="float64") for start in starts]
    running, steps = optimizer(), []
    for rate in rates:
        running.learning_rate = rate
        running.apply([_tensor(gradient) for gradient in gradients], variables)
        steps.append([np.array(ops.convert_to_numpy(variable)) for variable in variables])
    return steps


def _tensor(array: Array) -> keras.KerasTensor:
    return ops.convert_to_tensor(array, "float64")


def _number(tensor: keras.KerasTensor) -> float:
    return float(ops.convert_to_numpy(tensor))
