"""The items of the atlas: what is asked of every framework, in words, and what the aligned lane does about it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from common.config import ConvNextSpec, DenseNetSpec, Recipe, UnetSpec


@dataclass(frozen=True)
class Item:
    """One question that has an answer in a framework even if nobody asks it."""

    title: str
    about: str  # what the values mean
    aligned: str | None = None  # what the aligned lane does; None: nothing that the item is about
    section: str = ""


_NUMPY = "normal cut at 2σ, variance 2 / fan_in, drawn once in NumPy"
_EXACT = "computed apart, in NumPy"
_OUTSIDE = "done once, before both"

_STARTING_VALUES = {
    "dense_kernel": Item("Kernel of a dense layer", "the rule that its draws follow", _NUMPY),
    "convolution_kernel": Item("Kernel of a convolution", "k: its side; in, out: channels", _NUMPY),
    "depthwise_kernel": Item(
        "Kernel of a depthwise convolution", "each output is a sum of k² numbers only", _NUMPY
    ),
    "transposed_kernel": Item("Kernel of a transposed convolution", "as of a convolution", _NUMPY),
    "bias": Item("Bias", "the rule that its draws follow", "0"),
    "truncated_normal": Item("Truncated normal", "where it is cut", "at 2 standard deviations"),
    "convolution_bias": Item("Bias of a convolution", "whether there is one", "not before batch norm"),
}
_NORMALISATION = {
    "batch_norm_epsilon": Item("Epsilon of batch norm", "added to the variance", str(UnetSpec.norm_epsilon)),
    "batch_norm_decay": Item("Decay of batch norm", "weight of the old statistic", str(UnetSpec.norm_decay)),
    "batch_norm_variance": Item(
        "Running variance of batch norm", "biased: divided by n, unbiased: by n - 1", UnetSpec.norm_variance
    ),
    "frozen_batch_norm": Item("Frozen batch norm", "what its statistics do in training mode", "stays"),
    "layer_norm_epsilon": Item(
        "Epsilon of layer norm", "added to the variance", str(ConvNextSpec.norm_epsilon)
    ),
}
_SHAPES = {
    "layout": Item("Axes of a picture", "where its channels are", "each its own; memory channels_last"),
    "flatten_order": Item("Order of flattened maps", "which values are neighbours", "channels_last"),
    "strided_convolution": Item(
        "3x3 convolution that halves 8 px", "where it sees zeros beyond the border", "top and left"
    ),
    "strided_max_pool": Item("Max-pool of 3 that halves 8 px", "where it sees the border", "top and left"),
    "padded_average_pool": Item("Padded average pool", "whether it counts the padding"),
    "odd_size": Item("Pool of 2 on an odd size", "how half of it is rounded", "down"),
    "transposed_convolution": Item(
        "3x3 transposed convolution, doubling", "what is cut off", "2x2 kernels: nothing"
    ),
    "resize_method": Item("Resizing", "method", _OUTSIDE),
    "resize_antialias": Item("Resizing to a smaller size", "whether it is antialiased", _OUTSIDE),
    "upsample_method": Item("Upsampling layer", "method"),
    "bilinear_grid": Item("Bilinear upsampling", "what stays in place"),
}
_ACTIVATIONS = {
    "gelu_layer": Item("GELU as a layer", "exact, or by tanh", "exact"),
    "gelu_function": Item("GELU as a function", "exact, or by tanh", "exact"),
    "leaky_relu_slope": Item("Leaky ReLU", "slope below 0"),
    "dropout_scale": Item("Dropout of 3 in 4", "factor of what is kept", "4.0"),
    "fresh_mode": Item("A layer called as it was made", "its mode", "stated at every call"),
}
_LOSSES = {
    "binary_cross_entropy_input": Item("Binary cross-entropy", "what it takes", Recipe.loss_input),
    "cross_entropy_input": Item("Cross-entropy", "what it takes", Recipe.loss_input),
    "largest_loss": Item("Largest binary cross-entropy", "of probability 0, truth 1", "none, on logits"),
    "loss_behind_sigmoid": Item("Binary cross-entropy of a sigmoid", "what it is computed from", "logits"),
    "binary_cross_entropy_divisor": Item(
        "Weighted binary cross-entropy", "what the sum is divided by", Recipe.loss_divisor
    ),
    "cross_entropy_divisor": Item(
        "Weighted cross-entropy", "what the sum is divided by", Recipe.loss_divisor
    ),
    "empty_dice_loss": Item("Dice loss of an empty mask, predicted as such", "its value", "0.0"),
}
_OPTIMIZERS = {
    "adam_learning_rate": Item("Learning rate of AdamW", "a step", "the recipe's, by schedule"),
    "adam_betas": Item(
        "Betas of AdamW", "decays of its moments", f"{Recipe.adam_beta1}, {Recipe.adam_beta2}"
    ),
    "adam_epsilon": Item("Epsilon of AdamW", "added to the root of the moment", str(Recipe.adam_epsilon)),
    "adam_form": Item("Form of AdamW", "epsilon after the bias correction or before it", Recipe.adam_form),
    "sgd_learning_rate": Item("Learning rate of SGD", "a step"),
    "sgd_momentum": Item("Momentum of SGD", "weight of the old velocity"),
    "momentum_and_rate": Item("Momentum at rate 0", "whether the velocity holds the old rate and coasts"),
    "clipping": Item("Clipping by norm", "whose norm", Recipe.gradient_clip_scope),
    "adamw_weight_decay": Item("Weight decay of AdamW", "a step and unit of rate", str(Recipe.weight_decay)),
    "decay_scope": Item("What decays in AdamW", "kernels alone or all tensors", Recipe.decay_scope),
    "adam_decay": Item("Weight decay of Adam", "how it acts", "decoupled"),
    "sgd_decay": Item("Weight decay of SGD", "how it acts"),
    "plateau_patience": Item("Patience of ReduceLROnPlateau", "epochs"),
    "plateau_wait": Item("Patience 2", "epochs without progress until the rate falls"),
    "plateau_threshold": Item("Progress of 1e-4 or more", "what it is a share of"),
}
_LOOP = {
    "shuffle": Item("Shuffling", "whether the samples of an epoch are", "one order for both"),
    "batch_size": Item("Batch size", "samples", "the recipe's"),
    "last_batch": Item("Samples that fill no batch", "what becomes of them", "filled up"),
    "reported_loss": Item("Loss that is shown in training", "of what", "of the batch"),
    "compilation": Item("Compilation on a CPU", "how a training step runs", "as it comes"),
    "accuracy_threshold": Item("`accuracy`", "score from which a sample is class 1", _EXACT),
    "auc_thresholds": Item("Area under the curve", "thresholds that stand for all", _EXACT),
}
_MEANING = "the precision that float64 numbers are computed in"
_PRECISION = {
    "float64_constant": Item("A Python number as float64", _MEANING, "float64"),
    "float64_mean": Item("Mean", _MEANING, "float64"),
    "float64_variance": Item("Variance", _MEANING, "float64"),
    "float64_erf": Item("Error function", _MEANING, "float64"),
    "float64_gelu": Item("GELU", _MEANING, "float64"),
    "float64_softplus": Item("Softplus", _MEANING, "float64"),
    "float64_matmul": Item("Matrix product", _MEANING, "float64"),
    "float64_layer_norm": Item("Layer norm", _MEANING, "float64"),
    "float64_batch_norm": Item("Batch norm", _MEANING, "float64"),
    "float64_loss": Item("Binary cross-entropy from logits", _MEANING, "float64"),
    "tf32_matmul": Item("TF32 in matrix products", "whether a GPU may round float32 to 10 bits", "off"),
    "tf32_convolution": Item("TF32 in convolutions", "whether a GPU may round float32 to 10 bits", "off"),
}
_MODELS = {
    "stochastic_depth": Item("Stochastic depth of ConvNeXt", "rate", str(ConvNextSpec.stochastic_depth)),
    "convnext_preprocessing": Item("Normalisation inside ConvNeXt", "whether there is", _OUTSIDE),
    "model_weights": Item("Weights of ConvNeXt", "where they come from", "one file for both, or drawn"),
    "densenet_norm_epsilon": Item(
        "Epsilon of DenseNet's norms", "added to the variance", str(DenseNetSpec.norm_epsilon)
    ),
}

_SECTIONS: dict[str, dict[str, Item]] = {
    "Starting values": _STARTING_VALUES,
    "Normalisation": _NORMALISATION,
    "Shapes": _SHAPES,
    "Activations and dropout": _ACTIVATIONS,
    "Losses": _LOSSES,
    "Optimizers": _OPTIMIZERS,
    "Training loop and metrics": _LOOP,
    "Precision": _PRECISION,
    "Models that come along": _MODELS,
}
# In the order in which they are shown
ITEMS: dict[str, Item] = {
    name: replace(item, section=section)
    for section, items in _SECTIONS.items()
    for name, item in items.items()
}
