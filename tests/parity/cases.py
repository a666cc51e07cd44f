"""What is trained here: a small relative of each model, with all that has to be proved switched on."""

from __future__ import annotations

import dataclasses

from common.config import CnnSpec, ConvNextSpec, DenseNetSpec, ModelSpec, Recipe, Study, UnetSpec

STEPS = 10  # of which a backbone's head learns alone in the first 2
PATIENTS = 12  # of the phantom

RECIPE = Recipe(epochs=1, batch_size=8, gradient_clip_norm=0.5)
# The head alone first, then all, the backbone slower; labels smoothed
TRANSFER = dataclasses.replace(
    RECIPE,
    loss="cross_entropy",
    learning_rate=1e-2,
    label_smoothing=0.05,
    head_epochs=1,
    backbone_rate_fraction=0.3,
)
MASKS = dataclasses.replace(
    RECIPE,
    loss="dice_cross_entropy",
    sampling="foreground",
    class_weights="none",
    learning_rate=1e-2,
)

CASES: dict[str, tuple[ModelSpec, Recipe]] = {
    "binary/cnn": (CnnSpec(image_size=32, features=(8, 16), hidden=24), RECIPE),
    "subtype/densenet121": (
        DenseNetSpec(image_size=32, stem_features=8, blocks=(2, 1), growth=4, bottleneck=2, outputs=3),
        TRANSFER,
    ),
    "subtype/convnext_tiny": (
        ConvNextSpec(image_size=32, depths=(1, 1), features=(6, 8), stochastic_depth=0.3, outputs=3),
        TRANSFER,
    ),
    "segmentation/unet": (UnetSpec(image_size=32, features=(4, 6)), MASKS),
}
MODELS = tuple(key.split("/")[1] for key in CASES)
TASKS = {key.split("/")[1]: key.split("/")[0] for key in CASES}


def study(precision: str = "float64") -> Study:
    """All cases on the drawn phantom."""
    return Study(
        patients=PATIENTS,
        tasks=tuple(dict.fromkeys(TASKS.values())),
        seeds=1,
        device="cpu",
        precision=precision,
        specs={key: spec for key, (spec, _) in CASES.items()},
        recipes={key: recipe for key, (_, recipe) in CASES.items()},
    )
