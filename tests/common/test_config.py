"""The numbers hold together, survive JSON, and the command line asks for what it says."""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from common import config
from common.config import (
    BACKBONES,
    DEFAULTS,
    FRAMEWORKS,
    LABELS,
    LANES,
    MODELS,
    PRETRAINED,
    PROFILES,
    STUDY_LANES,
    TASKS,
    WAYS,
    Augmentation,
    CnnSpec,
    ModelSpec,
    Recipe,
    Study,
    defaults_of,
    in_lane,
    in_lockstep,
    model_spec_from_json,
    recipe_from_json,
    recipe_of,
    spec_of,
    study_from_json,
    to_json,
    with_defaults,
)
from common.engines import INSTALL, PACKAGES
from common.errors import StudyError
from common.metrics import classification, segmentation
from common.options import Parser, add_study_options, directory_of, study_of
from common.schedule import phases

DEFAULT = ("torch", "keras-tensorflow")


def through_json(value: object) -> dict:
    return json.loads(json.dumps(to_json(value)))


def parse(*words: str, frameworks: tuple[str, ...] | None = DEFAULT) -> argparse.Namespace:
    parser = Parser(prog="compare.py")
    add_study_options(parser, frameworks)
    return parser.parse_args(words)


def asked(*words: str) -> Study:
    arguments = parse(*words)
    return study_of(arguments, arguments.frameworks)


# --- numbers ------------------------------------------------------------------------------------------------------


def test_names_in_one_table_are_known_in_the_others() -> None:
    for name, task in TASKS.items():
        assert task.name == name
        metrics = segmentation if task.kind == "segmentation" else classification
        assert callable(getattr(metrics, task.primary_metric))
        assert set(task.labels) <= set(LABELS)
        assert all(0 <= task.class_index(label) < len(task.classes) for label in task.labels)
        assert set(task.default_models) <= set(task.models) <= MODELS.keys()
    assert all(spec.name == name for name, spec in MODELS.items())
    assert set(BACKBONES) == PRETRAINED.keys() < MODELS.keys()
    assert all(
        profile.name == name and profile.epochs.keys() == TASKS.keys() for name, profile in PROFILES.items()
    )
    assert set(FRAMEWORKS) == PACKAGES.keys() == INSTALL.keys()


def test_the_binary_task_calls_every_stroke_1() -> None:
    indices = {label: TASKS["binary"].class_index(label) for label in LABELS}
    assert indices == {"normal": 0, "stroke": 1, "bleeding": 1, "ischemia": 1}


def test_the_subtype_task_tells_the_kinds_apart_and_takes_no_stroke_of_unknown_kind() -> None:
    task = TASKS["subtype"]
    assert [task.class_index(label) for label in task.labels] == [0, 1, 2]
    assert "stroke" not in task.labels
    assert {name: task.outputs for name, task in TASKS.items()} == {
        "binary": 1,
        "subtype": 3,
        "segmentation": 1,
    }


def test_a_spec_has_as_many_logits_as_its_task_needs() -> None:
    assert spec_of("binary", "densenet121", "standard").outputs == 1
    assert spec_of("subtype", "densenet121", "standard").outputs == 3


@pytest.mark.parametrize("profile", ["standard", "full"])
def test_outside_the_quick_profile_the_backbones_are_those_of_the_papers(profile: str) -> None:
    """The public weights fit nothing else."""
    for name in BACKBONES:
        spec = spec_of("subtype", name, profile)
        assert dataclasses.replace(spec, image_size=224, outputs=1) == MODELS[name]


def test_profiles_grow() -> None:
    quick, standard, full = (PROFILES[name] for name in ("quick", "standard", "full"))
    for small, large in ((quick, standard), (standard, full)):
        assert small.seeds < large.seeds
        assert small.folds <= large.folds
        assert small.phantom.patients < large.phantom.patients
        assert all(small.epochs[task] < large.epochs[task] for task in TASKS)


ONE = Study(recipes={"binary/cnn": Recipe(epochs=1)})


