"""The data stream beside the loaders that a user would write instead; no model is trained.

Warm: batches from the cache, against loaders that decode every picture in every epoch (or, as `tf-cached`, keep them).
Cold: from a folder of files that was never seen to the end of the first epoch, everything counted. Growth: what more
samples cost in memory before a pixel is kept.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from benchmarks.harness import Contestant, Session, alternate, our_environment, peer_environment
from benchmarks.material import read_samples, write_material
from benchmarks.plan import Job, Options, row_of
from benchmarks.table import Row
from common.data.samples import sample_table
from common.results import write_json

WARM_TARGET, COLD_TARGET = 3.0, 1.0
JPEG_QUALITY = 90
# peer -> what the table says of it; by the framework that it belongs to
PEERS: dict[str, dict[str, str]] = {
    "torch": {
        "torch-cv2": "DataLoader, 2 workers, OpenCV",
        "torch-pil": "DataLoader, 2 workers, Pillow",
    },
    "keras-tensorflow": {
        "tf-data": "tf.data, Keras layers",
        "tf-cached": "tf.data, cache() in memory, Keras layers",
        "tf-light": "tf.data, cache() in memory, tf.image",
        "directory": "image_dataset_from_directory, Keras layers",
        "py-dataset": "PyDataset, 2 threads, OpenCV",
    },
}
LESS = {"tf-light": "the peer does not rotate, shift or zoom, and keeps float32 pictures in memory"}
FEW = ("torch-cv2", "tf-data")  # where not all peers are run
FEW_COLD = (*FEW, "py-dataset")
GROWTH = (500, 5_000, 50_000)
GROWTH_FILES = 20  # different ones; the rest are hard links, of which a file may have some 60,000
GROWTH_BATCHES = 20


def jobs(options: Options) -> list[Job]:
    """Warm, still, cold and growth, one job a framework."""
    found = []
    for framework in options.frameworks:
        peers = PEERS.get(framework, {})
        few = [peer for peer in peers if peer in FEW]
        few_cold = [peer for peer in peers if peer in FEW_COLD]
        plan = (
            ("warm", "jpg", 3, [*peers], ("shipped", "same")),
            ("warm", "png", 1, few, ("shipped",)),
            ("still", "jpg", 3, few, ("shipped",)),
            ("cold", "jpg", 3, few_cold, ("shipped", "same")),
            ("cold", "png", 1, few_cold, ("shipped",)),
        )
        for state, kind, channels, chosen, settings in plan:
            pairs = [
                (peer, setting)
                for peer in chosen
                for setting in settings
                if setting == "shipped" or peer in FEW
            ]
            if pairs:
                title = f"stream {state}, {kind}, {channels} channels, {framework}"
                seconds = len(pairs) * (12 + 4 * options.rounds * options.seconds)
                run = partial(_rows, options, framework, state, kind, channels, pairs)
                found.append(Job(title, seconds, run))
    if "torch" in options.frameworks:
        found.append(Job("stream growth, torch", 60, partial(_growth_rows, options)))
    return found


def _rows(
    options: Options,
    framework: str,
    state: str,
    kind: str,
    channels: int,
    pairs: Iterable[tuple[str, str]],
) -> list[Row]:
    folder = write_pictures(options) / kind
    common = ("--folder", str(folder), "--channels", str(channels))
    rows = []
    for peer, setting in pairs:
        still = ("--still",) if state == "still" else ()
        other = _peer(framework, setting, "--peer", peer, *common, *still)
        ours = _ours(framework, *common, "--state", state)
        result = alternate(ours, other, options.rounds, options.seconds)
        target = {"warm": WARM_TARGET, "cold": COLD_TARGET}.get(state) if peer not in LESS else None
        name = f"{state}, {kind.upper()}, {channels} ch"
        key = ("stream", "stream", PEERS[framework][peer], name, framework, setting)
        rows.append(row_of(result, *key, target, LESS.get(peer, "")))
    return rows


def _ours(framework: str, *arguments: str) -> Contestant:
    argv = (sys.executable, "-m", "benchmarks.stream_ours", *arguments)
    return Contestant("ours", argv, our_environment(framework, "cpu"))


def _peer(framework: str, setting: str, *arguments: str) -> Contestant:
    environment = peer_environment(framework, setting, "cpu")
    argv = (sys.executable, "-m", "benchmarks.stream_peers", *arguments)
    return Contestant(f"{arguments[1]}, {setting}", argv, environment)


# --- pictures -----------------------------------------------------------------------------------------------------


def write_pictures(options: Options) -> Path:
    """The material's slices as FOLDER/{jpg,png}/{Normal,Stroke}/PATIENT (NUMBER).*; returns FOLDER."""
    folder = options.scratch / "stream"
    if folder.exists():
        return folder
    samples = read_samples(write_material(options.scratch / "material", sizes=(), quick=options.quick))
    for number, row in enumerate(samples.itertuples()):
        name = f"{'Normal' if row.label == 'normal' else 'Stroke'}/{number // 10} ({number % 10})"
        image = cv2.imread(str(row.path), cv2.IMREAD_GRAYSCALE)
        assert image is not None
        for kind in ("jpg", "png"):
            path = folder / kind / f"{name}.{kind}"
            path.parent.mkdir(parents=True, exist_ok=True)
            quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if kind == "jpg" else []
            cv2.imwrite(str(path), image, quality)
    return folder


