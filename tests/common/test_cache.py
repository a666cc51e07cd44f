"""Decoded once, found again, never half, never silently wrong."""

import argparse
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import psutil
import pytest
from memory_fixture import growth_mib
from tiny import (
    TinyFramework,
    make_mask,
    make_row,
    make_samples,
    make_study,
    tiny_world,
    write_cache,
    write_pictures,
)

from common import config, measure
from common.config import Phantom
from common.data import decoding, shards
from common.data.audit import earlier_audit
from common.data.cache import Cache, build_cache, keep_readable, open_cache
from common.data.cache_build import Need, cache_need
from common.data.caches import decoding_processes, remove_abandoned, share_room
from common.data.decoding import DECODE_AHEAD, read_slice
from common.data.images import read_image, resize_image, resize_mask
from common.data.layouts import open_dataset
from common.data.phantom import Drawing, draw, phantom_samples
from common.data.samples import NO_LESION, OVERLAY, sample_table
from common.errors import StudyError
from common.options import byte_count
from common.results import pack_masks, read_json, run_directory, write_json
from common.run import execute
from common.study import prepare_study

__all__ = ["tiny_world"]  # a fixture

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def samples(tmp_path: Path) -> pd.DataFrame:
    """12 patients of 2 slices; one picture ends early, one is no picture."""
    data = write_pictures(tmp_path / "pictures")
    whole = (data / "Normal" / "4 (1).png").read_bytes()
    (data / "Normal" / "4 (1).png").write_bytes(whole[: len(whole) // 2])
    (data / "Stroke" / "7 (0).png").write_text("no picture")
    return open_dataset(data)


# --- building -----------------------------------------------------------------------------------------------------


def test_pixels_are_found_by_id_in_any_order(tmp_path: Path, samples: pd.DataFrame) -> None:
    cache = build_cache(samples, 20, tmp_path / "cache")
    path_of = samples.set_index("id")["path"]
    ids = sorted(cache.rows, reverse=True)[3:12] * 2
    slices = cache.read(ids)
    assert slices.shape == (18, 20, 20)
    for sample_id, pixels in zip(ids, slices, strict=True):
        np.testing.assert_array_equal(pixels, resize_image(read_image(path_of[sample_id]), 20))
    assert cache.read([]).shape == (0, 20, 20)


def test_unreadable_pictures_are_left_out_and_named(tmp_path: Path, samples: pd.DataFrame) -> None:
    cache = build_cache(samples, 16, tmp_path / "cache")
    assert [row.id for row in cache.unreadable] == ["Normal/4 (1)", "Stroke/7 (0)"]
    assert [row.path for row in cache.unreadable] == ["Normal/4 (1).png", "Stroke/7 (0).png"]
    for row in cache.unreadable:
        assert row.reason.startswith(f"{row.path} is ")
        assert str(tmp_path) not in row.reason
        assert row.id not in cache.rows
    assert len(cache.rows) == len(samples) - 2
    with pytest.raises(StudyError, match=r"'Stroke/7 \(0\)' is not in the cache"):
        cache.read(["Normal/0 (0)", "Stroke/7 (0)"])


def test_many_pictures_keep_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than are decoded ahead, the earlier ones slower."""
    samples = make_samples(DECODE_AHEAD * 2 + 5)
    number = {f"{sample_id}.png": k for k, sample_id in enumerate(samples["id"])}

    def read(path: str) -> np.ndarray:
        time.sleep(0.0005 * (5 - number[path] % 5))
        return np.full((16, 16), number[path], dtype=np.uint8)

    monkeypatch.setattr(decoding, "read_slice", read)
    told: list[tuple[int, int]] = []
    cache = build_cache(
        samples, 16, tmp_path / "cache", threads=4, on_progress=lambda done, total: told.append((done, total))
    )
    values = cache.read(samples["id"].tolist())[:, 0, 0]
    np.testing.assert_array_equal(values, np.arange(len(samples)))
    assert told == [(done, len(samples)) for done in range(1, len(samples) + 1)]


def test_the_phantom_is_drawn_into_the_cache(tmp_path: Path) -> None:
    samples = phantom_samples(Phantom(patients=1, image_size=48, slices_min=2, slices_max=2))
    cache = build_cache(samples, 32, tmp_path / "cache")
    path = samples["path"].iloc[1]
    expected = resize_image(read_slice(path), 32)
    np.testing.assert_array_equal(cache.read([samples["id"].iloc[1]])[0], expected)


def test_any_tool_can_map_the_array(tmp_path: Path, samples: pd.DataFrame) -> None:
    cache = build_cache(samples, 16, tmp_path / "cache")
    mapped = np.load(cache.directory / "images-00000.npy", mmap_mode="r")
    assert mapped.shape == (len(samples), 16, 16)
    assert mapped.dtype == np.uint8
    ids = list(cache.rows)
    np.testing.assert_array_equal(mapped[[cache.rows[name] for name in ids]], cache.read(ids))


# --- masks --------------------------------------------------------------------------------------------------------


@pytest.fixture
def masked(tmp_path: Path) -> pd.DataFrame:
    """One sample for each thing that a mask can be; pictures of 32 px."""
    folder = tmp_path / "masked"
    folder.mkdir()
    names = ("file", "empty", "none", "unknown", "damaged", "other-size", "no-picture")
    for name in names:
        cv2.imwrite(
            str(folder / f"{name}.png"), np.arange(1024, dtype=np.uint16).reshape(32, 32).astype(np.uint8)
        )
    lesion = make_mask("stroke", 32)
    for name in ("file", "no-picture"):
        cv2.imwrite(str(folder / f"{name}.mask.png"), lesion.astype(np.uint8) * 255)
    cv2.imwrite(str(folder / "empty.mask.png"), np.zeros((32, 32), dtype=np.uint8))
    cv2.imwrite(str(folder / "other-size.mask.png"), np.ones((32, 30), dtype=np.uint8))
    (folder / "damaged.mask.png").write_text("no picture")
    (folder / "no-picture.png").write_text("no picture")
    rows = []
    for name in names:
        source = {"none": NO_LESION, "unknown": ""}.get(name, str(folder / f"{name}.mask.png"))
        digest = "" if name in ("none", "unknown") else f"mask of {name}"
        path = str(folder / f"{name}.png")
        rows.append(make_row(f"S/{name}", "stroke", name, path=path, mask=source, mask_sha256=digest))
    return sample_table(rows)


def test_masks_are_found_by_id(tmp_path: Path, masked: pd.DataFrame) -> None:
    cache = build_cache(masked, 16, tmp_path / "cache", masks=True)
    lesion, nothing = make_mask("stroke", 16), np.zeros((16, 16), dtype=bool)
    read = cache.read_masks(["S/none", "S/file", "S/empty", "S/file"])
    assert read.dtype == np.bool_
    np.testing.assert_array_equal(read, [nothing, lesion, nothing, lesion])
    assert cache.read_masks([]).shape == (0, 16, 16)
    assert cache.read(["S/damaged", "S/other-size"]).shape == (2, 16, 16)  # their pictures are there


@pytest.mark.parametrize("name", ["unknown", "damaged", "other-size"])
def test_a_mask_that_is_not_known_is_never_read_as_empty(
    tmp_path: Path, masked: pd.DataFrame, name: str
) -> None:
    cache = build_cache(masked, 16, tmp_path / "cache", masks=True)
    with pytest.raises(StudyError, match=f"lesion mask of sample 'S/{name}' is not known"):
        cache.read_masks(["S/file", f"S/{name}"])


def test_unreadable_masks_are_named_and_become_unknown(tmp_path: Path, masked: pd.DataFrame) -> None:
    cache = build_cache(masked, 16, tmp_path / "cache", masks=True)
    assert [row.id for row in cache.unreadable] == ["S/no-picture"]
    assert [row.id for row in cache.unreadable_masks] == ["S/damaged", "S/other-size"]
    for row in cache.unreadable_masks:
        assert row.path == f"{row.id}.mask.png"
        assert row.reason.startswith(f"the lesion mask {row.path} is ")
        assert str(tmp_path) not in row.reason
    assert "30 x 32 px" in cache.unreadable_masks[1].reason
    readable = keep_readable(masked, cache).set_index("id")
    assert list(readable.index) == ["S/damaged", "S/empty", "S/file", "S/none", "S/other-size", "S/unknown"]
    before = masked.set_index("id")
    for name in ("S/damaged", "S/other-size", "S/unknown"):
        assert tuple(readable.loc[name, ["mask", "mask_sha256"]]) == ("", "")
    assert readable.loc["S/empty", "mask"] == readable.loc["S/none", "mask"] == NO_LESION
    assert readable.loc["S/file", "mask"] == before.loc["S/file", "mask"]
    assert readable.loc["S/file", "mask_sha256"] == "mask of file"
    assert before.loc["S/damaged", "mask"] != ""  # the table given is not changed


def test_a_cache_without_masks_changes_no_mask(tmp_path: Path, masked: pd.DataFrame) -> None:
    cache = build_cache(masked, 16, tmp_path / "cache")
    readable = keep_readable(masked, cache)
    expected = masked[masked["id"] != "S/no-picture"].reset_index(drop=True)
    pd.testing.assert_frame_equal(readable, expected)
    with pytest.raises(StudyError, match="holds no masks"):
        cache.read_masks(["S/file"])


def test_masks_asked_for_later_make_a_new_cache(tmp_path: Path, masked: pd.DataFrame) -> None:
    without = build_cache(masked, 16, tmp_path / "cache")
    with_masks = build_cache(masked, 16, tmp_path / "cache", masks=True)
    assert without.directory != with_masks.directory
    assert without.sha256 == with_masks.sha256  # the pixels are the same
    assert without.masks_sha256 == ""
    assert build_cache(masked, 16, tmp_path / "cache", masks=True) == with_masks
    assert build_cache(masked, 16, tmp_path / "cache") == without
    # "" and "none" have no file and no digest; still they are not the same.
    learned = masked.assign(mask=masked["mask"].replace("", NO_LESION))
    assert not build_cache(learned, 16, tmp_path / "cache", masks=True).read_masks(["S/unknown"]).any()


def test_the_digest_of_the_masks_is_another(tmp_path: Path, masked: pd.DataFrame) -> None:
    before = build_cache(masked, 16, tmp_path / "before", masks=True)
    mask = tmp_path / "masked" / "file.mask.png"
    cv2.imwrite(str(mask), make_mask("ischemia", 32).astype(np.uint8) * 255)
    after = build_cache(masked, 16, tmp_path / "after", masks=True)
    assert before.sha256 == after.sha256
    assert before.masks_sha256 != after.masks_sha256


def test_the_digest_of_the_masks_tells_whose_and_unknown_from_none(
    tmp_path: Path, masked: pd.DataFrame
) -> None:
    mask = masked.set_index("id")["mask"].to_dict()
    swapped = mask | {"S/file": mask["S/empty"], "S/empty": mask["S/file"]}
    learned = mask | {"S/unknown": NO_LESION}
    repaired = mask | {"S/damaged": NO_LESION}
    digests = {
        build_cache(
            masked.assign(mask=masked["id"].map(one)), 16, tmp_path / str(number), masks=True
        ).masks_sha256
        for number, one in enumerate([mask, swapped, learned, repaired])
    }
    assert len(digests) == 4


@pytest.fixture
def painted(tmp_path: Path) -> pd.DataFrame:
    """Overlays with a lesion painted on, with nothing, and of another slice with a lesion; and an empty mask's file."""
    folder = tmp_path / "painted"
    folder.mkdir()
    plain = make_head(0)
    rows = []
    for name in ("clear", "bare", "other", "bare-file"):
        overlay = np.dstack([make_head(1) if name == "other" else plain] * 3)
        if name in ("clear", "other"):
            overlay[40:52, 40:52] = (0, 0, 255)
        cv2.imwrite(str(folder / f"{name}.png"), plain)
        cv2.imwrite(str(folder / f"{name}.overlay.png"), overlay * 0 if name == "bare-file" else overlay)
        kind = "" if name == "bare-file" else OVERLAY
        rows.append(
            make_row(
                f"Bleeding/{name}",
                "bleeding",
                name,
                path=str(folder / f"{name}.png"),
                mask=f"{kind}{folder / name}.overlay.png",
                mask_sha256=f"overlay {name}",
            )
        )
    return sample_table(rows)


def make_head(seed: int) -> np.ndarray:
    """A round head with spots of its own, 96 px."""
    head = np.zeros((96, 96), dtype=np.uint8)
    cv2.circle(head, (48, 48), 42, 110, -1)
    rng = np.random.default_rng(seed)
    for x, y in rng.integers(16, 80, size=(60, 2)).tolist():
        cv2.circle(head, (x, y), 4, int(rng.integers(40, 200)), -1)
    return head


def test_an_overlay_on_which_nothing_is_found_is_unknown_and_no_healthy_slice(
    tmp_path: Path, painted: pd.DataFrame
) -> None:
    cache = build_cache(painted, 32, tmp_path / "cache", masks=True)
    (left,) = cache.unreadable_masks
    assert (left.id, left.path) == ("Bleeding/bare", "Bleeding/bare.overlay.png")
    assert left.reason.startswith("the lesion mask Bleeding/bare.overlay.png shows nothing painted (")
    assert cache.empty_masks == {"Bleeding/bare-file"}  # a mask's file may say that there is no lesion
    with pytest.raises(StudyError, match="lesion mask of sample 'Bleeding/bare' is not known"):
        cache.read_masks(["Bleeding/bare"])
    readable = keep_readable(painted, cache).set_index("id")
    assert tuple(readable.loc["Bleeding/bare", ["mask", "mask_sha256"]]) == ("", "")
    assert cache.read_masks(["Bleeding/clear"])[0, 14:17, 14:17].all()


def test_a_mask_that_its_reader_doubts_is_used_and_named(tmp_path: Path, painted: pd.DataFrame) -> None:
    cache = build_cache(painted, 32, tmp_path / "cache", masks=True)
    (doubted,) = cache.doubtful_masks
    assert (doubted.id, doubted.method) == ("Bleeding/other", "saturation")
    assert 0 < doubted.confidence < config.OVERLAY_CONFIDENCE_MIN
    assert "looks like another slice" in doubted.note
    assert cache.read_masks(["Bleeding/other"])[0, 14:17, 14:17].all()
    assert open_cache(cache.directory) == cache


def test_a_phantom_slice_is_drawn_once_for_image_and_mask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = phantom_samples(Phantom(patients=4, image_size=48, slices_min=4, slices_max=4))
    drawn: list[str] = []

    def watch(path: str) -> Drawing:
        drawn.append(path)
        return draw(path)

    monkeypatch.setattr(decoding, "draw", watch)
    cache = build_cache(samples, 16, tmp_path / "cache", masks=True)
    assert sorted(drawn) == sorted(samples["path"])
    stroke = samples[samples["mask"] != NO_LESION]
    assert 0 < len(stroke) < len(samples)
    masks = cache.read_masks(stroke["id"].tolist())
    expected = [resize_mask(draw(path).mask, 16) for path in stroke["path"]]
    np.testing.assert_array_equal(masks, expected)
    assert masks.any(axis=(1, 2)).all()
    assert not cache.read_masks(samples.loc[samples["mask"] == NO_LESION, "id"].tolist()).any()


def test_a_lesion_of_one_pixel_survives_a_small_grid(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((256, 256), dtype=np.uint8))
    mask = np.zeros((256, 256), dtype=np.uint8)
    mask[200, 40] = 255
    cv2.imwrite(str(tmp_path / "a.mask.png"), mask)
    row = make_row("a", "stroke", "a", path=str(tmp_path / "a.png"), mask=str(tmp_path / "a.mask.png"))
    cache = build_cache(sample_table([row]), 16, tmp_path / "cache", masks=True)
    np.testing.assert_array_equal(np.argwhere(cache.read_masks(["a"])[0]), [[12, 2]])


def test_pixels_in_millimetres_are_those_of_the_grid(tmp_path: Path) -> None:
    """0.5 mm of a picture 40 px high and 64 px wide, fitted into 16 px: 64 / 16 of them make a pixel."""
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((40, 64), dtype=np.uint8))
    rows = [
        make_row(name, "normal", name, path=str(tmp_path / "a.png"), pixel_mm=mm)
        for name, mm in (("known", "0.5"), ("unknown", ""))
    ]
    for masks in (False, True):
        cache = build_cache(sample_table(rows), 16, tmp_path / "cache", masks=masks)
        np.testing.assert_array_equal(cache.pixel_mm(["unknown", "known", "known"]), [np.nan, 2.0, 2.0])


# --- finding again ------------------------------------------------------------------------------------------------


def test_a_finished_cache_is_opened_not_built(
    tmp_path: Path, samples: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build_cache(samples, 16, tmp_path / "cache")
    before = (first.directory / "images-00000.npy").stat()

    def refuse(path: str) -> np.ndarray:
        raise AssertionError(f"{path} was decoded again")

    monkeypatch.setattr(decoding, "read_slice", refuse)
    again = build_cache(samples.sample(frac=1, random_state=1), 16, tmp_path / "cache")
    after = (first.directory / "images-00000.npy").stat()
    assert again == first
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_moved_pictures_need_no_new_cache(tmp_path: Path, samples: pd.DataFrame) -> None:
    first = build_cache(samples, 16, tmp_path / "cache")
    (tmp_path / "pictures").rename(tmp_path / "moved")
    assert build_cache(open_dataset(tmp_path / "moved"), 16, tmp_path / "cache") == first


def test_other_content_or_size_is_another_cache(tmp_path: Path, samples: pd.DataFrame) -> None:
    first = build_cache(samples, 16, tmp_path / "cache")
    larger = build_cache(samples, 20, tmp_path / "cache")
    picture = tmp_path / "pictures" / "Normal" / "0 (0).png"
    pixels = cv2.imread(str(picture), cv2.IMREAD_GRAYSCALE)
    assert pixels is not None
    pixels[0, 0] ^= 1
    cv2.imwrite(str(picture), pixels)
    changed = build_cache(open_dataset(tmp_path / "pictures"), 16, tmp_path / "cache")
    assert len({first.directory, larger.directory, changed.directory}) == 3
    assert first.sha256 != changed.sha256
    assert len(build_cache(samples.iloc[:5], 16, tmp_path / "cache").rows) == 5


def test_the_digest_is_of_the_pixels(tmp_path: Path) -> None:
    """Equal pixels under other ids have an equal digest; the split and the ids have digests of their own."""
    one = open_dataset(write_pictures(tmp_path / "one", patients=4))
    two = one.assign(id=one["id"] + "x")
    caches = [build_cache(table, 16, tmp_path / "cache") for table in (one, two)]
    assert caches[0].directory != caches[1].directory
    assert caches[0].sha256 == caches[1].sha256


# --- what goes wrong ----------------------------------------------------------------------------------------------


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def shards_of_five(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five slices of 16 px a shard."""
    monkeypatch.setattr(config, "CACHE_SHARD_BYTES", 5 * 16 * 16)


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


KILLED_PROGRAM = """
import os, signal, sys
from pathlib import Path
import psutil
from common import config
from common.data.cache import build_cache
from common.data.layouts import open_dataset

config.CACHE_SHARD_BYTES, config.CACHE_PROCESS_SLICES = 5 * 16 * 16, 0

def told(done, total):
    if done == 13:
        print(*[child.pid for child in psutil.Process().children()], flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    build_cache(open_dataset(sys.argv[1]), 16, Path(sys.argv[2]), on_progress=told, processes=2)
"""


@pytest.mark.usefixtures("shards_of_five")
def test_a_killed_build_goes_on_with_the_shard_it_was_at(
    tmp_path: Path, samples: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed by the system at the 13th slice, decoding in two processes: two shards of five are finished."""
    whole = build_cache(samples, 16, tmp_path / "whole")
    program = tmp_path / "killed.py"
    program.write_text(KILLED_PROGRAM)
    command = [sys.executable, str(program), str(tmp_path / "pictures"), str(tmp_path / "cache")]
    answer = subprocess.run(
        command,
        check=False,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert answer.returncode == -signal.SIGKILL, answer.stderr
    decoders = [int(word) for word in answer.stdout.split()]
    assert len(decoders) >= 2
    deadline = time.monotonic() + 20
    while any(map(lives, decoders)):  # they end with the process that started them
        assert time.monotonic() < deadline
        time.sleep(0.05)
    folder = tmp_path / "cache" / whole.directory.name
    left = {name: (folder / name).stat().st_mtime_ns for name in files_of(folder)}
    assert {name for name in left if name.startswith("shard")} == {"shard-00000.json", "shard-00001.json"}
    (folder / ".images-00002.npy.x.partial").write_bytes(b"half")
    decoded: list[str] = []
    read = decoding.read_slice
    monkeypatch.setattr(decoding, "read_slice", lambda path: (decoded.append(path), read(path))[1])
    told: list[int] = []
    cache = build_cache(samples, 16, tmp_path / "cache", on_progress=lambda done, total: told.append(done))
    assert len(decoded) == 24 - 10
    assert told == list(range(11, 25))
    assert files_of(cache.directory) == files_of(whole.directory)
    assert {
        name: (folder / name).stat().st_mtime_ns for name in left
    } == left  # what was there was not written anew


@pytest.mark.usefixtures("shards_of_five")
def test_threads_and_processes_write_the_same_bytes(
    tmp_path: Path, samples: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build_cache(samples, 16, tmp_path / "threads", threads=3)
    monkeypatch.setattr(config, "CACHE_PROCESS_SLICES", 0)
    second = build_cache(samples.iloc[::-1], 16, tmp_path / "processes", processes=2)
    assert files_of(first.directory) == files_of(second.directory)
    assert [row.id for row in second.unreadable] == ["Normal/4 (1)", "Stroke/7 (0)"]


@pytest.mark.parametrize(
    ("cores", "free_gib", "processes"), [(4, 64, 4), (256, 64, 16), (256, 2, 4), (4, 0.1, 1)]
)
def test_so_many_processes_decode_as_the_machine_holds(
    monkeypatch: pytest.MonkeyPatch, cores: int, free_gib: float, processes: int
) -> None:
    memory = psutil.virtual_memory()._replace(available=int(free_gib * 2**30))
    monkeypatch.setattr(measure, "usable_cores", lambda: cores)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    assert decoding_processes() == processes


@pytest.mark.usefixtures("shards_of_five")
def test_shards_are_one_array_to_the_reader(tmp_path: Path, masked: pd.DataFrame) -> None:
    """Seven samples with masks in two shards, against the same in one."""
    split = build_cache(masked, 16, tmp_path / "split", masks=True)
    config.CACHE_SHARD_BYTES = 2**20  # the fixture puts it back
    whole = build_cache(masked, 16, tmp_path / "whole", masks=True)
    assert (len(split.images), len(whole.images)) == (2, 1)
    ids = [*reversed(list(whole.rows)), *whole.rows]
    np.testing.assert_array_equal(split.read(ids), whole.read(ids))
    known = ["S/none", "S/file", "S/empty", "S/file"]
    np.testing.assert_array_equal(split.read_masks(known), whole.read_masks(known))
    for name in ("rows", "unreadable", "unreadable_masks", "unknown_masks", "empty_masks"):
        assert getattr(split, name) == getattr(whole, name)


@pytest.mark.usefixtures("shards_of_five")
@pytest.mark.parametrize("name", ["images-00001.npy", "shard-00001.json", "images-00001.npy gone"])
def test_a_damaged_shard_is_told_and_built_again(tmp_path: Path, samples: pd.DataFrame, name: str) -> None:
    cache = build_cache(samples, 16, tmp_path / "cache")
    before = files_of(cache.directory)
    path = cache.directory / name.split()[0]
    if name.endswith("gone"):
        path.unlink()
    else:
        blob = bytearray(path.read_bytes())
        blob[-9] ^= 1  # of the right length, so that only the digest tells
        path.write_bytes(blob)
    said: list[str] = []
    decoded: list[int] = []
    again = build_cache(
        samples, 16, tmp_path / "cache", on_progress=lambda done, _: decoded.append(done), say=said.append
    )
    assert said == [f"shard 2 of 5 of the cache {cache.directory.name} is damaged and is built again"]
    assert len(decoded) == 5
    assert again == cache
    assert files_of(cache.directory) == before


@pytest.mark.usefixtures("shards_of_five")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"form": 2}',
        '{"form": 2, "rows_per_shard": 0, "shards": [], "sha256": ""}',
        '{"ids": 3}',
    ],
)
def test_a_damaged_description_is_made_again_from_the_shards(
    tmp_path: Path, samples: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    cache = build_cache(samples, 16, tmp_path / "cache", room=5 * 256)
    before = files_of(cache.directory)
    (cache.directory / "cache.json").write_text(text)
    (cache.directory / "sources.json").write_text(text)
    monkeypatch.setattr(decoding, "read_slice", lambda path: pytest.fail(f"{path} was decoded again"))
    assert build_cache(samples, 16, tmp_path / "cache", room=5 * 256) == cache
    assert files_of(cache.directory) == before


@pytest.mark.usefixtures("shards_of_five")
@pytest.mark.parametrize(
    ("name", "value"), [("size", 15), ("sha256", "0" * 64), ("masks_sha256", "0" * 64), ("rows_per_shard", 3)]
)
def test_a_changed_description_is_refused_at_opening_and_made_again(
    tmp_path: Path, masked: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, name: str, value: object
) -> None:
    """Else another size shifts the pixels, and another digest comes into the records of runs."""
    cache = build_cache(masked, 16, tmp_path / "cache", masks=True)
    before = files_of(cache.directory)
    path = cache.directory / "cache.json"
    write_json(path, json.loads(path.read_text()) | {name: value})
    if name != "rows_per_shard":  # which nothing reads of a cache that is opened only
        with pytest.raises(StudyError, match=r"start the study's command again, which mends its cache"):
            open_cache(cache.directory)
    monkeypatch.setattr(decoding, "read_slice", lambda path: pytest.fail(f"{path} was decoded again"))
    assert build_cache(masked, 16, tmp_path / "cache", masks=True) == cache
    assert files_of(cache.directory) == before


@pytest.mark.usefixtures("shards_of_five")
@pytest.mark.parametrize("key", ["sha256", "unreadable", "grid_mm", "masks.sha256", "masks.file.offset"])
def test_a_shard_that_is_half_described_is_built_again(
    tmp_path: Path, masked: pd.DataFrame, key: str
) -> None:
    """Of a build that was not finished, so that no digest of the description is known."""
    cache = build_cache(masked, 16, tmp_path / "cache", masks=True)
    before = files_of(cache.directory)
    (cache.directory / "cache.json").unlink()
    path = cache.directory / "shard-00001.json"
    document = json.loads(path.read_text())
    *folders, last = key.split(".")
    inner = document
    for folder in folders:
        inner = inner[folder]
    del inner[last]
    write_json(path, document)
    said: list[str] = []
    assert build_cache(masked, 16, tmp_path / "cache", masks=True, say=said.append) == cache
    assert said == [f"shard 2 of 2 of the cache {cache.directory.name} is damaged and is built again"]
    assert files_of(cache.directory) == before


def test_descriptions_may_grow_with_the_samples(
    tmp_path: Path, samples: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of a cache's are larger here than a record of a run may be."""
    monkeypatch.setattr(read_json, "__defaults__", (200,))
    cache = build_cache(samples, 16, tmp_path / "cache", room=0)
    assert all(len(blob) > 200 for blob in files_of(cache.directory).values())
    monkeypatch.setattr(decoding, "read_slice", lambda path: pytest.fail(f"{path} was decoded again"))
    assert build_cache(samples, 16, tmp_path / "cache", room=0) == cache
    write_json(tmp_path / "audit.json", {"findings": [], "": "x" * 200})
    assert earlier_audit(tmp_path / "audit.json") is not None


@pytest.mark.usefixtures("shards_of_five")
def test_a_shard_that_comes_out_otherwise_is_no_part_of_the_old_cache(
    tmp_path: Path, samples: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = build_cache(samples, 16, tmp_path / "cache")
    (cache.directory / "images-00001.npy").write_bytes(b"")
    monkeypatch.setattr(decoding, "read_slice", lambda path: np.zeros((16, 16), np.uint8))
    with pytest.raises(StudyError, match=r"has other pixels than before.*the same command builds all of it"):
        build_cache(samples, 16, tmp_path / "cache")
    assert not cache.directory.exists()


@pytest.mark.usefixtures("shards_of_five")
def test_a_full_disk_keeps_what_is_finished(
    tmp_path: Path, samples: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = build_cache(samples, 16, tmp_path / "whole")
    write = shards.write_atomically

    def fill(path: Path, *rest: Any) -> None:
        if path.name == "images-00003.npy":
            raise OSError(28, "No space left on device")
        write(path, *rest)

    with monkeypatch.context() as change:
        change.setattr(shards, "write_atomically", fill)
        with pytest.raises(StudyError, match=r"No space left.*--cache-limit \(15 of 24 slices are finished"):
            build_cache(samples, 16, tmp_path / "cache")
    cache = build_cache(samples, 16, tmp_path / "cache")
    assert files_of(cache.directory) == files_of(whole.directory)


def test_too_little_space_is_told_before_anything_is_written(
    tmp_path: Path, samples: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=6000))
    with pytest.raises(StudyError, match=r"24 slices at 16 px needs 6\.14 kB more, and 6 kB are free"):
        build_cache(samples, 16, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("shards_of_five")
def test_an_interrupted_build_keeps_its_finished_shards(tmp_path: Path, samples: pd.DataFrame) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_cache(samples, 16, tmp_path / "cache", on_progress=interrupt)
    (folder,) = (tmp_path / "cache").iterdir()
    assert list(files_of(folder)) == ["images-00000.npy", "shard-00000.json"]
    assert len(build_cache(samples, 16, tmp_path / "cache").rows) == len(samples) - 2


def test_half_built_caches_of_other_data_are_removed(tmp_path: Path, samples: pd.DataFrame) -> None:
    cache = build_cache(samples, 16, tmp_path)
    for name in ("16px-half", "16px-wanted", ".16px-old.partial"):
        (tmp_path / name).mkdir()
    remove_abandoned(tmp_path, {"16px-wanted"})
    kept = {cache.directory.name, "16px-wanted", "pictures"}
    assert {path.name for path in tmp_path.iterdir() if path.name != "pictures"} == kept - {"pictures"}


# --- a limit ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("shards_of_five")
def test_what_has_no_room_is_decoded_when_it_is_read(tmp_path: Path, samples: pd.DataFrame) -> None:
    """Room for two shards of five: all that is read, and every digest, as with all of them."""
    whole = build_cache(samples, 16, tmp_path / "whole")
    said: list[str] = []
    part = build_cache(samples, 16, tmp_path / "part", room=2 * 5 * 256 + 255, say=said.append)
    assert [block.path is not None for block in part.images] == [True, True, False, False, False]
    assert not (part.directory / "images-00002.npy").exists()
    assert (part.sha256, part.rows, part.unreadable) == (whole.sha256, whole.rows, whole.unreadable)
    ids = [*reversed(list(whole.rows))]
    np.testing.assert_array_equal(part.read(ids), whole.read(ids))
    assert "takes 6.14 kB; 2.56 kB are written now" in said[0]
    assert "no room for 14 of 24 slices at 16 px" in said[1]
    assert str(tmp_path) not in (part.directory / "sources.json").read_text()


@pytest.mark.usefixtures("shards_of_five")
def test_more_room_later_keeps_the_rest(tmp_path: Path, samples: pd.DataFrame) -> None:
    whole = build_cache(samples, 16, tmp_path / "whole")
    build_cache(samples, 16, tmp_path / "part", room=5 * 256)
    grown = build_cache(samples, 16, tmp_path / "part")
    assert files_of(grown.directory) == files_of(whole.directory)
    said: list[str] = []
    less = build_cache(samples, 16, tmp_path / "part", room=5 * 256, say=said.append)
    assert less == grown  # what is there is not thrown away, and that is told
    (text,) = said
    assert text.startswith("the pixels of 19 slices at 16 px are beyond --cache-limit and stay")
    assert text.endswith(f"delete {grown.directory} to free 4.86 kB")


@pytest.mark.parametrize("kept", [0, 1, 4, 5, 12, 23, 24])
def test_a_limit_is_used_to_the_slice(
    tmp_path: Path, samples: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    """Also within a shard, and whether all are one or there are many; what is read and told stays the same."""
    for name, shard_slices in (("one", 100), ("many", 5)):
        monkeypatch.setattr(config, "CACHE_SHARD_BYTES", shard_slices * 256)
        whole = build_cache(samples, 16, tmp_path / name / "whole")
        said: list[str] = []
        part = build_cache(samples, 16, tmp_path / name / "part", room=kept * 256 + 255, say=said.append)
        assert sum(block.count for block in part.images if block.path) == kept
        on_disk = sum(path.stat().st_size for path in part.directory.glob("images-*.npy"))
        files = len(list(part.directory.glob("images-*.npy")))
        assert on_disk == kept * 256 + files * 128  # their headers
        assert (part.sha256, part.rows, part.grid_mm) == (whole.sha256, whole.rows, whole.grid_mm)
        np.testing.assert_array_equal(part.read(list(part.rows)), whole.read(list(part.rows)))
        assert any(f"no room for {24 - kept} of 24 slices" in text for text in said) == (kept < 24)
        assert build_cache(samples, 16, tmp_path / name / "part", room=kept * 256) == part
        more = build_cache(samples, 16, tmp_path / name / "part", room=min(kept + 3, 24) * 256)
        assert sum(block.count for block in more.images if block.path) == min(kept + 3, 24)
        grown = build_cache(samples, 16, tmp_path / name / "part")
        assert files_of(grown.directory) == files_of(whole.directory)


@pytest.mark.usefixtures("shards_of_five")
def test_moved_pictures_are_found_and_changed_ones_refused(tmp_path: Path, samples: pd.DataFrame) -> None:
    whole = build_cache(samples, 16, tmp_path / "whole")
    build_cache(samples, 16, tmp_path / "part", room=0)
    moved = tmp_path / "elsewhere" / "moved"
    moved.parent.mkdir()
    (tmp_path / "pictures").rename(moved)
    said: list[str] = []
    part = build_cache(open_dataset(moved), 16, tmp_path / "part", room=0, say=said.append)
    assert said == ["24 of 24 slices at 16 px are not kept (--cache-limit): decoded when read"]
    np.testing.assert_array_equal(part.read(["Normal/0 (0)"]), whole.read(["Normal/0 (0)"]))
    cv2.imwrite(str(moved / "Normal" / "0 (0).png"), np.zeros((16, 16), np.uint8))
    with pytest.raises(StudyError, match=r"0 \(0\)\.png is not the picture that it was"):
        part.read(["Normal/0 (0)"])
    (moved / "Normal" / "0 (0).png").unlink()
    with pytest.raises(StudyError, match=r"0 \(0\)\.png"):
        part.read(["Normal/0 (0)"])


@pytest.mark.usefixtures("shards_of_five")
def test_a_link_may_lie_above_a_study_with_a_limit(tmp_path: Path, samples: pd.DataFrame) -> None:
    (tmp_path / "disk" / "deep" / "studies").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "deep" / "studies")
    whole = build_cache(samples, 16, tmp_path / "whole")
    part = build_cache(samples, 16, tmp_path / "link" / "part", room=0)
    np.testing.assert_array_equal(part.read(list(whole.rows)), whole.read(list(whole.rows)))


def test_masks_are_kept_whatever_the_limit(tmp_path: Path, masked: pd.DataFrame) -> None:
    cache = build_cache(masked, 16, tmp_path / "cache", masks=True, room=0)
    np.testing.assert_array_equal(cache.read_masks(["S/file"])[0], make_mask("stroke", 16))
    need = cache_need(masked, 16, masks=True)
    assert (need.pixels, need.masks) == (7 * 256, 5 * 32)
    assert share_room({16: need, 8: Need(448, 40)}, 2000) == {8: 448, 16: 2000 - 448 - 200}
    with pytest.raises(
        StudyError, match=r"--cache-limit 0\.1 kB is below the 0\.16 kB that the lesion masks"
    ):
        share_room({16: need}, 100)


@pytest.mark.usefixtures("shards_of_five", "tiny_world")
def test_a_run_is_the_same_whatever_the_limit(tmp_path: Path) -> None:
    """24 slices of 16 px: all kept, or ten of them."""
    data = write_pictures(tmp_path / "pictures")
    blobs = []
    for name, limit in (("all", 0), ("some", 10 * 256)):
        study = make_study(data, frameworks=("tiny-a",), seeds=1, cache_limit=limit)
        said: list[str] = []
        record = prepare_study(study, tmp_path / name, say=said.append)
        assert any("no room for 14 of 24 slices" in text for text in said) == bool(limit)
        (run,) = record.study.runs()
        execute(TinyFramework(), tmp_path / name, run, 1, lambda event: None)
        blobs.append((run_directory(tmp_path / name, run) / "predictions.npz").read_bytes())
        assert sum(
            len(open_cache(path.parent).sources) for path in (tmp_path / name).rglob("cache.json")
        ) == (14 if limit else 0)
    assert blobs[0] == blobs[1]


@pytest.mark.parametrize(
    ("text", "count"),
    [("20GB", 20 * 10**9), ("1.5 tb", 15 * 10**11), ("2GiB", 2**31), ("500", 500), ("7MB", 7 * 10**6)],
)
def test_sizes_are_read_as_they_are_written(text: str, count: int) -> None:
    assert byte_count(text) == count


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "0", "1e9", "20 apples", "9" * 30])
def test_a_size_that_is_none_is_named(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="must be a size such as 20GB"):
        byte_count(text)


def test_the_memory_of_a_build_does_not_grow_with_its_slices(tmp_path: Path) -> None:
    """2,000 slices of 96 px are 18 MiB, 200 are 1.8: a build that held them all would show 16 MiB more."""
    assert growth_mib(MEMORY_PROGRAM, tmp_path) < 8


MEMORY_PROGRAM = """
import sys
from pathlib import Path
import numpy as np
import pandas as pd
from common import config
from common.data import decoding
from common.data.cache import build_cache
from common.measure import peak_rss_mib

config.CACHE_SHARD_BYTES = 2 * 2**20
decoding.read_slice = lambda path: np.full((96, 96), int(path) % 251, np.uint8)

def build(count):
    names = [f"{number:05d}" for number in range(count)]
    columns = ("label", "patient", "mask", "sha256", "mask_sha256", "pixel_mm", "split")
    samples = pd.DataFrame({"id": names, "path": names, **dict.fromkeys(columns, "")})
    build_cache(samples, 96, Path(sys.argv[1]) / str(count))
    return peak_rss_mib()

build(100)  # what is loaded on the way
print(build(200), build(2000))
"""


# --- caches of versions before shards -----------------------------------------------------------------------------


def write_one_array(samples: pd.DataFrame, cache: Cache) -> None:
    """The same content as versions before shards wrote it, in the same folder."""
    ids = samples["id"].tolist()
    pixels = np.zeros((len(ids), cache.size, cache.size), np.uint8)
    for row, name in enumerate(ids):
        if name in cache.rows:
            pixels[row] = cache.read([name])[0]
    lesions = list(cache.mask_rows)
    masks = pack_masks(cache.read_masks(lesions)) if lesions else np.zeros((0, 32), np.uint8)
    shutil.rmtree(cache.directory)
    cache.directory.mkdir()
    np.save(cache.directory / "images.npy", pixels)
    np.save(cache.directory / "masks.npy", masks)
    document = {
        "version": 3,
        "size": cache.size,
        "offset": (cache.directory / "images.npy").stat().st_size - pixels.nbytes,
        "sha256": cache.sha256,
        "ids": [name if name in cache.rows else "" for name in ids],
        "unreadable": [vars(row) for row in cache.unreadable],
        "grid_mm": {},
        "masks": {
            "offset": (cache.directory / "masks.npy").stat().st_size - masks.nbytes,
            "ids": lesions,
            "empty": sorted(cache.empty_masks),
            "unknown": sorted(cache.unknown_masks),
            "unreadable": [vars(row) for row in cache.unreadable_masks],
            "doubtful": [],
            "sha256": cache.masks_sha256,
        },
    }
    write_json(cache.directory / "cache.json", document)


def test_a_cache_of_one_array_is_read_as_it_is(
    tmp_path: Path, masked: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = build_cache(masked, 16, tmp_path / "cache", masks=True)
    ids, known = list(new.rows), ["S/none", "S/file", "S/empty"]
    pixels, masks = new.read(ids), new.read_masks(known)
    write_one_array(masked, new)
    before = files_of(new.directory)
    monkeypatch.setattr(decoding, "read_slice", lambda path: pytest.fail(f"{path} was decoded again"))
    old = build_cache(masked, 16, tmp_path / "cache", masks=True)
    assert files_of(new.directory) == before
    np.testing.assert_array_equal(old.read(ids), pixels)
    np.testing.assert_array_equal(old.read_masks(known), masks)
    assert (old.sha256, old.unreadable, old.unknown_masks) == (new.sha256, new.unreadable, new.unknown_masks)


@pytest.mark.parametrize("name", ["images.npy", "masks.npy", "cache.json"])
def test_a_damaged_cache_of_one_array_is_built_again_as_shards(
    tmp_path: Path, masked: pd.DataFrame, name: str
) -> None:
    new = build_cache(masked, 16, tmp_path / "cache", masks=True)
    before = files_of(new.directory)
    write_one_array(masked, new)
    path = new.directory / name
    if name == "cache.json":
        write_json(path, json.loads(path.read_text()) | {"size": 15})
    else:
        blob = bytearray(path.read_bytes())
        blob[-300 if name == "images.npy" else -9] ^= 1
        path.write_bytes(blob)
    said: list[str] = []
    build_cache(masked, 16, tmp_path / "cache", masks=True, say=said.append)
    assert said == [f"the cache {new.directory.name} is damaged and is built again"]
    assert files_of(new.directory) == before


# --- while it is read ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["short", "long", "absent"])
@pytest.mark.parametrize("name", ["images-00000.npy", "masks-00000.npy"])
def test_an_array_of_the_wrong_length_is_refused_at_opening(tmp_path: Path, damage: str, name: str) -> None:
    cache = write_cache(tmp_path / "cache", make_samples(6))
    path = cache.directory / name
    if damage == "absent":
        path.unlink()
    else:
        blob = path.read_bytes()
        path.write_bytes(blob[:-1] if damage == "short" else blob + b"\0")
    with pytest.raises(StudyError, match=rf"{name} is missing or not \d+ bytes long; start the study"):
        open_cache(cache.directory)


def test_an_array_cut_while_in_use_is_an_error_and_no_crash(tmp_path: Path) -> None:
    samples = make_samples(6)
    cache = write_cache(tmp_path / "cache", samples)
    path, offset = cache.directory / "images-00000.npy", cache.images[0].offset
    whole = cache.read(samples["id"].tolist())
    os.truncate(path, offset + 4 * 16 * 16 + 10)
    np.testing.assert_array_equal(cache.read(samples["id"].tolist()[:4]), whole[:4])
    with pytest.raises(StudyError, match="shorter than its header says"):
        cache.read(samples["id"].tolist()[4:5])  # a part of it is there
    beyond = dataclasses.replace(cache, rows={"beyond": 1000})
    with pytest.raises(StudyError, match="row 1000 is beyond the end of the cache"):
        beyond.read(["beyond"])
    path.unlink()
    with pytest.raises(StudyError, match=r"images-00000\.npy cannot be opened"):
        cache.read(samples["id"].tolist()[:1])


def test_a_disk_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = make_samples(2)
    cache = write_cache(tmp_path / "cache", samples)

    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(StudyError, match=r"images-00000\.npy cannot be read \(Input/output error\)"):
        cache.read(samples["id"].tolist())


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"ids": 3}',
        '{"size": 1, "masks": 3, "ids": []}',
        '{"ids": [], "size": "x", "offset": 1, "sha256": ""}',
    ],
)
def test_a_damaged_description_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "cache.json").write_text(text)
    with pytest.raises(StudyError, match=r"cache\.json does not describe a cache .*; delete its folder"):
        open_cache(tmp_path)


def test_an_older_caches_description_is_named(tmp_path: Path) -> None:
    samples = make_samples(2)
    cache = write_cache(tmp_path / "cache", samples)
    write_one_array(samples, cache)
    path = cache.directory / "cache.json"
    document = json.loads(path.read_text())
    del document["masks"]["doubtful"]
    path.write_text(json.dumps(document))
    with pytest.raises(StudyError, match=r"does not describe a cache \(KeyError\('doubtful'\)\)"):
        open_cache(cache.directory)


def test_a_folder_without_a_cache_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"cache\.json does not exist"):
        open_cache(tmp_path)


def test_reading_leaves_no_file_open(tmp_path: Path) -> None:
    samples = make_samples(2)
    cache = write_cache(tmp_path / "cache", samples)
    handles = Path("/proc/self/fd")
    if not handles.is_dir():
        pytest.skip("this system does not list open files")
    cache.read(samples["id"].tolist())
    before = len(list(handles.iterdir()))
    for _ in range(5):
        cache.read(samples["id"].tolist())
        with pytest.raises(StudyError):
            cache.read(["unknown"])
    assert len(list(handles.iterdir())) == before
