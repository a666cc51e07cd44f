"""Whole patients, every class in every part, shares as wanted, and nothing but the seed decides."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import make_row

from common.config import SPLITS, TASKS, TEST_FRACTION, VAL_FRACTION, Task
from common.data import strata
from common.data.layouts import open_dataset
from common.data.samples import NO_LESION, sample_table
from common.data.splits import (
    count_split,
    patients_on_two_sides,
    split_digest,
    split_table,
    task_split,
    why_not,
)
from common.errors import StudyError

BINARY, SUBTYPE, SEGMENTATION = TASKS["binary"], TASKS["subtype"], TASKS["segmentation"]


def table(patients: dict[str, dict[str, int]], **changes: str) -> pd.DataFrame:
    """Patient -> label -> number of slices; the strokes with a mask."""
    return sample_table(
        [
            make_row(
                f"{name}/{label}{k}",
                label,
                name,
                **({"mask": NO_LESION if label == "normal" else "mask.png"} | changes),
            )
            for name, slices in patients.items()
            for label, count in slices.items()
            for k in range(count)
        ]
    )


def cohort(normal: list[int], stroke: list[int]) -> pd.DataFrame:
    """One patient for each number of slices."""
    patients = {f"n{k}": {"normal": count} for k, count in enumerate(normal)}
    patients |= {f"s{k}": {"stroke": count} for k, count in enumerate(stroke)}
    return table(patients)


def split_of(samples: pd.DataFrame, folds: int = 1, fold: int = 0, seed: int = 0) -> pd.Series:
    """One fold of the split, sample id -> part."""
    whole = split_table(samples, folds, seed)
    return whole[whole["fold"] == fold].set_index("id")["split"]


def counted_of(
    samples: pd.DataFrame, task: Task = BINARY, folds: int = 1, fold: int = 0, seed: int = 0
) -> dict[str, dict[str, int]]:
    return count_split(samples, split_of(samples, folds, fold, seed), task)


def patients_of(samples: pd.DataFrame, split: pd.Series, part: str) -> set[str]:
    return set(samples["patient"].to_numpy()[split.loc[samples["id"]].to_numpy() == part])


counts = st.lists(st.integers(1, 9), min_size=6, max_size=20)


# --- what holds for every data set --------------------------------------------------------------------------------


@settings(max_examples=30)
@given(normal=counts, stroke=counts, folds=st.integers(1, 6), seed=st.integers(0, 2**40))
def test_patients_classes_and_coverage(normal: list[int], stroke: list[int], folds: int, seed: int) -> None:
    samples = cohort(normal, stroke)
    tested: list[str] = []
    whole = split_table(samples, folds, seed)
    for fold in range(folds):
        split = whole[whole["fold"] == fold].set_index("id")["split"]
        assert list(split.index) == sorted(samples["id"])
        parts = [patients_of(samples, split, part) for part in SPLITS]
        assert sum(map(len, parts)) == len(normal) + len(stroke)  # none in two, none forgotten
        for part in parts:
            assert {name[0] for name in part} == {"n", "s"}
        tested += sorted(parts[2])
    if folds > 1:
        assert len(tested) == len(set(tested)) == len(normal) + len(stroke)


@settings(max_examples=20)
@given(
    normal=st.lists(
        st.integers(8, 20), min_size=30, max_size=40
    ),  # enough that class presence never decides a cut
    stroke=st.lists(st.integers(8, 20), min_size=30, max_size=40),
    seed=st.integers(0, 1000),
    fractions=st.sampled_from([(0.15, 0.15), (0.1, 0.2), (0.3, 0.1)]),
)
def test_shares_are_as_near_as_whole_patients_allow(
    normal: list[int], stroke: list[int], seed: int, fractions: tuple[float, float]
) -> None:
    samples = cohort(normal, stroke)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strata, "TEST_FRACTION", fractions[0])
        patch.setattr(strata, "VAL_FRACTION", fractions[1])
        counted = counted_of(samples, seed=seed)
    largest = max(normal + stroke)
    for part, fraction in zip(("test", "val"), fractions, strict=True):
        # The last cut rounds to the nearer end of one patient; each class has at most one such error more.
        assert abs(counted[part]["samples"] - fraction * len(samples)) <= largest / 2
        assert abs(counted[part]["stroke"] - fraction * sum(stroke)) <= largest
        assert abs(counted[part]["normal"] - fraction * sum(normal)) <= largest


def test_what_one_class_lacks_the_other_makes_up() -> None:
    """15 % of 34 patients are 5.1: 5 with a stroke, then 5.2 healthy wanted; of 23 they are 3.45: 3, then 3.9."""
    for size, expected in ((34, (5, 5)), (23, (3, 4))):
        counted = counted_of(cohort([20] * size, [20] * size))
        for part in ("test", "val"):
            assert (counted[part]["stroke"], counted[part]["normal"]) == tuple(20 * n for n in expected)
            assert counted[part]["patients"] == sum(expected)
    for fold in range(4):  # 8.5 patients of each class wanted: 8 of one and 9 of the other
        counted = counted_of(cohort([20] * 34, [20] * 34), folds=4, fold=fold)
        assert counted["test"]["patients"] == 17


@settings(max_examples=20)
@given(normal=counts, stroke=counts, seed=st.integers(0, 1000))
def test_folds_are_about_equal(normal: list[int], stroke: list[int], seed: int) -> None:
    samples = cohort(normal * 3, stroke * 3)
    largest = max(normal + stroke)
    for fold in range(3):
        counted = counted_of(samples, BINARY, 3, fold, seed)
        assert abs(counted["test"]["samples"] - len(samples) / 3) <= largest
        assert abs(counted["test"]["stroke"] - sum(stroke)) <= 2 * largest
        assert abs(counted["val"]["samples"] - VAL_FRACTION * len(samples)) <= largest


@settings(max_examples=20)
@given(normal=counts, stroke=counts, folds=st.integers(1, 5), shuffle=st.randoms(use_true_random=False))
def test_row_order_paths_and_content_do_not_matter(
    normal: list[int], stroke: list[int], folds: int, shuffle: object
) -> None:
    samples = cohort(normal, stroke)
    order = np.arange(len(samples))
    shuffle.shuffle(order)  # type: ignore[attr-defined]
    shuffled = samples.iloc[order].assign(path="/elsewhere/x.png", sha256="f" * 64)
    pd.testing.assert_frame_equal(split_table(shuffled, folds, 3), split_table(samples, folds, 3))


@settings(max_examples=25)
@given(size=st.integers(25, 40), folds=st.integers(1, 5), seed=st.integers(0, 1000))
def test_a_new_patient_moves_only_those_next_to_a_cut(size: int, folds: int, seed: int) -> None:
    before = cohort([2] * size, [2] * size)
    after = cohort([2] * size, [2] * (size + 1))  # s{size} is new
    tables = [split_table(samples, folds, seed) for samples in (before, after)]
    for fold in range(folds):
        old, new = (whole[whole["fold"] == fold].set_index("id")["split"] for whole in tables)
        moved = {str(name).split("/")[0] for name in old.index if old[name] != new[name]}
        # Three cuts a class (start and end of test, end of validation), each moved by at most one patient of the new
        # one's own size, and by one more where the carried rounding tips over; a shuffle would move a third.
        assert len(moved) <= 3 * 2 * 2


# --- the seed ----------------------------------------------------------------------------------------------------


def test_the_seed_decides_and_nothing_else() -> None:
    samples = cohort([9] * 30, [11] * 20)
    digests = {split_digest(split_table(samples, 5, seed)) for seed in range(20)}
    assert len(digests) == 20


def test_a_split_once_published_stays() -> None:
    samples = cohort([3] * 9, [4] * 6)
    digest = split_digest(split_table(samples, 3, 0))
    assert digest == "dc79660829c3bbd99c8b353f623acb8bca27841343c6c51c62b6eea3d3e21d46"


def test_every_patient_is_tested_equally_often_over_seeds() -> None:
    samples = cohort([1] * 20, [1] * 20)
    tested = pd.Series(0, index=sorted(set(samples["patient"])))
    for seed in range(300):
        tested[list(patients_of(samples, split_of(samples, 1, 0, seed), "test"))] += 1
    # 3 of 20 in each class: mean 45, standard deviation sqrt(300 * 0.15 * 0.85) = 6.2; five of them either side.
    assert TEST_FRACTION == 0.15
    assert tested.between(45 - 31, 45 + 31).all()
    assert tested.mean() == pytest.approx(45)


# --- mixed and several classes ------------------------------------------------------------------------------------


def test_any_positive_slice_makes_the_patient_positive() -> None:
    patients = {f"m{k}": {"normal": 10, "stroke": 1} for k in range(10)} | {
        f"n{k}": {"normal": 11} for k in range(10)
    }
    samples = table(patients)
    for seed in range(10):
        split = split_of(samples, 5, 0, seed)
        assert sorted(name[0] for name in patients_of(samples, split, "test")) == ["m", "m", "n", "n"]


def test_kinds_of_stroke_count_as_stroke_in_the_binary_task() -> None:
    patients = {f"b{k}": {"bleeding": 4} for k in range(3)} | {f"i{k}": {"ischemia": 4} for k in range(3)}
    samples = table(patients | {f"n{k}": {"normal": 4} for k in range(6)})
    counted = counted_of(samples, BINARY, 3, 1, 0)
    assert counted["test"] == {"samples": 16, "patients": 4, "normal": 8, "stroke": 8}


def test_data_without_a_purely_normal_patient_can_be_split() -> None:
    samples = table({f"m{k}": {"normal": 5, "stroke": 3} for k in range(8)})
    counted = counted_of(samples, BINARY, 4, 2, 0)
    assert counted["test"] == {"samples": 16, "patients": 2, "normal": 10, "stroke": 6}


@settings(max_examples=20)
@given(st.lists(st.integers(7, 12), min_size=3, max_size=3), st.integers(1, 5), st.integers(0, 99))
def test_one_split_serves_every_task(sizes: list[int], folds: int, seed: int) -> None:
    """The same patients in the same parts, and every class of every task in each of them."""
    samples = table(
        {
            f"{label}{k}": {label: k % 5 + 1, "normal": 2}
            for label, n in zip(SUBTYPE.classes, sizes, strict=True)
            for k in range(n)
        }
    )
    whole = split_table(samples, folds, seed)
    for task in (BINARY, SUBTYPE, SEGMENTATION):
        rows = task_split(samples, whole, task)
        assert set(rows["task"]) == {task.name}
        pd.testing.assert_frame_equal(rows.drop(columns="task"), whole)
        for fold in range(folds):
            split = rows[rows["fold"] == fold].set_index("id")["split"]
            for counted in count_split(samples, split, task).values():
                assert all(counted[label] > 0 for label in task.classes)


@settings(max_examples=20)
@given(seed=st.integers(0, 99), folds=st.sampled_from([2, 4, 8]))
def test_the_most_severe_label_is_the_stratum(seed: int, folds: int) -> None:
    """Each kind of stroke is divided by itself: of 8 patients each, every fold tests the same number."""
    kinds = ("bleeding", "ischemia", "stroke")
    patients = {f"{kind[0]}{k}": {kind: 3, "normal": 3} for kind in kinds for k in range(8)}
    samples = table(patients | {f"n{k}": {"normal": 6} for k in range(8)})
    tested = patients_of(samples, split_of(samples, folds, 0, seed), "test")
    assert [sum(name[0] == kind for name in tested) for kind in "bisn"] == [8 // folds] * 4


def test_a_task_gets_the_rows_that_it_can_use() -> None:
    kinds = {"b": "bleeding", "i": "ischemia", "s": "stroke", "n": "normal"}
    samples = table({f"{letter}{k}": {label: 3} for letter, label in kinds.items() for k in range(6)})
    samples.loc[samples["id"].isin(["b0/bleeding0", "n1/normal2"]), "mask"] = ""
    whole = split_table(samples, 2, 0)
    rows = {task.name: task_split(samples, whole, task) for task in (BINARY, SUBTYPE, SEGMENTATION)}
    assert len(rows["binary"]) == len(whole) == 2 * 72
    assert {name[0] for name in rows["subtype"]["id"]} == {"b", "i", "n"}
    assert set(whole["id"]) - set(rows["segmentation"]["id"]) == {"b0/bleeding0", "n1/normal2"}
    for table_ in rows.values():
        assert list(table_.columns) == ["id", "fold", "split", "task"]
        parts = whole.set_index(["fold", "id"])["split"]
        assert table_.set_index(["fold", "id"])["split"].equals(
            parts.loc[list(zip(table_["fold"], table_["id"], strict=True))]
        )


# --- parts that the data set gives --------------------------------------------------------------------------------


def given_split(source: str = "given") -> pd.DataFrame:
    """A data set whose parts are given: two healthy patients and two with a stroke in each."""
    return pd.concat(
        [
            table(
                {f"{source}-{part}-n{k}": {"normal": 2}, f"{source}-{part}-s{k}": {"stroke": 2}},
                split=part,
                source=source,
            )
            for part in SPLITS
            for k in range(2)
        ],
        ignore_index=True,
    )


def test_a_given_split_is_kept() -> None:
    samples = given_split()
    split = split_of(samples, seed=7)
    assert split.to_dict() == dict(zip(samples["id"], samples["split"], strict=True))
    task_split(samples, split_table(samples, 1, 7), BINARY)
    assert patients_on_two_sides(samples) == 0
    with pytest.raises(StudyError, match=r"gives its own split .* folds \(=3\) must be 1"):
        split_table(samples, 3, 0)


def test_half_a_given_split_is_refused() -> None:
    samples = given_split()
    samples.loc[5, "split"] = ""
    with pytest.raises(
        StudyError, match=f"'given' gives a part to 23 of its 24 samples, but none to {samples['id'][5]!r}"
    ):
        split_table(samples, 1, 0)


def test_a_given_and_a_drawn_data_set_stand_side_by_side() -> None:
    """The drawn one is drawn as it would be alone; a patient of both follows what is given."""
    alone = cohort([3] * 8, [3] * 8)
    both = pd.concat([given_split(), alone], ignore_index=True)
    drawn = split_of(alone)
    assert split_of(both)[drawn.index].to_dict() == drawn.to_dict()
    known = [("n0", "train"), ("n1", "val"), ("s0", "test")]
    for patient, part in known:
        both.loc[both["patient"] == patient, "patient"] = f"given-{part}-n0"
    split = split_of(both)
    for patient, part in known:
        assert set(split[both.loc[both["id"].str.startswith(f"{patient}/"), "id"]]) == {part}
    assert patients_on_two_sides(both) == 0


def test_patients_on_two_sides_are_counted_not_refused() -> None:
    samples = given_split()
    samples.loc[samples["patient"] == "given-val-n0", "patient"] = "given-train-n0"
    samples.loc[samples["patient"] == "given-test-s0", "patient"] = "given-train-s1"
    samples.loc[samples["patient"] == "given-test-n0", "patient"] = "given-train-n0"  # on all three
    assert patients_on_two_sides(samples) == 2
    split_table(samples, 1, 0)
    more = pd.concat([samples, table({"given-train-s0": {"stroke": 2}}, split="external")], ignore_index=True)
    more["id"] = [f"{k}" for k in range(len(more))]
    assert patients_on_two_sides(more) == 3
    inner = cohort([2] * 5, [2] * 5)
    outer = table({"n0": {"normal": 1}, "x": {"stroke": 1}}, split="external").assign(id=["x/0", "x/1"])
    assert patients_on_two_sides(inner) == 0
    assert patients_on_two_sides(pd.concat([inner, outer], ignore_index=True)) == 1


@pytest.mark.parametrize("folds", [1, 3])
def test_external_samples_are_in_every_fold_and_change_nothing(folds: int) -> None:
    inner = cohort([3] * 9, [4] * 9)
    outer = table({"x": {"normal": 2}, "y": {"stroke": 3}}, split="external", source="outside")
    samples = pd.concat([inner, outer], ignore_index=True)
    whole = split_table(samples, folds, 1)
    alone = split_table(inner, folds, 1)
    pd.testing.assert_frame_equal(whole[whole["split"] != "external"].reset_index(drop=True), alone)
    external = whole[whole["split"] == "external"]
    assert sorted(external["id"]) == sorted([*outer["id"]] * folds)
    rows = task_split(samples, whole, BINARY)
    counted = count_split(samples, rows[rows["fold"] == 0].set_index("id")["split"], BINARY)
    assert counted["external"] == {"samples": 5, "patients": 2, "normal": 2, "stroke": 3}
    assert list(counted) == [*SPLITS, "external"]
    with pytest.raises(StudyError, match="all 5 samples are external"):
        split_table(outer, 1, 0)


def test_external_samples_serve_a_task_only_with_all_its_classes() -> None:
    """Of an external set labelled normal or stroke, three classes would be judged on the normals alone."""
    kinds = ("bleeding", "ischemia", "normal")
    inner = table({f"{kind}{k}": {kind: 2} for kind in kinds for k in range(6)})
    outer = table({"x": {"normal": 2}, "y": {"stroke": 3}}, split="external")
    outer.loc[outer["label"] == "stroke", "mask"] = ""
    samples = pd.concat([inner, outer], ignore_index=True)
    whole = split_table(samples, 2, 0)
    rows = {task.name: task_split(samples, whole, task) for task in (BINARY, SUBTYPE, SEGMENTATION)}
    assert (rows["binary"]["split"] == "external").sum() == 2 * 5
    for name in ("subtype", "segmentation"):  # the masks of the strokes are unknown
        assert set(rows[name]["split"]) == set(SPLITS)
        assert set(rows[name]["id"]) == set(inner["id"])
        assert list(rows[name].index) == list(range(2 * len(inner)))
    samples.loc[samples["id"] == "y/stroke1", "mask"] = "mask.png"
    assert (task_split(samples, whole, SEGMENTATION)["split"] == "external").sum() == 2 * 3


def test_external_samples_fill_no_class() -> None:
    inner = table({f"n{k}": {"normal": 2} for k in range(9)} | {f"b{k}": {"bleeding": 2} for k in range(2)})
    outer = table({f"x{k}": {"bleeding": 1} for k in range(9)}, split="external")
    samples = pd.concat([inner, outer], ignore_index=True)
    with pytest.raises(StudyError, match="2 of 'stroke'; at least 3"):
        task_split(samples, split_table(samples, 1, 0), BINARY)
    assert "2 patients have images of 'stroke'" in why_not(samples, BINARY)
    without = samples[~samples["patient"].str.startswith("b")]
    assert why_not(without, BINARY).startswith("no sample is labelled 'stroke'")
    assert why_not(without, SEGMENTATION) == "no lesion mask is known"


def test_a_given_part_without_a_class_is_named() -> None:
    samples = given_split()
    samples = samples[~samples["patient"].str.startswith("given-val-s")].reset_index(drop=True)
    with pytest.raises(StudyError, match="the part 'val' of the given split has no image of 'stroke'"):
        task_split(samples, split_table(samples, 1, 0), BINARY)


def test_a_class_that_many_patients_show_and_a_part_does_not() -> None:
    """Masks are no stratum: those of the first four strokes in the random order may all be trained on."""
    samples = cohort([2] * 20, [2] * 20)
    whole = split_table(samples, 1, 0)
    trained = sorted(whole.loc[whole["split"].eq("train") & whole["id"].str.startswith("s"), "id"])[:8]
    samples.loc[samples["label"].eq("stroke") & ~samples["id"].isin(trained), "mask"] = NO_LESION
    with pytest.raises(
        StudyError, match=r"the part 'val' of fold 0 has no image of 'lesion'.* though 4 patients"
    ):
        task_split(samples, whole, SEGMENTATION)


# --- why a task cannot be served ----------------------------------------------------------------------------------


def test_data_that_serve_every_task() -> None:
    samples = table({f"{label}{k}": {label: 1} for label in SUBTYPE.classes for k in range(3)})
    assert [why_not(samples, task) for task in (BINARY, SUBTYPE, SEGMENTATION)] == ["", "", ""]
    assert why_not(given_split(), BINARY) == ""


@pytest.mark.parametrize(
    ("labels", "task", "reason"),
    [
        (("normal", "stroke"), SUBTYPE, "no sample is labelled 'bleeding'"),
        (("normal", "bleeding"), SUBTYPE, "no sample is labelled 'ischemia'"),
        (("bleeding", "ischemia"), BINARY, "no sample is labelled 'normal'"),
        (("normal",), BINARY, "no sample is labelled 'stroke' or 'bleeding' or 'ischemia'"),
        (("bleeding",), SEGMENTATION, "no sample is known to have no lesion"),
        (("normal",), SEGMENTATION, "no lesion mask is known"),
    ],
)
def test_why_not(labels: tuple[str, ...], task: Task, reason: str) -> None:
    samples = table({f"{label}{k}": {label: 2} for label in labels for k in range(5)})
    assert why_not(samples, task) == reason


def test_why_not_without_masks() -> None:
    assert why_not(cohort([1] * 5, [1] * 5).assign(mask=""), SEGMENTATION) == "no lesion mask is known"


@pytest.mark.parametrize(("patients", "words"), [(1, "only one patient has"), (2, "2 patients have")])
def test_too_few_patients_are_a_reason(patients: int, words: str) -> None:
    samples = cohort([3] * 9, [3] * patients)
    assert why_not(samples, BINARY) == (
        f"{words} images of 'stroke'; training, validation and test need one each"
    )


# --- tables and counts --------------------------------------------------------------------------------------------


def test_the_table_has_every_sample_in_every_fold() -> None:
    samples = cohort([4] * 9, [6] * 7).iloc[::-1]
    whole = split_table(samples, 3, 5)
    assert list(whole.columns) == ["id", "fold", "split"]
    assert len(whole) == 3 * len(samples)
    expected = [(fold, name) for fold in range(3) for name in sorted(samples["id"])]
    assert list(zip(whole["fold"], whole["id"], strict=True)) == expected
    assert set(whole["split"]) == set(SPLITS)


def test_the_digest_ignores_order_and_sees_every_change(tmp_path: Path) -> None:
    whole = split_table(cohort([4] * 5, [6] * 5), 2, 0)
    digest = split_digest(whole)
    assert split_digest(whole.sample(frac=1, random_state=1)) == digest
    whole.to_csv(tmp_path / "split.csv", index=False)
    assert split_digest(pd.read_csv(tmp_path / "split.csv")) == digest
    changed = whole.copy()
    changed.loc[0, "split"] = "val" if whole.loc[0, "split"] != "val" else "test"
    assert split_digest(changed) != digest
    assert split_digest(whole.iloc[1:]) != digest


def test_counts() -> None:
    samples = table({"a": {"normal": 3, "stroke": 1}, "b": {"normal": 2}, "c": {"stroke": 5}})
    split = pd.Series({name: {"a": "train", "b": "val", "c": "test"}[name[0]] for name in samples["id"]})
    counted = count_split(samples, split.sample(frac=1, random_state=0), BINARY)
    assert counted == {
        "train": {"samples": 4, "patients": 1, "normal": 3, "stroke": 1},
        "val": {"samples": 2, "patients": 1, "normal": 2, "stroke": 0},
        "test": {"samples": 5, "patients": 1, "normal": 0, "stroke": 5},
    }
    assert type(counted["train"]["samples"]) is int  # goes into JSON
    only = split[split == "test"]  # a task's split may hold a part of the samples
    assert count_split(samples, only, SEGMENTATION)["test"] == {
        "samples": 5, "patients": 1, "background": 0, "lesion": 5
    }  # fmt: skip
    assert count_split(samples, only, SEGMENTATION)["train"]["samples"] == 0


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("normal", "stroke", "folds", "found", "needed"),
    [
        ([1, 1], [1], 1, "2 of 'normal', 1 of 'stroke'", "at least 3 of each"),
        ([5, 5], [5] * 30, 1, "2 of 'normal', 30 of 'stroke'", "at least 3 of each"),
        ([5] * 30, [], 1, "30 of 'normal', 0 of 'stroke'", "at least 3 of each"),
        ([5] * 3, [5] * 9, 2, "3 of 'normal', 9 of 'stroke'", "at least 4 of each"),
        ([5] * 9, [5] * 4, 5, "9 of 'normal', 4 of 'stroke'", "at least 5 of each"),
    ],
)
def test_too_few_patients_of_a_class(
    normal: list[int], stroke: list[int], folds: int, found: str, needed: str
) -> None:
    samples = cohort(normal, stroke)
    with pytest.raises(StudyError) as caught:
        task_split(samples, split_table(samples, folds, 0), BINARY)
    assert found in str(caught.value)
    assert needed in str(caught.value)


@pytest.mark.parametrize(("patients", "folds", "least"), [(0, 1, 3), (2, 1, 3), (3, 2, 4), (4, 5, 5)])
def test_too_few_patients_whatever_their_label(patients: int, folds: int, least: int) -> None:
    with pytest.raises(StudyError, match=f"hold {patients} patients to split; at least {least} are needed"):
        split_table(cohort([3] * patients, []), folds, 0)


@pytest.mark.parametrize(("folds", "least"), [(1, 3), (2, 4), (3, 3), (4, 4), (7, 7)])
def test_the_stated_number_of_patients_is_enough(folds: int, least: int) -> None:
    for sizes in ([1] * least, [1] * (least - 1) + [50], [50] + [1] * (least - 1)):
        for seed in range(5):
            samples = cohort(sizes, sizes[::-1])
            task_split(samples, split_table(samples, folds, seed), BINARY)
    samples = cohort([1] * (least - 1), [1] * least)
    with pytest.raises(StudyError, match=f"at least {least} of each"):
        task_split(samples, split_table(samples, folds, 0), BINARY)


def test_folds_that_do_not_exist() -> None:
    for folds in (0, -2):
        with pytest.raises(StudyError, match="must be at least 1"):
            split_table(cohort([1] * 9, [1] * 9), folds, 0)


# --- real pictures ------------------------------------------------------------------------------------------------


def test_real_patients(shared_data: Path) -> None:
    samples = open_dataset(shared_data / "binary_ct")
    counted = counted_of(samples, BINARY, 1, 0, 0)
    for part in ("val", "test"):
        assert abs(counted[part]["samples"] - 0.15 * 1876) <= 20  # half of the largest patient
        assert abs(counted[part]["stroke"] - 0.15 * 697) <= 20
