"""Every number of a study, in one file: tasks, models, recipes, profiles, rules.

The dataclasses are frozen; a study resolves them once, writes them to `study.json` and hands each run its own
copy. A number that is not here (and is no drawing constant of the phantom) is a defect.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from common.errors import StudyError

NOTICE = "Research only, not a medical device."

FRAMEWORKS = ("torch", "keras-tensorflow", "keras-jax", "keras-torch")
LANES = ("aligned",)
DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("float32", "float64")
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

TASKS: dict[str, Task] = {
    "binary": Task(
        "binary",
        "classification",
        ("normal", "stroke"),
        LABELS,
        "auroc_score",
        models=("cnn", *BACKBONES),
        default_models=("cnn",),
    ),
    "subtype": Task(
        "subtype",
        "classification",
        ("normal", "bleeding", "ischemia"),
        ("normal", "bleeding", "ischemia"),
        "auroc_score",
        models=("cnn", *BACKBONES),
        default_models=BACKBONES,
    ),
    "segmentation": Task(
        "segmentation",
        "segmentation",
        ("background", "lesion"),
        LABELS,
        "dice_score",
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

    def __post_init__(self) -> None:
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
    weight_decay: float = 1e-2  # decoupled, on tensors of two and more axes only (never biases or norms)
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
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
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
        {"binary": 7, "subtype": 5, "segmentation": 5},
        Phantom(patients=64),
        QUICK_SPECS,
        "random",
        LIGHT_AUGMENTATION,
    ),
    "standard": Profile(
        "standard",
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

    @property
    def path(self) -> PurePosixPath:
        """Folder of the run, relative to the study's `runs/`."""
        return PurePosixPath(
            self.task, self.model, self.framework, self.lane, f"seed{self.seed}-fold{self.fold}"
        )


@dataclass(frozen=True)
class Study:
    """A grid of runs on one data set, as asked for on the command line and resolved."""

    data: tuple[str, ...] = ()  # folders; empty: the phantom
    profile: str = "quick"
    patients: int = 0  # of the phantom; 0: as many as the profile has
    tasks: tuple[str, ...] = ("binary",)
    skippable: bool = False  # a task that the data cannot serve is left out instead of refused
    frameworks: tuple[str, ...] = ("torch", "keras-tensorflow")
    lane: str = "aligned"
    seeds: int = 2
    folds: int = 1
    split_seed: int = 0
    device: str = "auto"
    precision: str = "float32"
    weights: str = "random"  # where the backbones start: "random", "imagenet" or a file
    threads: int = 0  # a run; 0: the machine's cores divided by the workers
    workers: int = 1  # runs at a time; 1 keeps the timing of each undisturbed
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
        """Every run of the grid. The frameworks of one (seed, fold) stand next to each other, and who goes first
        changes from one to the next, so that a warming machine favours nobody.
        """
        return [
            Run(task, model, framework, self.lane, seed, fold)
            for task, model in self.pairs
            for seed in range(self.seeds)
            for fold in range(self.folds)
            for framework in _rotated(self.frameworks, seed + fold)
        ]


def _rotated(names: tuple[str, ...], by: int) -> tuple[str, ...]:
    by %= max(1, len(names))
    return (*names[by:], *names[:by])


# --- rules of judgement -------------------------------------------------------------------------------------------

THRESHOLD_RULE = "youden"  # the validation threshold with the largest sensitivity + specificity - 1
PATIENT_SCORE_RULE = "mean"  # a patient's score is the mean of its slices' probabilities
CALIBRATION_BINS = 10  # equal-width bins of the expected calibration error
CONFIDENCE = 0.95
BOOTSTRAP_REPLICATES = 2000
MIN_INTERVAL_PATIENTS = 5  # fewer can be drawn in too few ways to say anything
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

# --- reading and feeding ------------------------------------------------------------------------------------------

MAX_IMAGE_PIXELS = 64_000_000  # 8000 x 8000; a CT slice has 262,144. Larger files are refused before decoding
MAX_FILE_BYTES = 256 * 2**20
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

# Further variables that the engine sets for a worker, or that change what a framework does; recorded when present.
RECORDED_VARIABLES = frozenset(WORKER_ENVIRONMENT) | {
    "CUDA_VISIBLE_DEVICES",
    "JAX_ENABLE_X64",
    "JAX_PLATFORMS",
    "KERAS_BACKEND",
    "KERAS_TORCH_DEVICE",
    "OMP_NUM_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "XLA_FLAGS",
}

IDENTITY_VARIABLES = frozenset(
    {"CUDA_VISIBLE_DEVICES", "KERAS_BACKEND"}
)  # may differ: which framework, which GPU


# --- to and from JSON ---------------------------------------------------------------------------------------------


def to_json(value: Any) -> Any:
    """A config object as plain JSON types."""
    return dataclasses.asdict(value)


def study_from_json(document: Mapping[str, Any]) -> Study:
    """Inverse of `to_json` for a Study."""
    fields = dict(document)
    for name in ("data", "tasks", "frameworks"):
        fields[name] = tuple(fields[name])
    fields["specs"] = {key: model_spec_from_json(value) for key, value in fields["specs"].items()}
    fields["recipes"] = {key: recipe_from_json(value) for key, value in fields["recipes"].items()}
    return Study(**fields)


def recipe_from_json(document: Mapping[str, Any]) -> Recipe:
    """Inverse of `to_json` for a Recipe."""
    fields = dict(document)
    fields["augmentation"] = Augmentation(**fields["augmentation"])
    return Recipe(**fields)


def model_spec_from_json(document: Mapping[str, Any]) -> ModelSpec:
    """Inverse of `to_json` for a model spec. KeyError for an unknown model, TypeError for unknown fields."""
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in document.items()
    }
    return type(MODELS[fields["name"]])(**fields)
