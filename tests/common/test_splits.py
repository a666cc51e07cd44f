"""Whole patients, every class in every part, shares as wanted, and nothing but the seed decides."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.config import SPLITS, TASKS, Task
from common.data.layouts import open_dataset
from common.data.samples import sample_table
from common.data.splits import count_split, split_digest, split_samples, split_table
from common.errors import StudyError

BINARY = TASKS["binary"]
SUBTYPE = Task("subtype", ("bleeding", "ischemia", "normal"), 0.15, 0.2, primary_metric="macro_auroc_score")


def table(patients: dict[str, dict[str, int]]) -> pd.DataFrame:
    """Patient -> label -> number of slices."""
    return sample_table(
        [
            {
                "id": f"{name}/{label}{k}",
                "path": "",
                "label": label,
                "patient": name,
                "mask": "",
                "sha256": "",
                "source": "",
            }
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


def patients_of(samples: pd.DataFrame, split: pd.Series, part: str) -> set[str]:
    return set(samples["patient"].to_numpy()[split.loc[samples["id"]].to_numpy() == part])


counts = st.lists(st.integers(1, 20), min_size=6, max_size=25)


# --- what holds for every data set --------------------------------------------------------------------------------


@given(normal=counts, stroke=counts, folds=st.integers(1, 6), seed=st.integers(0, 2**40))
def test_patients_classes_and_coverage(normal: list[int], stroke: list[int], folds: int, seed: int) -> None:
    samples = cohort(normal, stroke)
    tested: list[str] = []
    for fold in range(folds):
        split = split_samples(samples, BINARY, folds, fold, seed)
        assert list(split.index) == list(samples["id"])
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
    test_fraction=st.sampled_from([0.1, 0.2, 0.3]),
    val_fraction=st.sampled_from([0.1, 0.15]),
)
def test_shares_are_as_near_as_whole_patients_allow(
    normal: list[int], stroke: list[int], seed: int, test_fraction: float, val_fraction: float
) -> None:
    samples = cohort(normal, stroke)
    task = dataclasses.replace(BINARY, test_fraction=test_fraction, val_fraction=val_fraction)
    counted = count_split(samples, split_samples(samples, task, 1, 0, seed), task)
    largest = max(normal + stroke)
    for part, fraction in (("test", test_fraction), ("val", val_fraction)):
        # The last cut rounds to the nearer end of one patient; each class has at most one such error more.
        assert abs(counted[part]["samples"] - fraction * len(samples)) <= largest / 2
        assert abs(counted[part]["stroke"] - fraction * sum(stroke)) <= largest
        assert abs(counted[part]["normal"] - fraction * sum(normal)) <= largest


def test_what_one_class_lacks_the_other_makes_up() -> None:
    samples = cohort(
        [20] * 34, [20] * 34
    )  # 68 of each wanted: 60 strokes, then 76 normals wanted, which gives 80
    counted = count_split(samples, split_samples(samples, BINARY, 1, 0, 0), BINARY)
    for part in ("test", "val"):
        assert counted[part] == {"samples": 140, "patients": 7, "normal": 80, "stroke": 60}
    for fold in range(4):  # 8.5 patients of each class wanted: 8 of one and 9 of the other
        counted = count_split(samples, split_samples(samples, BINARY, 4, fold, 0), BINARY)
        assert counted["test"]["patients"] == 17


@settings(max_examples=20)
@given(normal=counts, stroke=counts, seed=st.integers(0, 1000))
def test_folds_are_about_equal(normal: list[int], stroke: list[int], seed: int) -> None:
    samples = cohort(normal * 3, stroke * 3)
    largest = max(normal + stroke)
    for fold in range(3):
        counted = count_split(samples, split_samples(samples, BINARY, 3, fold, seed), BINARY)
        assert abs(counted["test"]["samples"] - len(samples) / 3) <= largest
        assert abs(counted["test"]["stroke"] - sum(stroke)) <= 2 * largest
        assert abs(counted["val"]["samples"] - 0.1 * len(samples)) <= largest


@given(normal=counts, stroke=counts, folds=st.integers(1, 5), shuffle=st.randoms(use_true_random=False))
def test_row_order_paths_and_content_do_not_matter(
    normal: list[int], stroke: list[int], folds: int, shuffle: object
) -> None:
    samples = cohort(normal, stroke)
    order = np.arange(len(samples))
    shuffle.shuffle(order)  # type: ignore[attr-defined]
    shuffled = samples.iloc[order].assign(path="/elsewhere/x.png", sha256="f" * 64)
    pd.testing.assert_frame_equal(
        split_table(shuffled, BINARY, folds, 3), split_table(samples, BINARY, folds, 3)
    )
    one = split_samples(shuffled, BINARY, folds, 0, 3)
    assert list(one.index) == list(shuffled["id"])
    assert one.to_dict() == split_samples(samples, BINARY, folds, 0, 3).to_dict()


@settings(max_examples=25)
@given(size=st.integers(25, 40), folds=st.integers(1, 5), seed=st.integers(0, 1000))
def test_a_new_patient_moves_only_those_next_to_a_cut(size: int, folds: int, seed: int) -> None:
    before = cohort([2] * size, [2] * size)
    after = cohort([2] * size, [2] * (size + 1))  # s{size} is new
    for fold in range(folds):
        old, new = (split_samples(samples, BINARY, folds, fold, seed) for samples in (before, after))
        moved = {name.split("/")[0] for name in old.index if old[name] != new[name]}
        # Three cuts a class (start and end of test, end of validation), each moved by at most one patient of the new
        # one's own size, and by one more where the carried rounding tips over; a shuffle would move a third.
        assert len(moved) <= 3 * 2 * 2


# --- the seed ----------------------------------------------------------------------------------------------------


def test_the_seed_decides_and_nothing_else() -> None:
    samples = cohort([9] * 30, [11] * 20)
    digests = {split_digest(split_table(samples, BINARY, 5, seed)) for seed in range(20)}
    assert len(digests) == 20
    first = split_samples(samples, BINARY, 1, 0, 0)
    again = split_samples(samples.copy(), BINARY, 1, 0, 0)
    assert first.equals(again)


def test_a_split_once_published_stays() -> None:
    samples = cohort([3] * 9, [4] * 6)
    digest = split_digest(split_table(samples, BINARY, 3, 0))
    assert digest == "dc79660829c3bbd99c8b353f623acb8bca27841343c6c51c62b6eea3d3e21d46"


def test_every_patient_is_tested_equally_often_over_seeds() -> None:
    samples = cohort([5] * 20, [5] * 20)
    tested = pd.Series(0, index=sorted(set(samples["patient"])))
    for seed in range(300):
        tested[list(patients_of(samples, split_samples(samples, BINARY, 1, 0, seed), "test"))] += 1
    # 2 of 20 in each class: mean 30, standard deviation sqrt(300 * 0.1 * 0.9) = 5.2; five of them either side.
    assert tested.between(30 - 26, 30 + 26).all()
    assert tested.mean() == pytest.approx(30)


# --- mixed and several classes ------------------------------------------------------------------------------------


def test_any_positive_slice_makes_the_patient_positive() -> None:
    patients = {f"m{k}": {"normal": 10, "stroke": 1} for k in range(10)} | {
        f"n{k}": {"normal": 11} for k in range(10)
    }
    samples = table(patients)
    for seed in range(10):
        split = split_samples(samples, BINARY, 5, 0, seed)
        assert sorted(name[0] for name in patients_of(samples, split, "test")) == ["m", "m", "n", "n"]


def test_kinds_of_stroke_count_as_stroke_in_the_binary_task() -> None:
    patients = {f"b{k}": {"bleeding": 4} for k in range(3)} | {f"i{k}": {"ischemia": 4} for k in range(3)}
    samples = table(patients | {f"n{k}": {"normal": 4} for k in range(6)})
    counted = count_split(samples, split_samples(samples, BINARY, 3, 1, 0), BINARY)
    assert counted["test"] == {"samples": 16, "patients": 4, "normal": 8, "stroke": 8}


def test_data_without_a_purely_normal_patient_can_be_split() -> None:
    samples = table({f"m{k}": {"normal": 5, "stroke": 3} for k in range(8)})
    counted = count_split(samples, split_samples(samples, BINARY, 4, 2, 0), BINARY)
    assert counted["test"] == {"samples": 16, "patients": 2, "normal": 10, "stroke": 6}


@given(st.lists(st.integers(5, 12), min_size=3, max_size=3), st.integers(1, 5), st.integers(0, 99))
def test_three_classes(sizes: list[int], folds: int, seed: int) -> None:
    samples = table(
        {
            f"{label}{k}": {label: k % 5 + 1}
            for label, n in zip(SUBTYPE.classes, sizes, strict=True)
            for k in range(n)
        }
    )
    for fold in range(folds):
        split = split_samples(samples, SUBTYPE, folds, fold, seed)
        for counted in count_split(samples, split, SUBTYPE).values():
            assert all(counted[label] > 0 for label in SUBTYPE.classes)


# --- tables and counts --------------------------------------------------------------------------------------------


def test_the_table_holds_what_split_samples_gives() -> None:
    samples = cohort([4] * 9, [6] * 7).iloc[::-1]
    whole = split_table(samples, BINARY, 3, 5)
    assert list(whole.columns) == ["id", "fold", "split"]
    assert len(whole) == 3 * len(samples)
    for fold in range(3):
        rows = whole[whole["fold"] == fold].set_index("id")["split"]
        assert rows.to_dict() == split_samples(samples, BINARY, 3, fold, 5).to_dict()


def test_the_digest_ignores_order_and_sees_every_change(tmp_path: Path) -> None:
    whole = split_table(cohort([4] * 5, [6] * 5), BINARY, 2, 0)
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


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("normal", "stroke", "folds", "found", "needed"),
    [
        ([1], [1], 1, "1 of 'normal', 1 of 'stroke'", "at least 3 of each"),
        ([5, 5], [5] * 30, 1, "2 of 'normal', 30 of 'stroke'", "at least 3 of each"),
        ([5] * 30, [], 1, "30 of 'normal', 0 of 'stroke'", "at least 3 of each"),
        ([5] * 3, [5] * 9, 2, "3 of 'normal', 9 of 'stroke'", "at least 4 of each"),
        ([5] * 9, [5] * 4, 5, "9 of 'normal', 4 of 'stroke'", "at least 5 of each"),
        ([], [], 1, "0 of 'normal', 0 of 'stroke'", "at least 3 of each"),
    ],
)
def test_too_few_patients(normal: list[int], stroke: list[int], folds: int, found: str, needed: str) -> None:
    samples = cohort(normal, stroke)
    for call in (
        lambda: split_samples(samples, BINARY, folds, 0, 0),
        lambda: split_table(samples, BINARY, folds, 0),
    ):
        with pytest.raises(StudyError) as caught:
            call()
        assert found in str(caught.value)
        assert needed in str(caught.value)


@pytest.mark.parametrize(("folds", "least"), [(1, 3), (2, 4), (3, 3), (4, 4), (7, 7)])
def test_the_stated_number_of_patients_is_enough(folds: int, least: int) -> None:
    for sizes in ([1] * least, [1] * (least - 1) + [50], [50] + [1] * (least - 1)):
        for seed in range(5):
            split_table(cohort(sizes, sizes[::-1]), BINARY, folds, seed)
    with pytest.raises(StudyError, match=f"at least {least} of each"):
        split_table(cohort([1] * (least - 1), [1] * least), BINARY, folds, 0)


def test_folds_that_do_not_exist() -> None:
    samples = cohort([1] * 9, [1] * 9)
    for fold in (-1, 3):
        with pytest.raises(StudyError, match=f"fold \\(={fold}\\) does not exist"):
            split_samples(samples, BINARY, 3, fold, 0)
    for folds in (0, -2):
        with pytest.raises(StudyError, match="must be at least 1"):
            split_table(samples, BINARY, folds, 0)
        with pytest.raises(StudyError, match="must be at least 1"):
            split_samples(samples, BINARY, folds, 0, 0)


def test_a_label_that_is_no_class_of_the_task() -> None:
    with pytest.raises(StudyError, match="label 'stroke' is no class of the task 'subtype'"):
        split_table(cohort([1] * 9, [1] * 9), SUBTYPE, 1, 0)


# --- real pictures ------------------------------------------------------------------------------------------------


def test_real_patients(shared_data: Path) -> None:
    samples = open_dataset(shared_data / "binary_ct")
    counted = count_split(samples, split_samples(samples, BINARY, 1, 0, 0), BINARY)
    for part in ("val", "test"):
        assert abs(counted[part]["samples"] - 187.6) <= 20  # half of the largest patient
        assert abs(counted[part]["stroke"] - 69.7) <= 20