@pytest.mark.parametrize("value", [Recipe(epochs=1), ONE.runs()[0], ONE, CnnSpec()])
def test_nothing_can_be_changed_by_accident(value: object) -> None:
    first = dataclasses.fields(value)[0].name  # type: ignore[arg-type]
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, first, 5)


def test_a_recipe_is_the_profiles_unless_told_otherwise() -> None:
    assert recipe_of("binary", "cnn", "standard") == Recipe(epochs=PROFILES["standard"].epochs["binary"])
    light = PROFILES["quick"].augmentation
    assert light != Recipe(1).augmentation
    changed = recipe_of("binary", "cnn", "quick", epochs=3, batch_size=5)
    assert changed == Recipe(epochs=3, batch_size=5, augmentation=light)


def test_a_backbone_that_knows_something_starts_with_its_head_alone() -> None:
    fresh = recipe_of("subtype", "densenet121", "standard")
    transferred = recipe_of("subtype", "densenet121", "standard", weights="imagenet")
    assert (fresh.head_epochs, fresh.backbone_rate_fraction) == (0, 1.0)
    assert 0 < transferred.head_epochs < transferred.epochs
    assert transferred.backbone_rate_fraction < 1
    assert recipe_of("binary", "cnn", "standard", weights="imagenet") == recipe_of(
        "binary", "cnn", "standard"
    )


@pytest.mark.parametrize(("epochs", "head_epochs"), [(1, 0), (2, 1), (6, 1), (12, 2)])
def test_at_least_one_epoch_is_left_for_all_layers(epochs: int, head_epochs: int) -> None:
    recipe = recipe_of("subtype", "densenet121", "standard", epochs=epochs, weights="imagenet")
    assert recipe.head_epochs == head_epochs
    assert phases(recipe)[-1].trainable == "all"


def test_classes_are_not_balanced_twice() -> None:
    assert Recipe(1).class_weights == "balanced"
    assert Recipe(1, sampling="balanced", class_weights="none").sampling == "balanced"
    with pytest.raises(ValueError, match="sampling and class_weights are both 'balanced'"):
        Recipe(1, sampling="balanced")


def test_each_task_has_its_loss() -> None:
    losses = {name: recipe_of(name, task.default_models[0], "quick").loss for name, task in TASKS.items()}
    assert losses == {
        "binary": "binary_cross_entropy",
        "subtype": "cross_entropy",
        "segmentation": "dice_cross_entropy",
    }


def test_a_way_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="adam_form 'odd' is none of 'corrected', 'uncorrected'"):
        Recipe(1, adam_form="odd")
    for spec in MODELS.values():
        with pytest.raises(ValueError, match="initialiser 'odd' is none of 'common', 'framework'"):
            dataclasses.replace(spec, initialiser="odd")


def test_every_way_is_one_of_a_field() -> None:
    fields = {name for value in (Recipe(1), *MODELS.values()) for name in vars(value)}
    assert WAYS.keys() <= fields


# --- lanes --------------------------------------------------------------------------------------------------------

PAIRS = [(name, model) for name, task in TASKS.items() for model in task.models]
# What each framework is left with natively, by hand: (task, model) -> fields of spec and recipe, PyTorch's and Keras's
OWN: dict[tuple[str, str], dict[str, tuple[Any, Any]]] = {
    ("binary", "cnn"): {
        "flatten_order": ("channels_first", "channels_last"),
        "stock_layers": (False, True),
        "loss_divisor": ("samples", "samples"),
    },
    ("subtype", "densenet121"): {
        "padding": ("symmetric", "same"),
        "norm_epsilon": (1e-5, 1e-3),
        "norm_decay": (0.9, 0.99),
        "norm_variance": ("unbiased", "biased"),
        "stock_layers": (False, True),
        "loss_divisor": ("weights", "samples"),
    },
    ("subtype", "convnext_tiny"): {
        "norm_epsilon": (1e-6, 1e-6),  # of the paper's layer norm: no default
        "stochastic_depth": (0.1, 0.0),
        "stock_layers": (False, True),
        "loss_divisor": ("weights", "samples"),
    },
    ("segmentation", "unet"): {
        "conv_bias": (True, True),
        "norm_epsilon": (1e-5, 1e-3),
        "norm_decay": (0.9, 0.99),
        "norm_variance": ("unbiased", "biased"),
        "loss_divisor": ("weights", "weights"),
    },
}
OWN_EVERYWHERE: dict[str, tuple[Any, Any]] = {
    "loop": ("steps", "fit"),
    "order": ("framework", "framework"),
    "initialiser": ("framework", "framework"),
    "loss_input": ("logits", "probabilities"),
    "weight_decay": (1e-2, 4e-3),
    "decay_scope": ("all", "all"),
    "adam_epsilon": (1e-8, 1e-7),
    "adam_form": ("corrected", "uncorrected"),
}


