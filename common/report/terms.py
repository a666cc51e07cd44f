"""What the report calls tasks, models, metrics and levels: on the page, in Markdown and on the terminal."""

from __future__ import annotations

from common import config
from common.metrics import classification
from common.report.mask_levels import MASK_DIRECTION, MASK_TITLE

TASK_TITLE = {
    "binary": "Normal or stroke",
    "subtype": "Normal, bleeding or ischemia",
    "segmentation": "Lesion masks",
}
MODEL_TITLE = {
    "cnn": "Plain CNN",
    "densenet121": "DenseNet-121",
    "convnext_tiny": "ConvNeXt-Tiny",
    "unet": "U-Net",
}
FRAMEWORK_TITLE = {
    "torch": "PyTorch",
    "keras-tensorflow": "Keras on TensorFlow",
    "keras-jax": "Keras on JAX",
    "keras-torch": "Keras on PyTorch",
}

# Level -> (how a score of it is introduced, what is counted). The first level of a comparison is its main one.
LEVELS = {
    "slice": ("Per slice", "test slice"),
    "patient": ("Per patient", "test patient"),
    "external": ("On the external set, per slice", "external slice"),
    "lesion": ("On slices with a lesion", "test slice"),
    "clean": ("On slices without a lesion", "test slice"),
    "small": ("On small lesions", "test slice"),
    "large": ("On larger lesions", "test slice"),
    "external_clean": ("On external slices without a lesion", "external slice"),
}
MASK_LEVELS = {
    "patient": ("Per patient with a lesion", "test patient"),
    "external": ("On external slices with a lesion", "external slice"),
}
MAIN_LEVELS = ("slice", "lesion")

# With more than two classes these are means over the classes, one against the rest.
MACRO = frozenset(
    {
        "auroc_score",
        "average_precision_score",
        "recall_score",
        "specificity_score",
        "precision_score",
        "f1_score",
    }
)


def metric_titles(task: str) -> dict[str, str]:
    """Metric -> title, in the order of the tables."""
    settings = config.TASKS[task]
    if settings.kind == "segmentation":
        return MASK_TITLE
    if len(settings.classes) == 2:
        return classification.TITLE
    macro = {name: f"{title} (macro)" for name, title in classification.TITLE.items() if name in MACRO}
    return classification.TITLE | macro


def metric_title(task: str, metric: str) -> str:
    return metric_titles(task).get(metric, metric)


def metric_direction(task: str, metric: str) -> str:
    """Which way is better, "up" or "down"."""
    masks = config.TASKS[task].kind == "segmentation"
    return str((MASK_DIRECTION if masks else classification.DIRECTION)[metric])


def level_words(task: str, level: str) -> tuple[str, str]:
    """How a score of the level is introduced ("Per slice"), and what is counted ("test slice")."""
    special = MASK_LEVELS if config.TASKS[task].kind == "segmentation" else {}
    return special.get(level) or LEVELS.get(level) or (level.capitalize(), "case")


def level_prefix(level: str) -> str:
    """Of a key of summary.json: nothing for the main level of a task."""
    return "" if level in MAIN_LEVELS else f"{level}/"
