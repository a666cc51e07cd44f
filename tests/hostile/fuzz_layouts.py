"""Fuzz the reader of data folders: names, tables and files made of the input; see `fuzzing`."""

from __future__ import annotations

import contextlib
import os
import shutil

import atheris
import fuzzing

with atheris.instrument_imports(include=["common"]):
    from common.data import layouts, samples
    from common.names import UNSHOWN

import corpus

FOLDER = fuzzing.scratch()
FOLDERS = (
    "Normal", "Stroke", "Bleeding", "Ischemia", "normal", "PNG", "OVERLAY", "MASKS", "DICOM", "masks", "train",
    "val", "test", "External_Test", "x",
)  # fmt: skip
FILES = ("1 (1).png", "1 (2).png", "2 (1).png", "a.png", "a.dcm", "b.jpg", "patients.csv", "labels.csv", "c")
TABLES = (
    b"image_id,patient\n1 (1),7\n1 (2),7\n2 (1),8\na,9\nb,9\n",
    b"image_id,Stroke\na,1\nb,0\n1 (1),0\n1 (2),1\n2 (1),0\n",
)
PICTURES = tuple(
    data
    for name, data in corpus.small_pictures().items()
    if name in ("png.png", "overlay.png", "jpeg.jpg", "ct.dcm")
)


def name_of(provider: atheris.FuzzedDataProvider, known: tuple[str, ...]) -> bytes:
    if provider.ConsumeIntInRange(0, 5):
        return provider.PickValueInList(list(known)).encode()
    raw = provider.ConsumeBytes(provider.ConsumeIntInRange(1, 24)).replace(b"/", b"_").replace(b"\0", b"_")
    return (raw or b"_") + provider.PickValueInList([b"", b".png", b".dcm", b".csv", b" (1).jpg"])


def content_of(provider: atheris.FuzzedDataProvider, name: bytes) -> bytes:
    choice = provider.ConsumeIntInRange(0, 3)
    raw = provider.ConsumeBytes(provider.ConsumeIntInRange(0, 120))
    if name.endswith(b".csv"):
        return provider.PickValueInList(list(TABLES)) + raw if choice else raw
    return provider.PickValueInList(list(PICTURES)) if choice else raw


def target(data: bytes) -> None:
    provider = atheris.FuzzedDataProvider(data)
    root = FOLDER / "data"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for _ in range(provider.ConsumeIntInRange(1, 14)):
        with contextlib.suppress(OSError):  # a name that is taken, or too long
            folder = root
            for _ in range(provider.ConsumeIntInRange(0, 3)):
                folder /= os.fsdecode(name_of(provider, FOLDERS))
            folder.mkdir(parents=True, exist_ok=True)
            name = name_of(provider, FILES)
            path = folder / os.fsdecode(name)
            if os.path.lexists(path):  # writing into a pipe would wait for ever
                continue
            kind = provider.ConsumeIntInRange(0, 15)
            if kind == 0:
                path.symlink_to(provider.PickValueInList([".", "..", path.name, str(root), "/dev/zero"]))
            elif kind == 1:
                os.mkfifo(path)
            elif kind == 2:
                path.mkdir()
            else:
                path.write_bytes(content_of(provider, name))
    table = layouts.open_dataset(root)
    samples.check_samples(table)
    for column in ("id", "patient", "source"):
        assert not any(UNSHOWN.search(text) for text in table[column]), column
    table.to_csv(index=False).encode()


def seeds() -> list[bytes]:
    import random

    random.seed(0)
    return [random.randbytes(size) for size in (64, 128, 256, 512, 1024) for _ in range(8)]


if __name__ == "__main__":
    fuzzing.fuzz(target, seeds(), 1500)
