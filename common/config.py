"""Every number of a study, in one file: tasks, models, recipes, profiles, rules.

The dataclasses are frozen; a study resolves them once, writes them to `study.json` and hands each run its own
copy. A number that is not here (and is no drawing constant of the phantom) is a defect.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from common.documents import typed
from common.errors import StudyError

NOTICE = "Research only, not a medical device."

FRAMEWORKS = ("torch", "keras-tensorflow", "keras-jax", "keras-torch")
STUDY_LANES = ("aligned", "native")  # that a study can be in; see `LANES`
DEVICES = ("auto", "cpu", "cuda")
# With bfloat16, convolutions and matrix products are in it; weights, optimizer state, batch norm's statistics, the last
# layer and the loss are in float32.
PRECISIONS = ("bfloat16", "float32", "float64")
SPLITS = ("train", "val", "test")


# --- tasks ------------------------------------------------------------------------------------------------------

# What a sample may be labelled; "stroke": its kind is not stated.
LABELS = ("normal", "stroke", "bleeding", "ischemia")


@dataclass(frozen=True)
class Task:
    """What is predicted from an image, and how its data are divided and judged."""

    name: str
    kind: str  # "classification" | "segmentation"
    classes: tuple[str, ...]  # class index -> name; class 0 is the healthy one
    labels: tuple[str, ...]  # a sample with another label takes no part in the task
    primary_metric: str  # the one metric of the declared family
    margin: float  # of the primary metric; frameworks that differ by less are equivalent, declared before training
    models: tuple[str, ...]  # that can be trained for it
    default_models: tuple[str, ...]  # that are, unless others are asked for

    @property
    def outputs(self) -> int:
        """Logits a sample (classification) or a pixel (segmentation); two classes need one."""
        return len(self.classes) if len(self.classes) > 2 else 1

    def class_index(self, label: str) -> int:
        """Index of a sample's label. With two classes every kind of stroke is class 1."""
        if len(self.classes) == 2:
            return int(label != "normal")
        return self.classes.index(label)


BACKBONES = ("densenet121", "convnext_tiny")

# Half of the smallest gap that reader studies of diagnostic models usually call worth having (0.1 of AUROC or Dice);
# also a usual margin of non-inferiority for an AUROC.
MARGIN = 0.05

TASKS: dict[str, Task] = {
    "binary": Task(
        "binary",
        "classification",
        ("normal", "stroke"),
        LABELS,
        "auroc_score",
        MARGIN,
        models=("cnn", *BACKBONES),
        default_models=("cnn",),
    ),
    "subtype": Task(
        "subtype",
        "classification",
        ("normal", "bleeding", "ischemia"),
        ("normal", "bleeding", "ischemia"),
        "auroc_score",
        MARGIN,
        models=("cnn", *BACKBONES),
        default_models=BACKBONES,
    ),
    "segmentation": Task(
        "segmentation",
        "segmentation",
        ("background", "lesion"),
        LABELS,
        "dice_score",
        MARGIN,
        models=("unet",),
        default_models=("unet",),
    ),
}

# One split of the patients serves every task, so that a two-stage pipeline is never tested on patients that either
# stage was trained on. Shares of the samples, as near as whole patients allow; 70/15/15 as in the public project.
VAL_FRACTION = 0.15
TEST_FRACTION = 0.15

# The cascade: this task's runs say whether there is a stroke (the first that ran), and segmentation's where.
GATE_TASKS = ("subtype", "binary")


# Fields of a spec or recipe that name one of several ways to do something -> all ways that there are.
WAYS: dict[str, tuple[str, ...]] = {
    "flatten_order": ("channels_last", "channels_first"),
    "initialiser": ("common", "framework"),
    "norm_variance": ("unbiased", "biased"),
    "padding": ("symmetric", "same"),
    "loss": ("binary_cross_entropy", "cross_entropy", "dice_cross_entropy"),
    "class_weights": ("balanced", "none"),
    "sampling": ("shuffled", "balanced", "foreground"),
    "gradient_clip_scope": ("global", "tensor"),
    "adam_form": ("corrected", "uncorrected"),
    "decay_scope": ("kernels", "all"),
    "loss_divisor": ("weights", "samples"),
    "loss_input": ("logits", "probabilities"),
    "order": ("common", "framework"),
    "loop": ("steps", "fit"),
}


def _check_ways(value: object) -> None:
    """ValueError where a field of a spec or recipe names a way that nobody knows."""
    for name, way in vars(value).items():
        if name in WAYS and way not in WAYS[name]:
            raise ValueError(f"{name} {way!r} is none of {', '.join(map(repr, WAYS[name]))}")


# --- models -----------------------------------------------------------------------------------------------------


IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of the RGB pixels / 255 that the public weights were trained with
IMAGENET_STD = (0.229, 0.224, 0.225)
# About those of a head in the brain window, air included.
CT_MEAN, CT_STD = 0.2, 0.3


@dataclass(frozen=True)
class CnnSpec:
    """The plain CNN of the public two-class project: convolutions, max-pooling, dropout, fully connected."""

    name: str = "cnn"
    image_size: int = 128  # px; input is (N, image_size, image_size, channels)
    channels: int = 3  # RGB as in the public project; the grey slice is repeated
    features: tuple[int, ...] = (8, 16, 32, 64, 128)  # one 3x3 convolution, ReLU and 2x2 max-pool each
    kernel_size: int = 3
    hidden: int = 128  # units of the fully connected layer
    dropout: float = (
        0.3  # before the last layer; on the flattened maps too it keeps so plain a net from learning
    )
    outputs: int = 1  # logits
    pixel_mean: tuple[float, ...] = (CT_MEAN,) * 3  # a channel; (x / 255 - mean) / std
    pixel_std: tuple[float, ...] = (CT_STD,) * 3
    head: str = "head"  # the layer that gives the logits
    # What the lanes differ in, in every spec; see `DEFAULTS`
    flatten_order: str = "channels_last"  # | "channels_first"
    initialiser: str = "common"  # starting weights: `common.weights`, or "framework", those of its layers
    stock_layers: bool = False  # Keras's own dense layer, norms and GELU instead of ours, written out
    shared_masks: int = 0  # dropout masks of so many samples come from common; 0: the framework draws them

    def __post_init__(self) -> None:
        _check_ways(self)


