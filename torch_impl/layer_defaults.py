"""What PyTorch's layers do unless told otherwise, by trying them in float64. Twin of `keras_impl.layer_defaults`."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from common import rules
from common.framework import Array, Probe
from common.rules import measured

ROW = np.arange(8.0)
ONES = np.ones((8, 8))


def probe_layers() -> dict[str, Probe]:
    """Item -> probe, of starting values, normalisation, shapes, activations and dropout."""
    return _starting_values() | _normalisation() | _shapes() | _resizing() | _activations()


def _starting_values() -> dict[str, Probe]:
    dense = nn.Linear(30, 1000)
    convolution = nn.Conv2d(20, 50, 3)
    depthwise = nn.Conv2d(500, 500, 7, groups=500)
    transposed = nn.ConvTranspose2d(60, 100, 2, stride=2)
    narrow = _array(nn.init.trunc_normal_(torch.empty(10_000), std=0.02))
    unit = _array(nn.init.trunc_normal_(torch.empty(10_000), std=1.0))
    kernels: dict[str, tuple[nn.Linear | nn.Conv2d | nn.ConvTranspose2d, dict[str, int]]] = {
        "dense_kernel": (dense, {"in": 30, "out": 1000}),
        "convolution_kernel": (convolution, {"k²·in": 180, "k²·out": 450}),
        "depthwise_kernel": (depthwise, {"k²": 49, "k²·channels": 24_500}),
        "transposed_kernel": (transposed, {"k²·in": 240, "k²·out": 400}),
    }
    return {
        **{
            item: measured(rules.drawing_rule(_array(layer.weight), sizes), f"{type(layer).__name__}.weight")
            for item, (layer, sizes) in kernels.items()
        },
        "bias": measured(rules.drawing_rule(_array(dense.bias), {"in": 30, "out": 1000}), "Linear.bias"),
        "truncated_normal": measured(
            rules.truncation_rule(narrow, unit, 0.02), "nn.init.trunc_normal_, std 0.02 and 1"
        ),
        "convolution_bias": measured(convolution.bias is not None, "Conv2d has a bias"),
    }


def _normalisation() -> dict[str, Probe]:
    small = 0.01 * np.array([-1.5, -0.5, 0.5, 1.5]).reshape(4, 1, 1, 1)
    large = np.array([1.0, 2.0, 4.0, 9.0]).reshape(4, 1, 1, 1)

    def after_a_batch(batch: Array, frozen: bool = False) -> tuple[Array, float, float]:
        """Output, running mean, running variance of a fresh BatchNorm2d in training."""
        layer = nn.BatchNorm2d(1)
        layer.requires_grad_(not frozen)
        y = _array(layer(_tensor(batch)))
        return y, *(_array(one).item() for one in (layer.running_mean, layer.running_var))

    _, mean, variance = after_a_batch(large)
    decay = rules.decay_rule(0.0, float(large.mean()), mean)
    target = (variance - decay) / (1 - decay)  # from a running variance of 1
    moves = after_a_batch(large, frozen=True)[1] != 0
    layer_normed = _array(nn.LayerNorm(4)(_tensor(small.reshape(1, 4))))
    return {
        "batch_norm_epsilon": measured(
            rules.epsilon_rule(small, after_a_batch(small)[0]), "BatchNorm2d on a batch of known variance"
        ),
        "batch_norm_decay": measured(decay, "BatchNorm2d's running mean after one batch"),
        "batch_norm_variance": measured(
            rules.variance_rule(large, target), "BatchNorm2d's running variance after one batch"
        ),
        "frozen_batch_norm": measured("moves" if moves else "stays", "BatchNorm2d, requires_grad False"),
        "layer_norm_epsilon": measured(
            rules.epsilon_rule(small.reshape(1, 4), layer_normed), "LayerNorm on numbers of known variance"
        ),
    }


def _shapes() -> dict[str, Probe]:
    ones, kernel, rows = _tensor(ONES[None, None]), _tensor(np.ones((1, 1, 3, 3))), _tensor(ROW[None, None])
    strided = _array(functional.conv2d(ones, kernel, stride=2, padding=1))[0, 0]
    down, up = (_array(functional.max_pool1d(one, 3, 2, padding=1)).ravel() for one in (rows, 7 - rows))
    averaged = _array(nn.AvgPool2d(3, stride=1, padding=1)(ones))[0, 0]
    picture = np.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    doubled = functional.conv_transpose2d(
        ones[..., :1, :1], _tensor(picture), stride=2, padding=1, output_padding=1
    )
    halved = nn.MaxPool2d(2)(ones[..., :5, :5])
    places = 100 * np.arange(3)[:, None, None] + 10 * np.arange(4)[:, None] + np.arange(5)  # (C, H, W)
    summed = functional.conv2d(_tensor(np.ones((1, 5, 6, 7))), _tensor(np.ones((1, 5, 1, 1))))
    try:
        nn.Conv2d(1, 1, 3, stride=2, padding="same")
        same = "padding 1; 'same' is accepted too"
    except ValueError:
        same = "padding 1, as 'same' is refused"
    return {
        "layout": measured(rules.axis_rule(_array(summed).flat[0], 5, 7), "functional.conv2d, 1x1"),
        "flatten_order": measured(
            rules.flattening_rule(_array(nn.Flatten()(_tensor(places[None]))).ravel()), "Flatten"
        ),
        "strided_convolution": measured(
            rules.padded_side(strided[0, 0], strided[-1, -1], 9), f"functional.conv2d, 3x3, stride 2, {same}"
        ),
        "strided_max_pool": measured(
            rules.padded_side(down[0] + 1, up[-1] + 1, 3), "functional.max_pool1d, 3, stride 2, padding 1"
        ),
        "padded_average_pool": measured(
            "counts" if averaged[0, 0] < 1 else "does not count", "AvgPool2d(3, stride=1, padding=1) of ones"
        ),
        "odd_size": measured(rules.halving_rule(5, halved.shape[-1]), "MaxPool2d(2) of 5 px"),
        "transposed_convolution": measured(
            rules.cut_side(_array(doubled)[0, 0], picture[0, 0]),
            "functional.conv_transpose2d, 3x3, stride 2, padding 1, output_padding 1",
        ),
    }


def _resizing() -> dict[str, Probe]:
    point = np.zeros((1, 1, 8, 8))
    point[..., 0, 0] = 1
    step = _tensor(np.array([[0.0, 1.0], [0.0, 1.0]])[None, None])
    shrunk = functional.interpolate(_tensor(point), (2, 2), mode="bilinear")
    doubled = _array(nn.Upsample(scale_factor=2, mode="bilinear")(step))
    return {
        "resize_method": rules.signed(functional.interpolate, "mode"),
        "resize_antialias": measured(
            bool(_array(shrunk)[0, 0, 0, 0] > 0), "functional.interpolate, bilinear, a point of 8 px to 2 px"
        ),
        "upsample_method": rules.signed(nn.Upsample, "mode"),
        "bilinear_grid": measured(rules.doubling_rule(doubled[0, 0, 0]), "Upsample(2, bilinear) of (0, 1)"),
    }


def _activations() -> dict[str, Probe]:
    drawn = _array(nn.Dropout(0.75).train()(_tensor(np.ones(1000))))
    fresh = _array(nn.Dropout(0.75)(_tensor(np.ones(1000))))
    spread = _tensor(rules.SPREAD)
    return {
        "gelu_layer": measured(rules.gelu_rule(_array(nn.GELU()(spread))), "GELU"),
        "gelu_function": measured(rules.gelu_rule(_array(functional.gelu(spread))), "functional.gelu"),
        "leaky_relu_slope": measured(-_array(nn.LeakyReLU()(_tensor(-ONES))).flat[0], "LeakyReLU of -1"),
        "dropout_scale": measured(float(drawn.max()), "Dropout(0.75) of ones: the largest value"),
        "fresh_mode": measured(
            "training" if (fresh == 0).any() else "evaluation", "Dropout(0.75), called as it was made"
        ),
    }


def _tensor(array: Array) -> torch.Tensor:
    return torch.from_numpy(np.asarray(array, np.float64))


def _array(tensor: torch.Tensor | None) -> Array:
    assert tensor is not None
    return tensor.detach().to(torch.float64).numpy().copy()