def asked_for(task: str, model: str, profile: str = "standard", **changes: Any) -> tuple[ModelSpec, Recipe]:
    recipe = recipe_of(task, model, profile, weights=PROFILES[profile].weights)
    return spec_of(task, model, profile), dataclasses.replace(recipe, **changes)


def fields_of(spec: ModelSpec, recipe: Recipe) -> dict[str, Any]:
    return {**vars(spec), **vars(recipe)}


@pytest.mark.parametrize(("task", "model"), PAIRS)
@pytest.mark.parametrize("profile", PROFILES)
def test_the_aligned_lane_is_what_was_asked_for_and_lockstep_shares_the_masks(
    task: str, model: str, profile: str
) -> None:
    spec, recipe = asked_for(task, model, profile)
    draws = model == "cnn" or (model == "convnext_tiny" and profile != "quick")
    for framework in FRAMEWORKS:
        assert in_lane(spec, recipe, framework, "aligned") == (spec, recipe)
        shared, same = in_lane(spec, recipe, framework, "lockstep")
        assert shared == in_lockstep(spec, recipe)
        assert same == recipe
        assert getattr(shared, "shared_masks", 0) == (recipe.batch_size if draws else 0)
        assert dataclasses.replace(shared, **({"shared_masks": 0} if draws else {})) == spec


@pytest.mark.parametrize(("task", "model"), OWN)
def test_natively_each_framework_has_its_own(task: str, model: str) -> None:
    spec, recipe = asked_for(task, model, gradient_clip_norm=1.0)
    own = OWN_EVERYWHERE | OWN[task, model] | {"gradient_clip_scope": ("global", "tensor")}
    for framework in FRAMEWORKS:
        found = fields_of(*in_lane(spec, recipe, framework, "native"))
        side = 0 if framework == "torch" else 1
        assert {name: found[name] for name in own} == {name: values[side] for name, values in own.items()}
        asked = fields_of(spec, recipe)
        assert {name for name, value in asked.items() if found[name] != value} <= own.keys()


def test_what_the_experimenter_chose_is_equal_in_every_lane() -> None:
    """The models and recipes under study are no defaults, so no lane may touch them."""
    chosen = {"epochs", "batch_size", "learning_rate", "loss", "head_epochs", "sampling", "class_weights", "features",
              "image_size", "gradient_clip_norm", "adam_beta1", "adam_beta2", "dropout"}  # fmt: skip
    touched = {name for one in DEFAULTS.values() for own in (one.torch, one.keras) for name in own}
    assert not chosen & touched


@pytest.mark.parametrize("name", DEFAULTS)
def test_every_default_matters_somewhere_and_changes_its_own_fields_only(name: str) -> None:
    default, changed = DEFAULTS[name], set()
    for task, model in PAIRS:
        spec, recipe = asked_for(task, model, gradient_clip_norm=1.0)
        lockstep = fields_of(*with_defaults(spec, recipe, "torch", ()))
        for framework in ("torch", "keras-jax"):
            found = fields_of(*with_defaults(spec, recipe, framework, (name,)))
            differing = {field for field, value in found.items() if value != lockstep[field]}
            if name == "stochastic_depth":  # without it there are no masks to be shared
                differing.discard("shared_masks")
            assert differing <= default.fields(framework).keys()
            assert all(found[field] == default.fields(framework)[field] for field in differing)
            if differing:
                assert default in defaults_of(spec, recipe)
                changed.add(framework)
    assert changed
    assert default.fields("keras-tensorflow") == default.fields("keras-torch") == default.keras