@dataclass(frozen=True)
class DenseNetSpec:
    """DenseNet with bottlenecks and compression (Huang et al. 2017, table 1); the defaults are DenseNet-121."""

    name: str = "densenet121"
    image_size: int = 224
    channels: int = 3
    stem_features: int = 64
    blocks: tuple[int, ...] = (6, 12, 24, 16)  # dense layers of each block
    growth: int = 32  # channels a dense layer adds
    bottleneck: int = 4  # the 1x1 convolution of a dense layer has bottleneck * growth channels
    dropout: float = 0.0  # before the last layer
    norm_decay: float = 0.9  # weight of the old statistic
    norm_epsilon: float = 1e-5
    outputs: int = 1
    pixel_mean: tuple[float, ...] = IMAGENET_MEAN
    pixel_std: tuple[float, ...] = IMAGENET_STD
    head: str = "classifier"
    norm_variance: str = "unbiased"  # what the running variance moves towards | "biased"
    padding: str = "symmetric"  # at stride 2 | "same", Keras's: an odd rest goes to the bottom and right
    initialiser: str = "common"
    stock_layers: bool = False
    shared_masks: int = 0

    def __post_init__(self) -> None:
        _check_ways(self)


@dataclass(frozen=True)
class ConvNextSpec:
    """ConvNeXt (Liu et al. 2022, section 2); the defaults are ConvNeXt-Tiny."""

    name: str = "convnext_tiny"
    image_size: int = 224
    channels: int = 3
    depths: tuple[int, ...] = (3, 3, 9, 3)  # blocks of each stage
    features: tuple[int, ...] = (96, 192, 384, 768)
    kernel_size: int = 7  # of the depthwise convolution
    expansion: int = 4  # of the pointwise pair
    layer_scale: float = 1e-6  # where `gamma` starts
    stochastic_depth: float = 0.1  # of the last block, rising linearly from 0 at the first
    dropout: float = 0.0  # before the last layer
    norm_epsilon: float = 1e-6
    outputs: int = 1
    pixel_mean: tuple[float, ...] = IMAGENET_MEAN
    pixel_std: tuple[float, ...] = IMAGENET_STD
    head: str = "head.fc"
    initialiser: str = "common"
    stock_layers: bool = False
    shared_masks: int = 0

    def __post_init__(self) -> None:
        _check_ways(self)


@dataclass(frozen=True)
class UnetSpec:
    """U-Net (Ronneberger et al. 2015), padded, with BatchNorm after each convolution; 1 logit a pixel."""

    name: str = "unet"
    image_size: int = 128  # px; must be divisible by 2 ** (len(features) - 1)
    channels: int = 1
    features: tuple[int, ...] = (8, 16, 32, 64, 128)  # the paper's 64..1024 in the full profile
    norm_decay: float = 0.9
    norm_epsilon: float = 1e-5
    outputs: int = 1
    pixel_mean: tuple[float, ...] = (CT_MEAN,)
    pixel_std: tuple[float, ...] = (CT_STD,)
    head: str = "head"
    conv_bias: bool = False  # before a BatchNorm it does nothing but collect rounding errors
    norm_variance: str = "unbiased"
    initialiser: str = "common"

    def __post_init__(self) -> None:
        _check_ways(self)
        halvings = len(self.features) - 1
        if self.image_size % 2**halvings:
            raise StudyError(
                f"image_size {self.image_size} of {self.name!r} must be divisible by {2**halvings}, because its images "
                f"are halved {halvings} times; take {-(-self.image_size // 2**halvings) * 2**halvings}"
            )


ModelSpec = CnnSpec | DenseNetSpec | ConvNextSpec | UnetSpec
MODELS: dict[str, ModelSpec] = {
    "cnn": CnnSpec(),
    "densenet121": DenseNetSpec(),
    "convnext_tiny": ConvNextSpec(),
    "unet": UnetSpec(),
}


@dataclass(frozen=True)
class PretrainedSource:
    """A public weights file, the same for every framework; its bytes are known before it is fetched."""

    repository: str  # on the Hugging Face hub
    revision: str  # commit
    filename: str
    sha256: str
    about: str


# Trained on ImageNet-1k, the tensors named as in timm's model files.
PRETRAINED: dict[str, PretrainedSource] = {
    "densenet121": PretrainedSource(
        "timm/densenet121.tv_in1k",
        "f0d0f2698a02cb133b09d48396db6e1e46fe9f3b",
        "model.safetensors",
        "c894c6d9caa317a8ca1942986dee7a16a86c77734a4d691d2abe05389cfef358",
        "ImageNet-1k, torchvision's training",
    ),
    "convnext_tiny": PretrainedSource(
        "timm/convnext_tiny.fb_in1k",
        "b43a6303c9fcf176d2d707478a128c2c91e93528",
        "model.safetensors",
        "08b9dc9c3a3a29421de7996761e176501896d1ae7fc3085cf56a643772329276",
        "ImageNet-1k, the paper's release",
    ),
}
WEIGHTS = ("random", "imagenet")  # or a file
HUB_TIMEOUT_SECONDS = 5.0  # until an unreachable hub is given up


# --- recipes ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random warp and intensity change of a training image; 0 switches a part off."""

    flip_probability: float = 0.5  # left-right: a stroke on the left is as likely as on the right
    rotation_degrees: float = 10.0  # uniform in +- this; heads lie tilted by about so much
    shift_fraction: float = 0.05  # of the image size, uniform in +- this
    scale_fraction: float = 0.10  # zoom uniform in 1 +- this
    brightness: float = 0.05  # of the full range, uniform in +- this
    contrast: float = 0.10  # gain uniform in 1 +- this


# For a handful of epochs: stronger changes keep a short training from learning anything but the changes.
LIGHT_AUGMENTATION = Augmentation(
    rotation_degrees=5.0, shift_fraction=0.03, scale_fraction=0.05, brightness=0.02, contrast=0.05
)


