"""The inventory of the data, as a document and in lines for a reader."""

import dataclasses
from pathlib import Path

import pytest
from tiny import make_row, make_study, tiny_world, write_cache, write_strokes

from common.config import Phantom
from common.data.audit import describe_audit, describe_data, mask_kind
from common.data.cache import DoubtfulMask, Unreadable, build_cache, keep_readable
from common.data.layouts import open_dataset
from common.data.phantom import phantom_samples
from common.data.samples import sample_table
from common.study import prepare_study

__all__ = ["tiny_world"]  # a fixture

ROWS = [
    make_row("a/1", "normal", "p1", mask="none", source="first"),
    make_row("a/2", "bleeding", "p1", mask="overlay:o.png", source="first"),
    make_row("b/1", "bleeding", "p2", mask="m.png", split="train", source="first"),
    make_row("b/2", "bleeding", "p2", split="test", source="first"),
    make_row("c/1", "stroke", "p3", mask="phantom:1", sha256="ab" * 32, patient_from="similarity", source="other"),
    make_row("c/2", "stroke", "p4", mask="none", sha256="ab" * 32, patient_from="similarity", source="other"),
]  # fmt: skip


def test_everything_is_counted() -> None:
    samples = sample_table(ROWS)
    audit = describe_data(samples, samples.drop(index=0), [], [{"task": "subtype", "reason": "none"}])
    assert (audit["found"], audit["used"], audit["patients"]) == (6, 5, 4)
    assert audit["sources"] == ["first", "other"]
    assert audit["patients_from"] == {"name": 3, "similarity": 2}
    assert audit["labels"] == {"bleeding": 3, "stroke": 2}
    assert audit["masks"] == {"drawn": 1, "file": 1, "none": 1, "overlay": 1, "unknown": 1}
    assert audit["patients_with_several_labels"] == 0  # the normal slice of p1 is not used
    assert audit["patients_on_two_sides"] == 1
    assert audit["identical_files"] == 2
    assert audit["skipped_tasks"] == [{"task": "subtype", "reason": "none"}]
    whole = describe_data(samples, samples, [], [])
    assert whole["patients_with_several_labels"] == 1
    assert whole["masks"]["none"] == 2


@pytest.mark.parametrize(
    ("mask", "kind"),
    [
        ("", "unknown"),
        ("none", "none"),
        ("overlay:../a/none.png", "overlay"),
        ("phantom:20/3", "drawn"),
        ("../masks/phantom.png", "file"),
        ("none.png", "file"),
    ],
)
def test_where_a_mask_comes_from(mask: str, kind: str) -> None:
    assert mask_kind(mask) == kind


def test_the_phantoms_masks_are_drawn() -> None:
    samples = phantom_samples(Phantom(patients=9, image_size=32, slices_min=2, slices_max=3))
    audit = describe_data(samples, samples, [], [])
    assert audit["masks"].keys() == {"drawn", "none"}
    assert audit["masks"]["none"] == audit["labels"]["normal"]
    assert audit["patients_from"] == {"phantom": len(samples)}


def test_what_several_caches_could_not_read_is_listed_once(tmp_path: Path) -> None:
    """A picture is no more unreadable for being asked for in two sizes."""
    data = write_strokes(tmp_path / "strokes")
    (data / "Normal" / "PNG" / "10020.png").write_bytes(b"")
    for name in ("10000", "10001"):
        (data / "Bleeding" / "MASKS" / f"{name}.png").write_bytes(b"")
    samples = open_dataset(data)
    caches = [
        build_cache(samples, size, tmp_path / "cache", masks=masks)
        for size, masks in ((16, True), (8, False))
    ]
    readable = samples
    for cache in caches:
        readable = keep_readable(readable, cache)
    audit = describe_data(samples, readable, caches, [])
    assert [row["id"] for row in audit["unreadable"]] == ["Normal/10020"]
    assert [row["id"] for row in audit["unreadable_masks"]] == ["Bleeding/10000", "Bleeding/10001"]
    assert audit["masks"] == {"file": 18, "none": 9, "unknown": 2}
    lines = list(describe_audit(audit))
    assert lines[0] == "29 images of 15 patients: {'bleeding': 10, 'ischemia': 10, 'normal': 9}"
    assert len(lines) == 4
    assert lines[1].startswith("left out: Normal/10020.png is empty")
    assert lines[2].startswith("left out: the lesion mask Bleeding/10000.png is empty")


def test_masks_in_doubt_are_listed_once(tmp_path: Path) -> None:
    samples = sample_table(ROWS)
    cache = write_cache(tmp_path, samples)
    doubted = (
        DoubtfulMask("a/2", "saturation", 0.2, "two outlines"),
        DoubtfulMask("b/1", "difference", 0.4, ""),
    )
    caches = [dataclasses.replace(cache, doubtful_masks=doubted[:count]) for count in (1, 2)]
    audit = describe_data(samples, samples, caches, [])
    assert audit["doubtful_masks"] == [
        {"id": "a/2", "method": "saturation", "confidence": 0.2, "note": "two outlines"},
        {"id": "b/1", "method": "difference", "confidence": 0.4, "note": ""},
    ]
    *_, line = describe_audit(audit)
    assert line.startswith("used although doubtful (confidence below 0.5): 2 painted masks, e.g. of a/2;")


AUDIT = {
    "used": 7,
    "patients": 3,
    "labels": {"normal": 4, "stroke": 3},
    "patients_from": {"name": 7},
    "skipped_tasks": [],
    "unreadable": [],
    "unreadable_masks": [],
    "doubtful_masks": [],
}


def test_a_reader_is_told_what_matters() -> None:
    assert list(describe_audit(AUDIT)) == ["7 images of 3 patients: {'normal': 4, 'stroke': 3}"]
    changes = {
        "patients_from": {"name": 5, "similarity": 2},
        "skipped_tasks": [{"task": "subtype", "reason": "no sample is labelled 'bleeding'"}],
        "unreadable": [vars(Unreadable("a", "a.png", "a.png is empty; copy it again"))],
        "unreadable_masks": [vars(Unreadable("b", "b.png", "the lesion mask b.png is empty"))],
    }
    _, *lines = describe_audit(AUDIT | changes)
    assert "slices of one head may still stand on both sides" in lines[0]
    assert lines[1:] == [
        "task subtype is left out: no sample is labelled 'bleeding'",
        "left out: a.png is empty; copy it again",
        "left out: the lesion mask b.png is empty",
    ]


@pytest.mark.usefixtures("tiny_world")
def test_patients_that_were_guessed_are_told(tmp_path: Path) -> None:
    data = write_strokes(tmp_path / "strokes", patients=18)
    (data / "patients.csv").unlink()
    audit = prepare_study(make_study(data), tmp_path / "study").audit()
    assert audit["patients_from"] == {"similarity": 36}
    assert any("grouped by similarity" in line for line in describe_audit(audit))