@pytest.mark.parametrize(("task", "model"), PAIRS)
def test_the_ladder_of_a_model_ends_in_lockstep(task: str, model: str) -> None:
    """Every default on the way is one that changes something, in the order in which they are declared."""
    spec, recipe = asked_for(task, model)
    listed = [one.name for one in defaults_of(spec, recipe)]
    assert listed == [name for name in DEFAULTS if name in listed]
    assert "clipping" not in listed  # nothing is clipped
    assert ("class_weights" in listed, "sample_weights" in listed) == (task == "subtype", task == "binary")
    for framework in FRAMEWORKS:
        assert with_defaults(spec, recipe, framework, listed) == in_lane(spec, recipe, framework, "native")
        assert with_defaults(spec, recipe, framework, ()) == in_lane(spec, recipe, framework, "lockstep")
    lockstep = with_defaults(spec, recipe, "torch", ())
    for name in listed:
        sides = [with_defaults(spec, recipe, framework, (name,)) for framework in ("torch", "keras-jax")]
        assert any(side != lockstep for side in sides)


def test_defaults_that_a_model_does_not_have_are_passed_over() -> None:
    spec, recipe = asked_for("segmentation", "unet")
    foreign = ("flatten", "padding", "stochastic_depth", "dropout", "class_weights", "clipping")
    assert with_defaults(spec, recipe, "keras-jax", foreign) == (spec, recipe)
    still, same = asked_for("binary", "cnn")
    still = dataclasses.replace(still, dropout=0.0)
    assert with_defaults(still, same, "torch", ("dropout",)) == (still, same)
    assert in_lockstep(still, same) == still  # no masks to share


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("framework", ["torch", "keras-tensorflow"])
def test_specs_and_recipes_of_every_lane_survive_json(lane: str, framework: str) -> None:
    for task, model in PAIRS:
        spec, recipe = in_lane(*asked_for(task, model), framework, lane)
        assert model_spec_from_json(through_json(spec)) == spec
        assert recipe_from_json(through_json(recipe)) == recipe


def test_a_study_can_be_in_two_of_the_lanes() -> None:
    assert set(STUDY_LANES) < LANES.keys()
    assert LANES["lockstep"] == ()
    assert set(LANES["native"]) == DEFAULTS.keys()
    assert all(default.name == name for name, default in DEFAULTS.items())
    assert all(set(default.models) <= MODELS.keys() for default in DEFAULTS.values())


def test_the_first_framework_s_runs_are_repeated_last_and_in_folders_of_their_own() -> None:
    study = asked("--tasks", "binary", "--lane", "native", "aligned", "--seeds", "3", "--repeats", "2")
    runs = study.runs()
    again = [run for run in runs if run.repeat]
    assert study.lanes == ("aligned", "native")
    assert runs[-len(again) :] == again
    assert [(run.framework, run.lane, run.seed) for run in again] == [
        ("torch", lane, seed) for lane in ("aligned", "native") for seed in (0, 1)
    ]
    assert str(again[0].path) == "binary/cnn/torch/aligned/seed0-fold0-repeat1"
    assert len({run.path for run in runs}) == len(runs) == 2 * (3 * 2 + 2)
    assert asked("--seeds", "1", "--repeats", "5").repeats == 1


# --- the grid -----------------------------------------------------------------------------------------------------


def test_the_runs_of_a_grid() -> None:
    study = dataclasses.replace(ONE, frameworks=("torch", "keras-jax"), seeds=2, folds=2)
    keys = [(run.seed, run.fold, run.framework) for run in study.runs()]
    pairs = [(seed, fold) for seed in (0, 1) for fold in (0, 1)]
    assert [key[:2] for key in keys] == [pair for pair in pairs for _ in range(2)]
    first = [framework for _, _, framework in keys[::2]]
    assert first == ["torch", "keras-jax", "keras-jax", "torch"]  # each goes first as often as the other
    assert len({run.path for run in study.runs()}) == 8
    assert str(study.runs()[-1].path) == "binary/cnn/keras-jax/aligned/seed1-fold1"