# --- memory -------------------------------------------------------------------------------------------------------


def _growth_rows(options: Options) -> list[Row]:
    """Peak memory after a few batches of data sets of several sizes, ours and `DataLoader`'s main process."""
    files = sorted((write_pictures(options) / "jpg").rglob("*.jpg"))[:GROWTH_FILES]
    rows: list[Row] = []
    first: dict[str, float] = {}
    for count in GROWTH[:2] if options.quick else GROWTH:
        folder = write_index(options.scratch / f"growth-{count}", files, count)
        ours = _ours("torch", "--folder", str(folder), "--state", "index", "--channels", "1")
        other = _peer(
            "torch", "shipped", "--peer", "torch-cv2", "--folder", str(folder / "files"), "--channels", "1"
        )
        peaks = {}
        for name, contestant in (("ours", ours), ("peer", other)):
            with Session(contestant) as session:
                peaks[name] = session.block(GROWTH_BATCHES).peak_rss_mib
            first.setdefault(name, peaks[name])
        more = {name: peaks[name] - first[name] for name in peaks}
        rows.append(
            Row(
                "growth",
                "stream",
                PEERS["torch"]["torch-cv2"],
                f"{count:,} samples",
                "torch",
                "shipped",
                "MiB",
                ratio=peaks["peer"] / peaks["ours"],
                ours_rate=peaks["ours"],
                peer_rate=peaks["peer"],
                ours_peak_mib=peaks["ours"],
                peer_peak_mib=peaks["peer"],
                rounds=1,
                note=f"more than with {GROWTH[0]}: ours {more['ours']:.0f} MiB, peer {more['peer']:.0f} MiB",
            )
        )
    return rows


def write_index(folder: Path, files: list[Path], count: int) -> Path:
    """A data set of `count` samples that takes no space: hard links for files, and a cache that is a hole."""
    size = 224
    names = [
        f"{'Stroke' if number % 2 else 'Normal'}/{number // 30} ({number % 30})" for number in range(count)
    ]
    for number, name in enumerate(names):
        path = folder / "files" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(files[number % len(files)], path)
    rows = [
        {
            "id": name,
            "path": str(folder / "files" / f"{name}.jpg"),
            "label": name.split("/")[0].lower(),
            "patient": name.split("/")[1].split(" ")[0],
            "patient_from": "name",
            "mask": "",
            "sha256": f"{number:064x}",
            "mask_sha256": "",
            "pixel_mm": "",
            "split": "",
            "source": "growth",
        }
        for number, name in enumerate(names)
    ]
    samples = sample_table(rows)
    samples.to_csv(folder / "samples.csv", index=False)
    cache = folder / "cache"
    cache.mkdir()
    shape = (count, size, size)
    offset = int(np.lib.format.open_memmap(cache / "images.npy", "w+", np.uint8, shape).offset)
    document = {"size": size, "offset": offset, "sha256": "", "ids": samples["id"].tolist()}
    write_json(cache / "cache.json", {**document, "unreadable": [], "grid_mm": {}, "masks": None})
    return folder
