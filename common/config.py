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

NOTICE = "Research only, not a medical device."

FRAMEWORKS = ("torch", "keras-tensorflow", "keras-jax", "keras-torch")
LANES = ("aligned",)
DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("float32", "float64")
SPLITS = ("train", "val", "test")


# --- tasks ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """What is predicted from an image, and how its data are divided and judged."""

    name: str
    classes: tuple[str, ...]  # class index -> name; a sample's label is mapped onto these by `class_index`
    val_fraction: float  # of the samples, as near as whole patients allow
    test_fraction: float
    primary_metric: str  # the one metric of the declared family

    def class_index(self, label: str) -> int:
        """Index of a sample's label; in the binary task every kind of stroke is class 1."""
        if self.name == "binary":
            return int(label != "normal")
        return self.classes.index(label)


# What a sample may be labelled; "stroke": its kind is not stated.
LABELS = ("normal", "stroke", "bleeding", "ischemia")

TASKS: dict[str, Task] = {
    # The public two-class project splits 90/10; its 90 gives up a validation part, so that nothing is chosen on test.
    "binary": Task(
        "binary", ("normal", "stroke"), val_fraction=0.10, test_fraction=0.10, primary_metric="auroc_score"
    ),
}


# --- models -----------------------------------------------------------------------------------------------------


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
    pixel_mean: float = 0.2  # (x / 255 - mean) / std; about those of a head in the brain window, air included
    pixel_std: float = 0.3


ModelSpec = CnnSpec
MODELS: dict[str, ModelSpec] = {"cnn": CnnSpec()}


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
    learning_rate: float = 1e-3  # peak of the schedule
    warmup_fraction: float = 0.1  # of all steps, linear from 0
    final_learning_rate_fraction: float = 0.01  # the cosine ends here
    weight_decay: float = 1e-2  # decoupled, on tensors of two and more axes only (never biases or norms)
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8  # added after the bias correction (Kingma & Ba 2015, algorithm 1)
    class_weights: str = "balanced"  # "balanced": n / (classes * n_class) of the training part; "none": 1
    augmentation: Augmentation = field(default_factory=Augmentation)


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
    augmentation: Augmentation = field(default_factory=Augmentation)


PROFILES: dict[str, Profile] = {
    "quick": Profile("quick", 2, 1, {"binary": 10}, Phantom(patients=90), LIGHT_AUGMENTATION),
    "standard": Profile("standard", 3, 1, {"binary": 12}, Phantom(patients=150)),
    "full": Profile("full", 5, 5, {"binary": 30}, Phantom(patients=300)),
}


def recipe_of(
    task: str, model: str, profile: str, epochs: int | None = None, batch_size: int | None = None
) -> Recipe:
    """The recipe of a (task, model) under a profile; numbers that are given replace the recipe's."""
    del model  # one model so far: nothing depends on it
    recipe = Recipe(PROFILES[profile].epochs[task], augmentation=PROFILES[profile].augmentation)
    recipe = dataclasses.replace(recipe, epochs=epochs or recipe.epochs)
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
    models: tuple[str, ...] = ("cnn",)
    frameworks: tuple[str, ...] = ("torch", "keras-tensorflow")
    lane: str = "aligned"
    seeds: int = 2
    folds: int = 1
    split_seed: int = 0
    device: str = "auto"
    precision: str = "float32"
    threads: int = 0  # a run; 0: the machine's cores divided by the workers
    workers: int = 1  # runs at a time; 1 keeps the timing of each undisturbed
    recipes: Mapping[str, Recipe] = field(default_factory=dict)  # "task/model" -> recipe
    specs: Mapping[str, ModelSpec] = field(default_factory=lambda: dict(MODELS))  # model -> spec

    def runs(self) -> list[Run]:
        """Every run of the grid. The frameworks of one (seed, fold) stand next to each other, and who goes first
        changes from one to the next, so that a warming machine favours nobody.
        """
        return [
            Run(task, model, framework, self.lane, seed, fold)
            for task in self.tasks
            for model in self.models
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
HASHED_BATCHES = 4  # batches of the first epoch whose bytes are hashed into run.json

# --- reading and feeding ------------------------------------------------------------------------------------------

MAX_IMAGE_PIXELS = 64_000_000  # 8000 x 8000; a CT slice has 262,144. Larger files are refused before decoding
MAX_FILE_BYTES = 256 * 2**20
MIN_IMAGE_PX = 16  # a side; anything smaller is no slice
COLOUR_TOLERANCE = 32  # largest minus smallest channel, of 255, that JPEG noise or a slight tint may leave
COLOUR_PIXELS = 16  # pixels beyond it that are forgiven; the smallest painted lesions seen cover about 100
MASK_LEVELS = 8  # a lossless mask of at most so many values is a label map; one of more has soft edges
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
    for name in ("data", "tasks", "models", "frameworks"):
        fields[name] = tuple(fields[name])
    fields["specs"] = {name: model_spec_from_json(value) for name, value in fields["specs"].items()}
    fields["recipes"] = {key: recipe_from_json(value) for key, value in fields["recipes"].items()}
    return Study(**fields)


def recipe_from_json(document: Mapping[str, Any]) -> Recipe:
    """Inverse of `to_json` for a Recipe."""
    fields = dict(document)
    fields["augmentation"] = Augmentation(**fields["augmentation"])
    return Recipe(**fields)


def model_spec_from_json(document: Mapping[str, Any]) -> ModelSpec:
    """Inverse of `to_json` for a model spec."""
    fields = dict(document)
    fields["features"] = tuple(fields["features"])
    return CnnSpec(**fields)