def test_a_grid_holds_the_pairs_that_have_a_recipe_of_the_tasks_asked_for() -> None:
    recipe = Recipe(epochs=1)
    keys = ("subtype/convnext_tiny", "binary/cnn", "subtype/densenet121", "segmentation/unet")
    study = Study(tasks=("subtype", "binary"), recipes=dict.fromkeys(keys, recipe))
    assert study.pairs == [("binary", "cnn"), ("subtype", "densenet121"), ("subtype", "convnext_tiny")]
    assert study.models == ("cnn", "densenet121", "convnext_tiny")


# --- JSON ---------------------------------------------------------------------------------------------------------


def test_a_study_survives_json() -> None:
    study = Study(
        data=("a", "b"),
        frameworks=("keras-jax",),
        seeds=4,
        threads=3,
        recipes={"binary/cnn": Recipe(epochs=7, augmentation=Augmentation(rotation_degrees=3))},
        specs={f"any/{name}": spec for name, spec in MODELS.items()},
    )
    assert study_from_json(through_json(study)) == study
    assert study_from_json(through_json(Study())) == Study()


def test_recipes_and_specs_survive_json() -> None:
    recipe = Recipe(epochs=2, class_weights="none", augmentation=Augmentation(0, 0, 0, 0, 0, 0))
    assert recipe_from_json(through_json(recipe)) == recipe
    for spec in (CnnSpec(image_size=32, features=(4, 8), dropout=0.1), *MODELS.values()):
        assert model_spec_from_json(through_json(spec)) == spec


def test_an_unknown_field_is_no_study() -> None:
    with pytest.raises(TypeError, match="surprise"):
        study_from_json({**through_json(Study()), "surprise": 1})


# --- the command line ---------------------------------------------------------------------------------------------


def test_without_options_it_is_the_quick_profile_on_the_phantom() -> None:
    profile = PROFILES["quick"]
    pairs = [
        ("binary", "cnn"),
        ("subtype", "densenet121"),
        ("subtype", "convnext_tiny"),
        ("segmentation", "unet"),
    ]
    assert asked() == Study(
        tasks=("binary", "subtype", "segmentation"),
        skippable=True,
        repeats=profile.repeats,
        frameworks=DEFAULT,
        seeds=profile.seeds,
        folds=profile.folds,
        recipes={f"{task}/{model}": recipe_of(task, model, "quick") for task, model in pairs},
        specs={f"{task}/{model}": spec_of(task, model, "quick") for task, model in pairs},
    )
    assert asked().pairs == pairs
    assert directory_of(parse()) == Path("results/phantom-quick")


def test_the_profile_decides_what_is_not_given() -> None:
    assert (asked("--profile", "full").seeds, asked("--profile", "full").folds) == (5, 5)
    assert asked("--profile", "full", "--seeds", "2").seeds == 2
    assert asked("--profile", "full", "--epochs", "1").recipes["binary/cnn"].epochs == 1


def test_every_option_reaches_the_study(tmp_path: Path) -> None:
    study = asked(
        *(
            "--data",
            str(tmp_path),
            "--frameworks",
            "keras-jax",
            "torch",
            "keras-jax",
            "--seeds",
            "7",
            "--folds",
            "3",
        ),
        *(
            "--batch-size",
            "16",
            "--device",
            "cpu",
            "--precision",
            "float64",
            "--workers",
            "2",
            "--threads",
            "4",
            "--split-seed",
            "0",
        ),
    )
    assert study.data == (str(tmp_path),)
    assert study.frameworks == ("keras-jax", "torch")  # once each, in the order given
    assert (study.seeds, study.folds, study.workers, study.threads) == (7, 3, 2, 4)
    assert (study.device, study.precision) == ("cpu", "float64")
    assert study.recipes["binary/cnn"].batch_size == 16
    assert (study.split_seed, asked("--split-seed", "3").split_seed) == (0, 3)