@dataclass(frozen=True)
class Recipe:
    """How a model is trained. One recipe serves every framework; none of its numbers is left to a default."""

    epochs: int
    batch_size: int = 8  # some hundred slices: steps are scarcer than images
    loss: str = "binary_cross_entropy"  # | "cross_entropy" | "dice_cross_entropy"
    learning_rate: float = 1e-3  # peak of the schedule
    warmup_fraction: float = 0.1  # of a phase's steps, linear from 0
    final_learning_rate_fraction: float = 0.01  # the cosine of a phase ends here
    # Transfer: in the first `head_epochs` the last layer learns alone, the rest is fixed and runs in evaluation mode
    # (batch norm uses its statistics and keeps them, no stochastic depth); then all learn, with a fresh optimizer and
    # schedule, the rest at `backbone_rate_fraction` of the rate and batch norm in training mode.
    head_epochs: int = 0
    backbone_rate_fraction: float = 1.0
    weight_decay: float = 1e-2  # decoupled
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8  # added after the bias correction (Kingma & Ba 2015, algorithm 1)
    label_smoothing: float = 0.0  # share of the truth spread evenly over all classes
    class_weights: str = "balanced"  # "balanced": n / (classes * n_class) of the training part; "none": 1
    # Which samples an epoch shows: "shuffled": each once; "balanced": as many of each class, n in all; "foreground":
    # each slice with a lesion once, and of the others as many as make lesions `foreground_fraction` of the epoch.
    sampling: str = "shuffled"
    foreground_fraction: float = 0.6
    dice_smooth: float = 1.0  # px; added to numerator and denominator of the soft Dice
    gradient_clip_norm: float = 0.0  # gradients are scaled down to this L2 norm; 0: never
    # What the lanes differ in; see `DEFAULTS`
    gradient_clip_scope: str = "global"  # the norm of all gradients together | "tensor", of each alone
    adam_form: str = "corrected"  # epsilon is added after the bias correction | "uncorrected", before
    decay_scope: str = "kernels"  # tensors of two and more axes | "all"
    loss_divisor: str = "weights"  # the weighted losses' sum is divided by that of the weights | "samples"
    loss_input: str = "logits"  # | "probabilities", clipped as the framework does
    order: str = "common"  # of the samples | "framework": each framework one of its own
    loop: str = "steps"  # one call a step | "fit", Keras's own loop, compiled as it comes
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        _check_ways(self)
        if self.sampling == self.class_weights == "balanced":
            raise ValueError(
                "sampling and class_weights are both 'balanced', which would count rare classes twice; "
                "take one of them"
            )


@dataclass(frozen=True)
class Phantom:
    """Size and difficulty of the drawn data set (`common.data.phantom`)."""

    patients: int
    seed: int = 20
    image_size: int = 256  # px
    slices_min: int = 8  # a patient, base to vertex
    slices_max: int = 20


@dataclass(frozen=True)
class Profile:
    """How much work a study is; `quick` is a demonstration, `standard` an experiment, `full` a publication."""

    name: str
    seeds: int
    repeats: int  # seeds of the A/A runs
    folds: int  # 1: the hold-out split alone
    epochs: Mapping[str, int]  # task -> epochs
    phantom: Phantom
    specs: Mapping[str, ModelSpec]  # model -> spec; `outputs` is set by the task
    weights: str  # where the backbones start, unless --weights says otherwise
    augmentation: Augmentation = field(default_factory=Augmentation)


# One size for all, so that pictures are decoded once. The backbones of the quick profile are small relatives, too
# shallow for public weights: they show the path, not the quality, of transfer learning.
QUICK_SPECS: dict[str, ModelSpec] = {
    "cnn": CnnSpec(image_size=64),
    "densenet121": DenseNetSpec(
        image_size=64,
        stem_features=16,
        blocks=(2, 2, 2, 2),
        growth=8,
        pixel_mean=(CT_MEAN,) * 3,
        pixel_std=(CT_STD,) * 3,
    ),
    "convnext_tiny": ConvNextSpec(
        image_size=64,
        depths=(1, 1, 1, 1),
        features=(16, 32, 64, 128),
        layer_scale=1.0,
        stochastic_depth=0.0,
        pixel_mean=(CT_MEAN,) * 3,
        pixel_std=(CT_STD,) * 3,
    ),
    "unet": UnetSpec(image_size=64, features=(8, 16, 32, 64)),
}
STANDARD_SPECS: dict[str, ModelSpec] = {
    "cnn": CnnSpec(),
    "densenet121": DenseNetSpec(image_size=128),
    "convnext_tiny": ConvNextSpec(image_size=128),
    "unet": UnetSpec(),
}
FULL_SPECS: dict[str, ModelSpec] = {
    "cnn": CnnSpec(),
    "densenet121": DenseNetSpec(),
    "convnext_tiny": ConvNextSpec(),
    "unet": UnetSpec(image_size=256, features=(64, 128, 256, 512, 1024)),
}

PROFILES: dict[str, Profile] = {
    "quick": Profile(
        "quick",
        2,
        1,
        1,
        {"binary": 11, "subtype": 5, "segmentation": 5},
        Phantom(patients=64),
        QUICK_SPECS,
        "random",
        LIGHT_AUGMENTATION,
    ),
    "standard": Profile(
        "standard",
        3,
        3,
        1,
        {"binary": 12, "subtype": 12, "segmentation": 15},
        Phantom(patients=150),
        STANDARD_SPECS,
        "imagenet",
    ),
    "full": Profile(
        "full",
        5,
        5,
        5,
        {"binary": 30, "subtype": 30, "segmentation": 60},
        Phantom(patients=300),
        FULL_SPECS,
        "imagenet",
    ),
}


def spec_of(task: str, model: str, profile: str) -> ModelSpec:
    """The model of a (task, model) under a profile, with as many logits as the task has."""
    return dataclasses.replace(PROFILES[profile].specs[model], outputs=TASKS[task].outputs)


