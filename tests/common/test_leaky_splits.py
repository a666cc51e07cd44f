"""The arms of the leak meter: who stands where, whose labels are whose, and that nothing else differs."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import make_row

from common.config import TASKS
from common.data.leaky_splits import (
    ARMS,
    deal,
    deal_slices,
    patient_labels,
    require_patients,
    shared_patients,
    shuffle_labels,
    why_not_shuffled,
)
from common.data.samples import NO_LESION, class_indices, sample_table
from common.data.splits import split_table, task_split
from common.data.strata import SEVERITY
from common.errors import StudyError

BINARY, SUBTYPE, SEGMENTATION = (TASKS[name] for name in ("binary", "subtype", "segmentation"))


@st.composite
def tables(draw: st.DrawFn, several: bool = True) -> pd.DataFrame:
    """Patients of 2 to 9 slices, at least five of each of three labels; with `several`, some slices are normal too."""
    rows = []
    patients = draw(st.integers(15, 24))
    for patient in range(patients):
        label = ("bleeding", "ischemia", "normal")[patient % 3]
        for number in range(draw(st.integers(2, 9))):
            own = "normal" if several and number and draw(st.booleans()) else label
            mask = NO_LESION if own == "normal" else "mask.png"
            rows.append(make_row(f"p{patient:02d}/{number}", own, f"p{patient:02d}", mask=mask))
    return sample_table(rows)


def counts(samples: pd.DataFrame, split: pd.Series, task_name: str) -> dict[tuple[str, int], int]:
    classes = class_indices(samples, TASKS[task_name])
    return pd.Series(1, index=[samples["id"].map(split), classes]).groupby(level=[0, 1]).sum().to_dict()


@settings(max_examples=8)
@given(tables(), st.integers(0, 50), st.sampled_from(["binary", "subtype"]))
def test_arms_with_equal_labels_have_equal_parts(table: pd.DataFrame, seed: int, task: str) -> None:
    """Slice for slice: as many of each class in training, validation and test, and as many in training in every arm."""
    found = {name: deal(table, TASKS[task], arm, seed) for name, arm in ARMS.items()}
    for whole, sliced in (("patient", "slice"), ("shuffled-patient", "shuffled")):
        assert counts(*found[whole], task) == counts(*found[sliced], task)
        pd.testing.assert_frame_equal(found[whole][0], found[sliced][0])
    for samples, split in found.values():
        assert sorted(split.index) == sorted(samples["id"]) == sorted(table["id"])
    sizes = {(split == "train").sum() for _, split in found.values()}
    assert len(sizes) == 1


@settings(max_examples=8)
@given(tables(), st.integers(0, 50))
def test_patients_stand_on_two_sides_only_where_slices_are_dealt(table: pd.DataFrame, seed: int) -> None:
    for arm in ARMS.values():
        samples, split = deal(table, BINARY, arm, seed)
        sides = samples.assign(part=samples["id"].map(split)).groupby("patient")["part"].nunique()
        if arm.leaky:
            assert (sides > 1).any()
            assert shared_patients(samples, split) > 0
        else:
            assert (sides == 1).all()
            assert shared_patients(samples, split) == 0


@settings(max_examples=8)
@given(tables(), st.integers(0, 50))
def test_shuffled_labels_are_those_of_the_same_part_one_a_patient(table: pd.DataFrame, seed: int) -> None:
    samples, split = deal(table, SUBTYPE, ARMS["shuffled-patient"], seed)
    assert samples.groupby("patient")["label"].nunique().eq(1).all()
    part_of = samples.groupby("patient")["id"].first().map(split)
    before, after = patient_labels(table), patient_labels(samples)
    for part in ("train", "val", "test"):
        names = part_of.index[part_of == part]
        assert sorted(before[names]) == sorted(after[names])


@settings(max_examples=8)
@given(tables(), st.integers(0, 50), st.randoms(use_true_random=False))
def test_the_order_of_rows_and_given_parts_change_nothing(
    table: pd.DataFrame, seed: int, source: object
) -> None:
    order = list(range(len(table)))
    source.shuffle(order)  # type: ignore[attr-defined]
    external = sample_table([make_row(f"x/{n}", "normal", f"x{n}", split="external") for n in range(3)])
    other = pd.concat([table.iloc[order].assign(split="train"), external], ignore_index=True)
    for arm in ARMS.values():
        samples, split = deal(table, BINARY, arm, seed)
        same, again = deal(other, BINARY, arm, seed)
        pd.testing.assert_series_equal(split, again)
        assert samples["label"].tolist() == same["label"].tolist()


def test_the_patient_arm_is_the_split_of_a_study() -> None:
    rows = [
        make_row(f"p{n:02d}/{k}", ("stroke", "normal")[n % 2], f"p{n:02d}")
        for n in range(20)
        for k in range(3)
    ]
    table = sample_table(rows)
    for seed in (0, 7):
        _, split = deal(table, BINARY, ARMS["patient"], seed)
        study = task_split(table, split_table(table, 1, seed), BINARY).set_index("id")["split"]
        assert split.to_dict() == study.to_dict()


def test_every_patient_and_every_slice_has_an_equal_chance() -> None:
    """4 of 12 patients have a stroke: over many seeds each gets that label in a third of the draws, and each slice is
    tested as often as its class has a share in the test part.
    """
    label_of = {f"p{n:02d}": "stroke" if n < 4 else "normal" for n in range(12)}
    rows = [make_row(f"{name}/{k}", label, name) for name, label in label_of.items() for k in range(4)]
    table, seeds = sample_table(rows), range(200)
    split = pd.Series("train", index=table["id"])
    shuffled = [patient_labels(shuffle_labels(table, split, seed)) == "stroke" for seed in seeds]
    share = pd.concat(shuffled, axis=1).mean(axis=1)
    assert share.between(1 / 3 - 0.13, 1 / 3 + 0.13).all()  # sd 0.033
    split[table.loc[table["label"] == "normal", "id"].tolist()[:16]] = "test"  # half of the class
    tested = pd.concat([deal_slices(table, split, BINARY, seed) == "test" for seed in seeds], axis=1).mean(
        axis=1
    )
    normal = table["id"][table["label"] == "normal"]
    assert tested[normal].between(0.5 - 0.14, 0.5 + 0.14).all()  # sd 0.035
    assert not tested.drop(normal).any()


def test_a_patient_has_the_most_severe_label_of_its_slices() -> None:
    table = sample_table(
        [
            make_row(f"{label}{n}", one, label)
            for label in SEVERITY
            for n, one in enumerate(("normal", label, "normal"))
        ]
    )
    assert patient_labels(table).to_dict() == {label: label for label in SEVERITY}


def test_what_has_no_shuffled_labels_is_told() -> None:
    table = sample_table([make_row(f"p{n}/0", ("stroke", "normal")[n > 1], f"p{n}") for n in range(9)])
    assert why_not_shuffled(table, BINARY).startswith("only 2 of 9 patients have 'stroke'")
    assert "a mask belongs to its picture" in why_not_shuffled(table, SEGMENTATION)
    more = sample_table([make_row(f"p{n}/0", ("stroke", "normal")[n % 2], f"p{n}") for n in range(9)])
    assert why_not_shuffled(more, BINARY) == ""


def test_guessed_patients_are_refused() -> None:
    known = sample_table([make_row("a", "normal", "p1"), make_row("b", "stroke", "p2")])
    require_patients(known)
    with pytest.raises(
        StudyError, match=r"the patients of 1 images of 'tiny' are not known.*add patients.csv"
    ):
        require_patients(known.assign(patient_from=["name", "similarity"]))