def test_the_lane_is_kept_and_the_numbers_are_free_of_it() -> None:
    native = asked("--lane", "native")
    assert native == dataclasses.replace(asked(), lanes=("native",))
    assert {run.lane for run in native.runs()} == {"native"}
    assert directory_of(parse("--lane", "native")) == Path("results/phantom-quick-native")
    assert directory_of(parse("--lane", "native", "--out", "here")) == Path("here")


def test_tasks_and_models_that_are_named() -> None:
    one = asked("--tasks", "binary", "--models", "densenet121", "cnn")
    assert one.pairs == [("binary", "cnn"), ("binary", "densenet121")]
    assert not one.skippable  # what is asked for by name is not left out in silence
    assert asked("--models", "unet").pairs == [("segmentation", "unet")]
    with pytest.raises(StudyError, match="task 'segmentation' has no model cnn; its models: unet"):
        asked("--tasks", "segmentation", "binary", "--models", "cnn")
    with pytest.raises(StudyError, match="model 'unet' is for the task segmentation"):
        asked("--tasks", "binary", "--models", "unet", "cnn")


def test_where_the_backbones_start(tmp_path: Path) -> None:
    assert asked().weights == "random"
    assert asked("--profile", "standard").weights == "imagenet"
    assert asked("--profile", "standard").recipes["subtype/densenet121"].head_epochs > 0
    assert (
        asked("--profile", "standard", "--weights", "random").recipes["subtype/densenet121"].head_epochs == 0
    )
    assert asked("--profile", "standard", "--tasks", "binary").weights == "random"  # no backbone, no weights
    # Whether it is there is asked when it is needed: a study goes on without the file it was given
    for given in (str(tmp_path), "no/such"):
        assert asked("--profile", "standard", "--weights", given).weights == given
    for given in ("imagenet", str(tmp_path)):
        with pytest.raises(
            StudyError, match=f"--weights {given} does not fit the quick profile's densenet121, a small rela"
        ):
            asked("--weights", given)


def test_a_stack_alone_has_no_choice_of_framework() -> None:
    assert not hasattr(parse(frameworks=None), "frameworks")


def test_the_folder_is_named_after_data_and_profile(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    assert directory_of(parse("--data", str(one), f"{two}/")) == Path("results/one+two-quick")
    assert directory_of(parse("--out", "here")) == Path("here")


def test_data_folders_may_be_given_one_by_one(tmp_path: Path) -> None:
    one, two = str(tmp_path), str(tmp_path.parent)
    assert asked("--data", one, "--data", two).data == asked("--data", one, two).data == (one, two)
    assert asked().data == ()


def test_a_data_folder_that_is_not_there_is_named() -> None:
    with pytest.raises(StudyError, match="--data no/such/folder does not exist"):
        asked("--data", "no/such/folder")


def test_patients_are_those_of_the_phantom(tmp_path: Path) -> None:
    assert asked("--patients", "30").patients == 30
    with pytest.raises(StudyError, match="--patients counts the drawn phantom's patients"):
        asked("--patients", "30", "--data", str(tmp_path))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "0"], "argument --seeds: must be a whole number of at least 1, not '0'"),
        (["--split-seed", "-1"], "argument --split-seed: must be a whole number of at least 0, not '-1'"),
        (["--folds", "-1"], "argument --folds: must be a whole number of at least 1"),
        (["--epochs", "2.5"], "argument --epochs: must be a whole number of at least 1, not '2.5'"),
        (["--frameworks", "jax"], "argument --frameworks: invalid choice: 'jax'"),
        (["--lane", "lockstep"], "argument --lane: invalid choice: 'lockstep'"),
        (["--profile", "huge"], "argument --profile: invalid choice: 'huge'"),
        (["--unknown"], "unrecognized arguments: --unknown"),
    ],
)
def test_a_wrong_option_is_one_sentence_and_exit_code_2(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        parse(*words)
    assert exit_info.value.code == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert said.endswith("see `compare.py --help`\n")


def test_declared_worker_settings_are_all_recorded() -> None:
    assert config.WORKER_ENVIRONMENT.keys() <= config.RECORDED_VARIABLES