def recipe_of(
    task: str,
    model: str,
    profile: str,
    epochs: int | None = None,
    batch_size: int | None = None,
    weights: str = "random",
) -> Recipe:
    """The recipe of a (task, model) under a profile; numbers that are given replace the recipe's."""
    settings = PROFILES[profile]
    recipe = Recipe(epochs or settings.epochs[task], augmentation=settings.augmentation)
    if task == "subtype":
        recipe = dataclasses.replace(recipe, loss="cross_entropy")
    if task == "segmentation":
        recipe = dataclasses.replace(
            recipe, loss="dice_cross_entropy", sampling="foreground", class_weights="none", learning_rate=5e-3
        )
    if model in BACKBONES:
        recipe = dataclasses.replace(recipe, label_smoothing=0.05)
        if weights != "random":  # a head that knows nothing must not spoil the weights behind it
            head_epochs = min(recipe.epochs - 1, max(1, recipe.epochs // 6))  # at least one is left for all
            recipe = dataclasses.replace(recipe, head_epochs=head_epochs, backbone_rate_fraction=0.1)
    return dataclasses.replace(recipe, batch_size=batch_size or recipe.batch_size)


# --- lanes ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Default:
    """Something that the frameworks do in different ways, or in a way of their own, unless they are told."""

    name: str
    title: str
    about: str
    models: tuple[str, ...]  # that have it
    torch: Mapping[str, Any]  # fields of spec or recipe -> PyTorch's own value
    keras: Mapping[str, Any]
    needs: tuple[str, ...] = ()  # of these fields of spec or recipe one must be above 0 for it to matter
    losses: tuple[str, ...] = ()  # that have it; empty: all

    def fields(self, framework: str) -> Mapping[str, Any]:
        """The framework's own values."""
        return self.torch if framework == "torch" else self.keras


_ALL = tuple(MODELS)
_WITH_BATCH_NORM = ("densenet121", "unet")

# Everything that the lanes differ in, in the order in which the ladder aligns it. What a documentation gives no default
# for (epochs, batch size, learning rates, loss, where a paper's model has no bias) is the experimenter's, and equal in
# every lane; so is what a paper gives (ConvNeXt's epsilon). What can be probed is checked against the installed
# versions (`common.atlas.CHECKS`).
DEFAULTS: dict[str, Default] = {
    one.name: one
    for one in (
        Default(
            "loop",
            "Training loop",
            "Keras trains by `fit`, compiled as it comes; PyTorch by a loop that is written out.",
            _ALL,
            torch={"loop": "steps"},
            keras={"loop": "fit"},
        ),
        Default(
            "stock_layers",
            "Stock layers",
            "Keras's own dense layer, layer norm and GELU instead of the same formulas written out.",
            ("cnn", *BACKBONES),
            torch={"stock_layers": False},  # they are stock in either form
            keras={"stock_layers": True},
        ),
        Default(
            "order",
            "Order of the samples",
            "Each framework shuffles for itself: equal draws are not to be had, so each gets a stream of its own.",
            _ALL,
            torch={"order": "framework"},
            keras={"order": "framework"},
        ),
        Default(
            "initial_weights",
            "Starting weights",
            "PyTorch draws kernels and biases from U(±1/√fan_in); Keras kernels by Glorot's rule, biases 0.",
            _ALL,
            torch={"initialiser": "framework"},
            keras={"initialiser": "framework"},
        ),
        Default(
            "flatten",
            "Order of the flattened maps",
            "PyTorch flattens channel by channel, Keras pixel by pixel.",
            ("cnn",),
            torch={"flatten_order": "channels_first"},
            keras={"flatten_order": "channels_last"},
        ),
        Default(
            "conv_bias",
            "Bias before batch norm",
            "A convolution has a bias unless told otherwise; before batch norm its gradient is rounding noise.",
            ("unet",),
            torch={"conv_bias": True},
            keras={"conv_bias": True},
        ),
        Default(
            "padding",
            'Padding "same" at stride 2',
            'PyTorch pads all sides alike, Keras\'s "same" the bottom and right more.',
            ("densenet121",),
            torch={"padding": "symmetric"},
            keras={"padding": "same"},
        ),
        Default(
            "norm_epsilon",
            "Epsilon of batch norm",
            "Added to the variance: 1e-5 in PyTorch, 1e-3 in Keras.",
            _WITH_BATCH_NORM,
            torch={"norm_epsilon": 1e-5},
            keras={"norm_epsilon": 1e-3},
        ),
        Default(
            "norm_decay",
            "Decay of batch norm's statistics",
            "Weight of the old statistic: 0.9 in PyTorch, 0.99 in Keras.",
            _WITH_BATCH_NORM,
            torch={"norm_decay": 0.9},
            keras={"norm_decay": 0.99},
        ),
        Default(
            "norm_variance",
            "Batch norm's running variance",
            "PyTorch collects the unbiased variance, n/(n-1) as large, Keras the biased one.",
            _WITH_BATCH_NORM,
            torch={"norm_variance": "unbiased"},
            keras={"norm_variance": "biased"},
        ),
        Default(
            "stochastic_depth",
            "Stochastic depth",
            "ConvNeXt-Tiny as it comes skips blocks with up to 0.1 in PyTorch (torchvision), never in Keras.",
            ("convnext_tiny",),
            torch={"stochastic_depth": 0.1},
            keras={"stochastic_depth": 0.0},
        ),
        Default(
            "loss_input",
            "Loss from probabilities",
            "Keras's losses take probabilities unless told otherwise, and clip them at 1e-7 (on TensorFlow they look "
            "for the logits behind them); PyTorch's take logits.",
            _ALL,
            torch={"loss_input": "logits"},
            keras={"loss_input": "probabilities"},
        ),
        Default(
            "class_weights",
            "Divisor of the weighted loss",
            "PyTorch's cross-entropy of hard labels divides by the sum of the class weights, Keras by the number of "
            "samples.",
            ("cnn", *BACKBONES),
            torch={"loss_divisor": "weights"},
            keras={"loss_divisor": "samples"},
            losses=("cross_entropy",),
        ),
        Default(
            "sample_weights",
            "Divisor of the weighted loss",
            "For two classes both divide by the number of samples; aligned, by the sum of the weights.",
            ("cnn", *BACKBONES),
            torch={"loss_divisor": "samples"},
            keras={"loss_divisor": "samples"},
            losses=("binary_cross_entropy",),
        ),
        Default(
            "weight_decay",
            "Weight decay of AdamW",
            "0.01 in PyTorch, 0.004 in Keras.",
            _ALL,
            torch={"weight_decay": 1e-2},
            keras={"weight_decay": 4e-3},
        ),
        Default(
            "decay_scope",
            "What decays",
            "By default biases and norms decay too, in both; aligned, kernels only.",
            _ALL,
            torch={"decay_scope": "all"},
            keras={"decay_scope": "all"},
        ),
        Default(
            "adam_epsilon",
            "Epsilon of Adam",
            "1e-8 in PyTorch, 1e-7 in Keras.",
            _ALL,
            torch={"adam_epsilon": 1e-8},
            keras={"adam_epsilon": 1e-7},
        ),
        Default(
            "adam_form",
            "Where Adam adds its epsilon",
            "After the bias correction in PyTorch, before it in Keras.",
            _ALL,
            torch={"adam_form": "corrected"},
            keras={"adam_form": "uncorrected"},
        ),
        Default(
            "clipping",
            "Gradient clipping",
            "PyTorch clips the norm of all gradients together, Keras's `clipnorm` that of each tensor alone.",
            _ALL,
            torch={"gradient_clip_scope": "global"},
            keras={"gradient_clip_scope": "tensor"},
            needs=("gradient_clip_norm",),
        ),
        Default(
            "dropout",
            "Dropout draws",
            "Each framework draws its own masks for dropout and stochastic depth.",
            ("cnn", *BACKBONES),
            torch={"shared_masks": 0},
            keras={"shared_masks": 0},
            needs=("dropout", "stochastic_depth"),
        ),
    )
}

# lane -> the names of the defaults that each framework is left with
LANES: dict[str, tuple[str, ...]] = {
    "lockstep": (),  # one algorithm: equal to rounding
    "aligned": ("dropout",),
    "native": tuple(DEFAULTS),  # each framework as shipped
}


def in_lockstep(spec: ModelSpec, recipe: Recipe) -> ModelSpec:
    """The spec with dropout masks handed over by common, where it draws any."""
    draws = any(getattr(spec, name, 0.0) > 0 for name in ("dropout", "stochastic_depth"))
    shared: dict[str, Any] = {"shared_masks": recipe.batch_size} if draws else {}
    return dataclasses.replace(spec, **shared)


def defaults_of(spec: ModelSpec, recipe: Recipe) -> tuple[Default, ...]:
    """The defaults that matter for a model under a recipe, in the order of the ladder: those that change it for at
    least one framework.
    """
    fields = {**vars(spec), **vars(recipe), "shared_masks": recipe.batch_size}
    present = [
        one
        for one in DEFAULTS.values()
        if spec.name in one.models and (not one.losses or recipe.loss in one.losses)
    ]

    def largest(name: str) -> float:  # of the aligned value and the frameworks' own
        owns = [own[name] for one in present for own in (one.torch, one.keras) if name in own]
        return max(fields.get(name, 0), *owns, 0)

    return tuple(
        one
        for one in present
        if (not one.needs or any(largest(name) > 0 for name in one.needs))
        and any(fields[name] != value for own in (one.torch, one.keras) for name, value in own.items())
    )


def with_defaults(
    spec: ModelSpec, recipe: Recipe, framework: str, names: Collection[str]
) -> tuple[ModelSpec, Recipe]:
    """Spec and recipe in lockstep but for the named defaults, in which the framework is left alone.

    Names that do not matter for the model are passed over.
    """
    own: dict[str, Any] = {}
    for default in defaults_of(spec, recipe):
        if default.name in names:
            own |= default.fields(framework)
    of_recipe = {name: value for name, value in own.items() if hasattr(recipe, name)}
    of_spec = {name: value for name, value in own.items() if name not in of_recipe}
    left = dataclasses.replace(spec, **of_spec)
    return (
        left if "shared_masks" in own else in_lockstep(left, recipe),
        dataclasses.replace(recipe, **of_recipe),
    )


def in_lane(spec: ModelSpec, recipe: Recipe, framework: str, lane: str) -> tuple[ModelSpec, Recipe]:
    """Spec and recipe as a framework has them in a lane."""
    return with_defaults(spec, recipe, framework, LANES[lane])


# --- a study and its runs -----------------------------------------------------------------------------------------


@dataclass(frozen=True, order=True)
class Run:
    """The key of one run: what distinguishes it within a study."""

    task: str
    model: str
    framework: str
    lane: str
    seed: int
    fold: int
    # 1: the run once more, to see how far a framework lies from itself (A/A): other draws of its own (dropout; in the
    # native lane also its starting weights) and another number of threads, everything else the same
    repeat: int = 0

    @property
    def path(self) -> PurePosixPath:
        """Folder of the run, relative to the study's `runs/`."""
        again = f"-repeat{self.repeat}" if self.repeat else ""
        name = f"seed{self.seed}-fold{self.fold}{again}"
        return PurePosixPath(self.task, self.model, self.framework, self.lane, name)


@dataclass(frozen=True)
class Study:
    """A grid of runs on one data set, as asked for on the command line and resolved."""

    data: tuple[str, ...] = ()  # folders; empty: the phantom
    profile: str = "quick"
    patients: int = 0  # of the phantom; 0: as many as the profile has
    tasks: tuple[str, ...] = ("binary",)
    skippable: bool = False  # a task that the data cannot serve is left out instead of refused
    frameworks: tuple[str, ...] = ("torch", "keras-tensorflow")
    lanes: tuple[str, ...] = ("aligned",)
    seeds: int = 2
    repeats: int = 0  # seeds of which the first framework's runs are done once more; see `Run.repeat`
    folds: int = 1
    split_seed: int = 0
    device: str = "auto"
    precision: str = "float32"
    weights: str = "random"  # where the backbones start: "random", "imagenet" or a file
    threads: int = (
        0  # a run, or a device of it; 0: the machine's cores divided by the workers and the devices
    )
    workers: int = 1  # runs at a time; 1 keeps the timing of each undisturbed
    # Equal bits whatever the number of workers and of interruptions: DETERMINISTIC_THREADS a run unless `threads` says
    # more, and frameworks that refuse what they cannot repeat
    deterministic: bool = False
    # A run under way keeps a snapshot every so many epochs; 0: never; None: whenever SNAPSHOT_SECONDS have passed
    checkpoint_every: int | None = None
    cache_limit: int = 0  # bytes that the caches of decoded slices may take; 0: what they need
    devices: int = 1  # that share each batch of a run; the batch of the recipe is the whole one
    accepted: tuple[str, ...] = ()  # findings of the audit that would refuse the data, overridden by name
    recipes: Mapping[str, Recipe] = field(
        default_factory=dict
    )  # "task/model" -> recipe; which pairs are trained
    specs: Mapping[str, ModelSpec] = field(default_factory=dict)  # "task/model" -> spec

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(task, model) of the grid, in the order of the tasks and of `MODELS`."""
        return [
            (task, model)
            for task in TASKS
            for model in MODELS
            if task in self.tasks and f"{task}/{model}" in self.recipes
        ]

    @property
    def models(self) -> tuple[str, ...]:
        """Every model of the grid."""
        return tuple(dict.fromkeys(model for _, model in self.pairs))

    def runs(self) -> list[Run]:
        """Every run of the grid, the repeats last. The frameworks of one (seed, fold) stand next to each other, and
        who goes first changes from one to the next, so that a warming machine favours nobody.
        """
        runs = [
            Run(task, model, framework, lane, seed, fold)
            for lane in self.lanes
            for task, model in self.pairs
            for seed in range(self.seeds)
            for fold in range(self.folds)
            for framework in _rotated(self.frameworks, seed + fold)
        ]
        again = [
            dataclasses.replace(run, repeat=1)
            for run in runs
            if run.seed < self.repeats and run.framework == self.frameworks[0]
        ]
        return runs + again


def _rotated(names: tuple[str, ...], by: int) -> tuple[str, ...]:
    by %= max(1, len(names))
    return (*names[by:], *names[:by])


# --- rules of judgement -------------------------------------------------------------------------------------------

THRESHOLD_RULE = "youden"  # the validation threshold with the largest sensitivity + specificity - 1
PATIENT_SCORE_RULE = "mean"  # a patient's score is the mean of its slices' probabilities
CALIBRATION_BINS = 10  # equal-width bins of the expected calibration error; of equal count in its figure
CONFIDENCE = 0.95
BOOTSTRAP_REPLICATES = 2000
BAND_REPLICATES = 300  # of the band around a curve: a picture needs no third digit
DECISION_THRESHOLDS = (0.01, 0.99)  # range of a decision curve, in steps of 0.01
CHANCE = {
    "auroc_score": 0.5
}  # metric -> what it is where nothing can be known; of masks there is no such value
ALPHA = 0.05  # of every test; within the family of primary comparisons after Holm's correction
POWER = 0.8  # of the planner
# An exact sign-flip test of n seeds has 2 ** n equally likely outcomes, so that its least two-sided p is 2 / 2 ** n
MIN_VERDICT_SEEDS = math.ceil(1 - math.log2(ALPHA))  # 6; more in a family of several comparisons
# SD over seeds of a framework's paired difference from another in the primary metric, for the planner before anything
# was trained: lane -> kind of task. The largest of the reference study (phantom, quick profile, 10 seeds): aligned, CNN
# 0.059, DenseNet-121 0.032, ConvNeXt-Tiny 0.000, U-Net 0.082; native 0.135, 0.062, 0.038, 0.195.
EXPECTED_SEED_SD: dict[str, dict[str, float]] = {
    "aligned": {"classification": 0.06, "segmentation": 0.08},
    "native": {"classification": 0.14, "segmentation": 0.20},
}
MIN_INTERVAL_PATIENTS = 5  # fewer can be drawn in too few ways to say anything
MIN_INTERVAL_SEEDS = 3  # of two, a t interval is 13 standard errors wide on either side
REPEAT_SEED = 1_000_003  # a repeat's own draws come from the seed so much further on
HASHED_BATCHES = 4  # batches of the first epoch whose bytes are hashed into run.json
MASK_THRESHOLDS = (
    0.1,
    0.2,
    0.3,
    0.4,
    0.5,
    0.6,
    0.7,
    0.8,
    0.9,
)  # tried on validation: largest pooled Dice wins
SURFACE_TOLERANCE_PX = 2.0  # surface Dice: a border within this distance is right (Nikolov et al. 2021)
LESION_OVERLAP = 0.1  # IoU from which a predicted lesion has found a true one
SMALL_LESION_PX = 100  # lesions up to this area are reported apart as well

# --- the proof and the ladder ------------------------------------------------------------------------------------

PARITY_STEPS = 100
PARITY_IMAGE_SIZE = 64  # px; the models are the published ones, their input small enough for a laptop
PARITY_PATIENTS = 24  # of the phantom
PARITY_CLIP_NORM = 0.5  # exceeded by each of the models at some steps, so that clipping is proved too
PARITY_HEAD_FRACTION = 0.2  # of the steps, in which the last layer of a backbone learns alone
PARITY_EVALUATION_BATCHES = 4
PARITY_TASKS = {"cnn": "binary", "densenet121": "subtype", "convnext_tiny": "subtype", "unet": "segmentation"}
PARITY_MUTATION_PROFILE = "quick"  # a planted fault shows in a small model as well
PARITY_MUTATION_STEPS = 10
# Defaults that may change nothing: they say by which code something is computed, or (`loss_input`) what happens to
# probabilities below 1e-7, which a training may never reach
PARITY_HARMLESS = ("loop", "stock_layers", "loss_input")
# Largest differences that count as rounding. "outputs", "gradients", "weights", "statistics": of each tensor, relative
# to its own size; "loss": relative; "logits": in evaluation mode, absolute. In float64 rounding is 1e-16 and Adam's
# division by small second moments enlarges it; the smallest fault that was planted is some 1e-6.
PARITY_TOLERANCES: dict[str, dict[str, float]] = {
    "float64": {
        "outputs": 1e-10,
        "loss": 1e-10,
        "gradients": 1e-8,
        "weights": 1e-9,
        "statistics": 1e-9,
        "logits": 1e-9,
    },
    # Of the first step alone: after it two correct programs drift apart, and are judged by the floor
    # (batch norm of a channel that hardly varies enlarges what rounding left of it: outputs are the loosest)
    "float32": {"outputs": 1e-3, "loss": 1e-5, "logits": 1e-4},  # logits are up to some 10
}
PARITY_FLOOR_FACTOR = (
    10.0  # float32: a trajectory may be so many times as far away as a framework from itself
)
PARITY_FLOOR_THREADS = (2, 3)  # ... computed with so many threads instead of one, or in float64

# About ten minutes on two cores: TensorFlow traces each of some 200 trainings anew, half of the time of a short one
LADDER_SEEDS = 4
LADDER_STEPS = 80
LADDER_MODELS = ("cnn", "unet")

# --- the leak meter -----------------------------------------------------------------------------------------------

LEAK_MODELS = ("cnn",)
LEAK_SEEDS = 5  # each draws a split of its own

# --- reading and feeding ------------------------------------------------------------------------------------------

MAX_IMAGE_PX = 4096  # a side; a CT slice has 512. Larger pictures are refused before they are decoded
MAX_PAINTED_PX = 2048  # a side of a picture with a lesion painted on: finding the paint takes a second there
MAX_FILE_BYTES = 64 * 2**20  # of a picture; 4096 x 4096 px of 16 bits have 32 MiB
# Parts of a file that a decoder walks through one by one, or keeps in memory: many times what any camera, scanner or
# editor writes. A file of millions would hold a process up for minutes.
MAX_FILE_PARTS = 50_000  # chunks of a PNG, segments of a JPEG, reads of a DICOM header
MAX_JPEG_SCANS = 200  # a progressive JPEG has about 10
MAX_METADATA_BYTES = 8 * 2**20  # profiles, thumbnails, comments
# Files of a study, and tables beside pictures, that people may edit or swap
MAX_RECORD_BYTES = 16 * 2**20  # run.json has some 10 kB
# What grows with the samples: CSV files (samples.csv of 100,000 slices has 25 MB), a cache's descriptions, the audit
MAX_TABLE_BYTES = 256 * 2**20
MAX_ID_TABLE_BYTES = 32 * 2**20  # patients.csv, labels.csv; 100,000 lines have 3 MB
MAX_PREDICTIONS_BYTES = 2 * 2**30  # unpacked, where there are masks; 125,000 slices with masks of 256 px
MAX_WEIGHTS_BYTES = 512 * 2**20  # the largest model here has 114 MB
MAX_RUNS = 100_000  # of a study
MAX_SPEC_NUMBER = 65_536  # any whole number of a model spec
MIN_IMAGE_PX = 16  # a side; anything smaller is no slice
COLOUR_TOLERANCE = 32  # largest minus smallest channel, of 255, that JPEG noise or a slight tint may leave
COLOUR_PIXELS = 16  # pixels beyond it that are forgiven; the smallest painted lesions seen cover about 100
MASK_LEVELS = 8  # a lossless mask of at most so many values is a label map; one of more has soft edges
# Painted lesions (`common.data.overlays`); sizes in px of a picture of 512 px a side.
OVERLAY_PAINT_LEVEL = (
    10.0  # grey levels of 255 that paint must change; opacity 0.15 of a strong colour gives 20 to 38
)
OVERLAY_LINE_PX = 6  # a painted part nowhere wider is an outline, and what it encloses is lesion
OVERLAY_GAP_PX = 8  # a gap of an outline up to this is closed
OVERLAY_CONFIDENCE_MIN = 0.5  # a mask below it is used, and listed as doubtful
PATIENT_SOURCES = ("table", "name", "dicom", "similarity", "phantom")  # how a sample's patient is known
# Correlation of fingerprints (`common.data.similarity`) from which two pictures show one slice. 330 slices against
# 1,876 of the same 61 patients in another size and encoding: true copies have at least 0.99 (0.94 with another CT
# window), slices of other patients at most 0.82; all 61 patients were found to be shared, no two were taken for one.
COPY_SIMILARITY = 0.9
# ... from which two slices are neighbours in one head, where patients are unknown. 1,876 slices of 62 patients: 99 % of
# the links join slices of one patient; 83 % of the slices come into one group with the most similar slice of their
# patient; of 427 groups 11 mix patients (5 % of the slices; the largest has 37). 330 slices, five a patient: 95 %,
# 50 %, 5 of 218. So most near-twins are kept together, but no patients are found: a head falls into some seven groups.
NEIGHBOUR_SIMILARITY = 0.5
# Centre and width in Hounsfield units (radiology's usual settings); DICOM slices are read through one of these.
WINDOWS: dict[str, tuple[float, float]] = {"brain": (40, 80), "stroke": (40, 40), "stroke_narrow": (32, 8)}
DICOM_WINDOW = "brain"
PREFETCH_BATCHES = 4  # ready batches per stream; bounds its memory
PREFETCH_THREADS = 2
# The cache of decoded slices: pixels of one file, which a build holds in memory and, where it is killed, loses at most
CACHE_SHARD_BYTES = 64 * 2**20
CACHE_PROCESS_SLICES = 1000  # from so many on, processes decode and not threads; to start them takes seconds
CACHE_PROCESSES = 16  # at most: beyond, the disk is what decoding waits for
CACHE_PROCESS_BYTES = 512 * 2**20  # free memory for each: 100 MiB to start, and pictures of 4096 px
CACHE_TOLD_BYTES = 10**9  # from so many on, the user is told before they are written

# --- time ---------------------------------------------------------------------------------------------------------

# The answers whose median is the latency, of one image and of a batch: so many after a warm-up, or as many as come in
# so many seconds, at least three
LATENCY_ANSWERS = 15
LATENCY_WARM_UP = 2  # the first may compile
LATENCY_SECONDS = 0.2

# --- trouble (`common.alarms`) ---------------------------------------------------------------------------------------

# Logits that differ by no more, relative to their size (at least 1), are the same: a few float32 roundings
CONSTANT_SPREAD = 1e-6
CONSTANT_EPOCHS = 3  # in a row with constant answers, after which training stops

# --- several devices ----------------------------------------------------------------------------------------------

RANK_TIMEOUT_SECONDS = (
    1800  # that a rank waits for the others at one exchange; the slowest may be compiling or reading
)
LOST_RANK_SECONDS = 10.0  # in which the end of a lost rank is known, when its connection breaks

# --- the audit of the data (`common.data.audit`) --------------------------------------------------------------------

# Findings that make a comparison invalid; each can be overridden by its name
AUDIT_REFUSALS = (
    "painted-inputs",
    "contradicting-labels",
    "patient-on-two-sides",
    "copies-on-two-sides",
    "classes-in-parts",
)
AUDIT_EVIDENCE_ROWS = 40  # of a finding in audit.json and on the page
# Correlation of fingerprints from which two pictures of one patient show one slice. Neighbouring slices: at most 0.955
# (1,876 slices of 62 patients, and 330 of 61); slices that had a small lesion drawn in: at least 0.987.
SAME_SLICE_SIMILARITY = 0.98
AUDIT_REUPLOAD_SHARE = 0.5  # of a data set's pictures that lie in another: from here it is called a re-upload
# A patient key is trusted if so many of its slices have a slice of the same patient as their nearest neighbour. With
# known patients 72 % (five slices each) to 99 % (thirty); with keys dealt out at random 2 %.
AUDIT_NEIGHBOUR_SHARE_MIN = 0.5
# One number (file type, size, brightness ...) that tells a label from the rest so well is named. A small CNN reaches
# 0.65 to 0.7 on real slices; less is what such a number gives by chance with few patients.
AUDIT_SHORTCUT_AUROC = 0.7
AUDIT_SHORTCUT_DRAWS = (
    1000  # permutations of the labels over patients, for the chance that the best does as well
)
AUDIT_OUTLIER_DEVIATIONS = (
    8.0  # median absolute deviations (as standard deviations) from the data set's median
)
AUDIT_EMPTY_SHARE = 0.02  # of the pixels brighter than background; below, a picture shows hardly anything
AUDIT_BORDER_SHARE = 0.04  # of the shorter side: the frame about a picture, which holds air

# --- worker processes ---------------------------------------------------------------------------------------------

# Two CPU effects that have nothing to do with either framework's arithmetic decide a naive speed ratio: libgomp's
# threads spin at barriers, and glibc returns large tensors to the kernel after every operation. Every worker gets
# these, whatever its framework, and run.json records them.
WORKER_ENVIRONMENT: dict[str, str] = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "-1",
    "MALLOC_TOP_PAD_": "67108864",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "NVIDIA_TF32_OVERRIDE": "0",  # float32 means float32: the frameworks' defaults for TF32 differ
    "PYTHONHASHSEED": "0",
}

# --deterministic: a run has as many threads as any machine can give it, however many run beside it, ...
DETERMINISTIC_THREADS = 1
# ... and these, beside what each framework is told when it is configured: on a GPU, cuBLAS, TensorFlow and XLA read
# them when they are loaded. XLA's joins what XLA_FLAGS holds already.
DETERMINISTIC_ENVIRONMENT = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "TF_DETERMINISTIC_OPS": "1"}
DETERMINISTIC_XLA = "--xla_gpu_deterministic_ops=true"
# Unless --checkpoint-every says otherwise: what an interruption costs at most, beside the epoch under way. Shorter runs
# keep no snapshot
SNAPSHOT_SECONDS = 60.0

# Further variables that the engine sets for a worker, or that change what a framework does; recorded when present.
RECORDED_VARIABLES = frozenset(WORKER_ENVIRONMENT) | {
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_DEVICE_ORDER",
    "CUDA_VISIBLE_DEVICES",
    "JAX_ENABLE_X64",
    "JAX_NUM_CPU_DEVICES",
    "JAX_PLATFORMS",
    "KERAS_BACKEND",
    "KERAS_TORCH_DEVICE",
    "OMP_NUM_THREADS",
    "PJRT_NPROC",
    "PYTORCH_ALLOC_CONF",
    "TF_CUDNN_USE_AUTOTUNE",
    "TF_DETERMINISTIC_OPS",
    "TF_NUM_INTEROP_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "XLA_FLAGS",
}

IDENTITY_VARIABLES = frozenset(
    {"CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES", "KERAS_BACKEND"}
)  # may differ: which framework, which GPU


# --- engines ------------------------------------------------------------------------------------------------------

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Engine:
    """Where runs execute, and what each may take there; no part of a study, whose numbers do not depend on it."""

    name: str = "local"  # of `ENGINES`
    address: str | None = None  # of a Ray cluster; None: one on this machine, for as long as the command runs
    gpus: float = 1.0  # of a device of a run on "cuda"; below 1, runs share a GPU
    shared: bool | None = None  # whether nodes work in the study's own folder; None: where they see it
    node_seconds: float = 1800.0  # until a node comes that can take a run; a cluster may grow for minutes


RECORD_SECONDS = 90.0  # until a record that its node wrote is seen here: network disks may hide it for 60
RECORD_LOOK_SECONDS = 1.0  # between two looks for it
RUN_LOG_BYTES = 256 * 1024  # of a run's log that the next try of the run keeps
RETRIES = 2  # further tries of a run whose process was killed or lost without saying why
# Memory of a run that Ray sets aside, until finished runs of the study tell: what a framework takes by itself (the
# largest seen: 1,087 MiB, Keras on TensorFlow), and so many copies of a batch's activations in float32 (weights, their
# gradients and moments included: U-Net and DenseNet-121 took 4 to 6)
RUN_BASE_MIB = 1200
RUN_ACTIVATION_COPIES = 8
RUN_MEMORY_MARGIN = 1.25  # what is set aside, of the largest resident set seen
RAY_PENDING = 100  # runs that Ray is given beforehand: enough for a cluster that grows by what is asked of it
RAY_STRANDED_SECONDS = 60.0  # until runs that waited for a node that is gone ask for what the others have
RAY_CONNECT_SECONDS = 5.0  # for the address of a cluster to answer
RAY_CODE_SECONDS = 24 * 3600.0  # until code that a node has, and nobody uses, is removed there
RAY_LOOK_SECONDS = 0.5  # between two looks at what the nodes told
RAY_STOP_SECONDS = 15.0  # until what is under way has ended, when the command is stopped
RAY_STORE_BYTES = 200 * 2**20  # of shared memory, where Ray is started here: it carries messages only
SHIP_PIECE_BYTES = 64 * 2**20  # a file goes to a node in pieces, so that neither side holds it whole


# --- to and from JSON ---------------------------------------------------------------------------------------------


def to_json(value: Any) -> Any:
    """A config object as plain JSON types."""
    return dataclasses.asdict(value)


def study_from_json(document: Mapping[str, Any]) -> Study:
    """Inverse of `to_json` for a Study."""
    fields = dict(document)
    for name in ("data", "tasks", "frameworks", "lanes", "accepted"):
        fields[name] = tuple(fields[name])
    fields["specs"] = {key: model_spec_from_json(value) for key, value in fields["specs"].items()}
    fields["recipes"] = {key: recipe_from_json(value) for key, value in fields["recipes"].items()}
    return typed(Study, fields)


def recipe_from_json(document: Mapping[str, Any]) -> Recipe:
    """Inverse of `to_json` for a Recipe."""
    fields = dict(document)
    fields["augmentation"] = typed(Augmentation, fields["augmentation"])
    return typed(Recipe, fields)


def model_spec_from_json(document: Mapping[str, Any]) -> ModelSpec:
    """Inverse of `to_json` for a model spec. KeyError for an unknown model, TypeError for unknown fields."""
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in document.items()
    }
    return typed(type(MODELS[fields["name"]]), fields)
