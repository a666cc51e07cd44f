"""Every kind of hostile or odd input: how to write it into a sound data set or study, and what must become of it.

"left out": a row in the audit (or in the report) with its reason, the rest goes on; "refused": a named error;
"read": sound although odd, and used rightly.
"""

from __future__ import annotations

import io
import json
import os
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import corpus
import numpy as np
import records
from corpus import LESION, PX, SLICE, encoded
from PIL import Image

LEFT_OUT, REFUSED, READ = "left out", "refused", "read"


@dataclass(frozen=True)
class Kind:
    """One row of the input table."""

    group: str  # which reader it goes through
    name: str
    write: Callable[[Path], int]  # into a sound data set or study; returns how many files
    expected: str  # LEFT_OUT | REFUSED | READ
    says: str = ""  # words of the reason
    forbidden: bool = False  # nobody has the permission to read it


# --- pictures -----------------------------------------------------------------------------------------------------


def as_picture(*files: tuple[str, bytes]) -> Callable[[Path], int]:
    """Put the files among the stroke slices: (suffix, bytes)."""

    def write(root: Path) -> int:
        for number, (suffix, data) in enumerate(files, start=1):
            (root / "Stroke" / f"99 ({number}){suffix}").write_bytes(data)
        return len(files)

    return write


def sparse(root: Path) -> int:
    with (root / "Stroke" / "99 (1).png").open("wb") as stream:
        stream.truncate(10 * 2**40 if _holds(root, 10 * 2**40) else 2**36)
    return 1


def _holds(root: Path, size: int) -> bool:
    try:
        with (root / "probe").open("wb") as stream:
            stream.truncate(size)
        return True
    except OSError:
        return False
    finally:
        (root / "probe").unlink(missing_ok=True)


def pictures() -> list[Kind]:
    grey, colour = Image.fromarray(SLICE), Image.fromarray(np.dstack([SLICE] * 3))
    png, jpeg, tiff = encoded(grey, "PNG"), corpus.jpeg(), encoded(grey, "TIFF")
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = np.random.default_rng(3).integers(0, 255, (PX, PX, 3), np.uint8)
    sixteen = SLICE.astype(np.uint16) * 257
    frames = np.stack([SLICE.astype(np.int16)] * 3)
    dcm = corpus.dicom

    def kind(name: str, expected: str, says: str, *files: tuple[str, Callable[[], bytes] | bytes]) -> Kind:
        def write(root: Path) -> int:
            made = [(suffix, data() if callable(data) else data) for suffix, data in files]
            return as_picture(*made)(root)

        return Kind("picture", name, write, expected, says)

    return [
        kind("truncated", LEFT_OUT, "", (".png", png[:-40]), (".jpg", jpeg[:-40]), (".tif", tiff[:-400]),
             (".dcm", dcm(corpus.ct())[:-99])),
        kind("zero bytes", LEFT_OUT, "empty", (".png", b""), (".dcm", b"")),
        kind("wrong suffix", READ, "", (".jpg", png), (".png", jpeg)),
        kind("text, HTML, PDF or a program named .png", LEFT_OUT, "is no", (".png", b"hello"),
             (".png", b"<html><script>alert(1)</script>"), (".png", b"%PDF-1.7\n"), (".png", b"\x7fELF" + bytes(99))),
        kind("zero-filled after half", LEFT_OUT, "", (".png", png[: len(png) // 2] + bytes(len(png) // 2))),
        kind("bomb: header of 30,000 x 30,000 px", LEFT_OUT, "", (".png", corpus.png(30_000, 30_000, b"x")),
             (".tif", lambda: corpus.tiff_of(30_000, 30_000)), (".bmp", b"BM" + struct.pack(
                 "<IHHIIiiHHIIiiII", 0, 0, 0, 54, 40, 30_000, 30_000, 1, 8, 0, 0, 0, 0, 0, 0))),
        kind("bomb: 2^31 px a side", LEFT_OUT, "", (".png", corpus.png(2**31 - 1, 2**31 - 1, b"x"))),
        kind("bomb: 200 MB of packed comment", LEFT_OUT, "", (".png", corpus.text_bomb)),
        kind("bomb: 200 MB of packed colour profile", LEFT_OUT, "", (".png", corpus.profile_bomb)),
        kind("bomb: 3 million chunks", LEFT_OUT, "chunks", (".png", corpus.many_chunks)),
        kind("bomb: 20,000 scans", LEFT_OUT, "scans", (".jpg", corpus.many_scans)),
        kind("bomb: 8 million segments", LEFT_OUT, "segments", (".jpg", corpus.many_segments)),
        kind("bomb: 32 MB of fill bytes", LEFT_OUT, "segments", (".jpg", corpus.fill_bytes)),
        kind("bomb: tag of 12 million values", LEFT_OUT, "tag", (".tif", corpus.many_values)),
        kind("bomb: tile of 30,000 x 30,000 px", LEFT_OUT, "tiles", (".tif", corpus.huge_tile)),
        kind("bomb: 400,000 pages", LEFT_OUT, "several pictures", (".tif", corpus.endless_tiff)),
        kind("one page whose next is itself", READ, "", (".tif", corpus.looping_tiff)),
        kind("bomb: run lengths of 1 px", LEFT_OUT, "run lengths", (".bmp", corpus.packed_bmp)),
        Kind("picture", "bomb: terabytes of nothing (sparse)", sparse, LEFT_OUT, "MiB"),
        kind("1 x 1 px", LEFT_OUT, "at least", (".png", encoded(np.zeros((1, 1), np.uint8), "PNG"))),
        kind("30,000 x 500 px", LEFT_OUT, "at most", (".png", lambda: corpus.large_png(30_000, 500))),
        kind("4,096 x 4,096 px, largest that is read", READ, "", (".png", lambda: corpus.large_png(4096, 4096))),
        kind("4,096 x 4,096 px, fading out", READ, "", (".png", lambda: corpus.large_png(4096, 4096, 4))),
        kind("16 bits", READ, "", (".png", encoded(sixteen, "PNG")), (".tif", encoded(sixteen, "TIFF"))),
        kind("12 bits kept in 16", LEFT_OUT, "would come out black", (".png", encoded(sixteen >> 4, "PNG"))),
        kind("float", LEFT_OUT, "float", (".tif", encoded(SLICE.astype(np.float32), "TIFF"))),
        kind("32-bit whole numbers", LEFT_OUT, "32-bit", (".tif", encoded(SLICE.astype(np.int32), "TIFF"))),
        kind("palette", READ, "", (".png", encoded(grey.convert("P"), "PNG"))),
        kind("CMYK", LEFT_OUT, "CMYK", (".jpg", encoded(colour.convert("CMYK"), "JPEG"))),
        kind("animated", LEFT_OUT, "several pictures", (".png", corpus.animated_png), (".tif", corpus.paged_tiff)),
        kind("GIF, WebP", LEFT_OUT, "is no", (".gif", encoded(grey, "GIF")), (".webp", encoded(colour, "WEBP"))),
        kind("interlaced", READ, "", (".png", corpus.interlaced_png)),
        kind("turned by EXIF", READ, "", (".jpg", corpus.jpeg(exif=exif.tobytes()))),
        kind("colour photograph", LEFT_OUT, "coloured", (".png", encoded(photo, "PNG"))),
        kind("overlay as input", LEFT_OUT, "coloured", (".png", encoded(corpus.painted(), "PNG")),
             (".jpg", encoded(corpus.painted(), "JPEG", quality=95))),
        kind("all black", READ, "", (".png", encoded(np.zeros((PX, PX), np.uint8), "PNG"))),
        kind("DICOM: sound", READ, "", (".dcm", dcm(corpus.ct()))),
        kind("DICOM: big-endian", READ, "", (".dcm", corpus.big_endian())),
        kind("DICOM: no pixels", LEFT_OUT, "no pixels", (".dcm", dcm(corpus.ct(absent=["PixelData"])))),
        kind("DICOM: compressed, no decoder or broken", LEFT_OUT, "compressed", (".dcm", corpus.unknown_compression())),
        kind("DICOM: several frames", LEFT_OUT, "frames", (".dcm", dcm(corpus.ct(frames, NumberOfFrames=3)))),
        kind("DICOM: Rows and Columns that lie", LEFT_OUT, "", (".dcm", dcm(corpus.ct(Rows=4000, Columns=4000))),
             (".dcm", dcm(corpus.ct(Rows=20))), (".dcm", dcm(corpus.ct(Rows=65535, Columns=65535)))),
        kind("DICOM: bits that lie", LEFT_OUT, "", (".dcm", dcm(corpus.ct(BitsStored=40))),
             (".dcm", dcm(corpus.ct(BitsAllocated=32)))),
        kind("DICOM: length of 4 GB, pixels whole", READ, "", (".dcm", corpus.lying_length())),
        kind("DICOM: bomb, deflated", LEFT_OUT, "deflated", (".dcm", corpus.deflated_bomb)),
        kind("DICOM: bomb, 3 million elements", LEFT_OUT, "parts", (".dcm", corpus.many_elements)),
        kind("DICOM: sequences 20,000 deep", LEFT_OUT, "", (".dcm", corpus.nested_sequences)),
        kind("DICOM: colour, or no CT", LEFT_OUT, "", (".dcm", dcm(corpus.ct(Modality="MR"))),
             (".dcm", dcm(corpus.ct(PhotometricInterpretation="RGB")))),
        kind("DICOM: header that steers a terminal", LEFT_OUT, r"\x1b",
             (".dcm", dcm(corpus.ct(Modality="OTHERS")).replace(b"OTHERS", b"\x1b]0;xx"))),
    ]  # fmt: skip


# --- masks and overlays -------------------------------------------------------------------------------------------


def as_mask(data: bytes, name: str = "20 (1).png") -> Callable[[Path], int]:
    def write(root: Path) -> int:
        (root / "masks" / "Stroke").mkdir(parents=True)
        (root / "masks" / "Stroke" / name).write_bytes(data)
        return 1

    return write


def as_overlay(data: bytes) -> Callable[[Path], int]:
    """Beside the pictures, which move into PNG/ of two kinds of stroke."""

    def write(root: Path) -> int:
        for label in ("Bleeding", "Ischemia", "Normal"):
            (root / label / "PNG").mkdir(parents=True)
        for number, file in enumerate(sorted((root / "Stroke").iterdir())):
            file.rename(root / ("Bleeding", "Ischemia")[number % 2] / "PNG" / file.name)
        for file in sorted((root / "Normal").glob("*.png")):
            file.rename(root / "Normal" / "PNG" / file.name)
        (root / "Stroke").rmdir()
        (root / "Bleeding" / "OVERLAY").mkdir()
        (root / "Bleeding" / "OVERLAY" / "20 (1).png").write_bytes(data)
        return 1

    return write


def later(
    write: Callable[[bytes], Callable[[Path], int]], data: Callable[[], bytes]
) -> Callable[[Path], int]:
    """A large file, made only when it is written."""

    def write_later(root: Path) -> int:
        return write(data())(root)

    return write_later


def masks() -> list[Kind]:
    lesion = LESION.astype(np.uint8) * 255
    other = np.pad(corpus.painted(), ((0, 40), (0, 0), (0, 0)))
    return [
        Kind("mask", "sound", as_mask(encoded(lesion, "PNG")), READ),
        Kind("mask", "of another size", as_mask(encoded(lesion[:40], "PNG")), LEFT_OUT, "must have its picture's size"),
        Kind("mask", "twice as large", as_mask(encoded(np.kron(lesion, np.ones((2, 2), np.uint8)), "PNG")), LEFT_OUT,
             "must have its picture's size"),
        Kind("mask", "zero bytes", as_mask(b""), LEFT_OUT, "empty"),
        Kind("mask", "float", as_mask(encoded(LESION.astype(np.float32), "TIFF"), "20 (1).tif"), LEFT_OUT, "float"),
        Kind("mask", "bomb: 3 million chunks", later(as_mask, corpus.many_chunks), LEFT_OUT, "chunks"),
        Kind("mask", "named as no picture", as_mask(encoded(lesion, "PNG"), "other.png"), REFUSED, "none is named"),
        Kind("overlay", "sound", as_overlay(encoded(corpus.painted(corpus.head(102)), "PNG")), READ),
        Kind("overlay", "of another shape", as_overlay(encoded(other, "PNG")), LEFT_OUT, ""),
        Kind("overlay", "with nothing painted", as_overlay(encoded(corpus.head(102), "PNG")), LEFT_OUT, "nothing"),
        Kind("overlay", "truncated", as_overlay(encoded(corpus.painted(), "PNG")[:-50]), LEFT_OUT, ""),
        Kind("overlay", "4,096 x 4,096 px", later(as_overlay, lambda: corpus.large_png(4096, 4096, 3)), LEFT_OUT,
             "at most"),
        Kind("overlay", "2,048 x 2,048 px, of another slice (listed as doubtful)", later(
            as_overlay, corpus.large_overlay), READ),
    ]  # fmt: skip


# --- names and things that are no files ---------------------------------------------------------------------------


def named(name: bytes | str) -> Callable[[Path], int]:
    """A sound slice of this name."""

    def write(root: Path) -> int:
        (root / "Stroke" / os.fsdecode(name)).write_bytes(encoded(corpus.head(77), "PNG"))
        return 1

    return write


def entry(make: Callable[[Path], object], name: str = "99 (1).png") -> Callable[[Path], int]:
    def write(root: Path) -> int:
        make(root / "Stroke" / name)
        return 1

    return write


def bind_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's address has at most 108 bytes
    try:
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(path.name)
    finally:
        os.chdir(here)


def without_permission(write: Callable[[Path], int], name: str) -> Callable[[Path], int]:
    """What is written, and then nobody may read this entry of it."""

    def forbid(root: Path) -> int:
        files = write(root)
        (root / name).chmod(0)
        return files

    return forbid


def names() -> list[Kind]:
    return [
        Kind("name", "line break", named("99 (1)\n.png"), REFUSED, "unprintable"),
        Kind("name", "escape sequence", named("\x1b]0;title\x07 99 (1).png"), REFUSED, "unprintable"),
        Kind("name", "no UTF-8", named(b"\xff\xfe 99 (1).png"), REFUSED, "unprintable"),
        Kind("name", "turned writing (U+202E)", named("99 (1)\u202egnp.png"), REFUSED, "unprintable"),
        Kind("name", "right-to-left letters", named("\u05d0\u05d1 99 (1).png"), READ),
        Kind("name", "HTML and quotes", named("<img src=x onerror=alert(1)>\"' 99 (1).png"), READ),
        *(
            Kind("name", f"starts a formula: {sign}", named(f"{sign}HYPERLINK(9) (1).png"), READ)
            for sign in "=+-@"
        ),
        Kind("name", "shell and path: $(x) `x` ; .. %2e", named("$(touch x) `x` ; ..%2e%2e 9 (1).png"), READ),
        Kind("name", "255 bytes", named(f"9{'x' * 245} (1).png"), READ),
        Kind("entry", "link to itself", entry(lambda path: path.symlink_to(path.name)), LEFT_OUT, ""),
        Kind(
            "entry",
            "link to nothing",
            entry(lambda path: path.symlink_to("gone")),
            LEFT_OUT,
            "does not exist",
        ),
        Kind("entry", "link to the folder above", entry(lambda path: path.symlink_to("..")), READ),
        Kind(
            "entry",
            "folder that leads to itself",
            entry(lambda path: path.symlink_to("."), "Stroke"),
            REFUSED,
            "",
        ),
        Kind("entry", "named pipe", entry(os.mkfifo), LEFT_OUT, "is no regular file"),
        Kind("entry", "socket", entry(bind_socket), LEFT_OUT, "is no regular file"),
        Kind(
            "entry",
            "device",
            entry(lambda path: path.symlink_to("/dev/zero")),
            LEFT_OUT,
            "is no regular file",
        ),
        Kind("entry", "folder named .png", entry(Path.mkdir), READ),
        Kind(
            "entry",
            "folder without permission",
            without_permission(lambda root: 1, "Stroke"),
            REFUSED,
            "check its permissions",
            True,
        ),
        Kind(
            "entry",
            "picture without permission",
            without_permission(as_picture((".png", encoded(SLICE, "PNG"))), "Stroke/99 (1).png"),
            LEFT_OUT,
            "may not be read",
            True,
        ),
    ]


# --- tables beside the pictures -----------------------------------------------------------------------------------


def patients_csv(text: str | bytes | Callable[[list[str]], str]) -> Callable[[Path], int]:
    def write(root: Path) -> int:
        ids = [f"{file.parent.name}/{file.stem}" for file in sorted(root.rglob("*.png"))]
        content = text(ids) if callable(text) else text
        (root / "patients.csv").write_bytes(content.encode() if isinstance(content, str) else content)
        return 1

    return write


def lines(
    change: Callable[[list[str]], list[str]] = lambda rows: rows, head: str = "image_id,patient"
) -> Any:
    return patients_csv(
        lambda ids: "\n".join([head, *change([f"{one},p{n // 2}" for n, one in enumerate(ids)])])
    )


def patients_pipe(root: Path) -> int:
    os.mkfifo(root / "patients.csv")
    return 1


def external(table: bytes | None) -> Callable[[Path], int]:
    """A set of three classes with `External_Test/`, whose labels.csv is this, or a pipe."""

    def write(root: Path) -> int:
        as_overlay(encoded(corpus.painted(corpus.head(102)), "PNG"))(root)
        folder = root / "External_Test" / "PNG"
        folder.mkdir(parents=True)
        for number in (1, 2):
            (folder / f"{number}.png").write_bytes(encoded(corpus.head(500 + number), "PNG"))
        if table is None:
            os.mkfifo(root / "External_Test" / "labels.csv")
        else:
            (root / "External_Test" / "labels.csv").write_bytes(table)
        return 1

    return write


def tables() -> list[Kind]:
    return [
        Kind("table", "patients.csv: sound, with BOM", patients_csv(
            lambda ids: "\ufeffimage_id,patient\r\n" + "".join(f"{one},{n // 2}\r\n" for n, one in enumerate(ids))),
            READ),
        Kind("table", "patients.csv: an id twice, equal", lines(lambda rows: [*rows, rows[0]]), READ),
        Kind("table", "patients.csv: an id twice, contradicting", lines(
            lambda rows: [*rows, rows[0].rsplit(",", 1)[0] + ",other"]), REFUSED, "keep one"),
        Kind("table", "patients.csv: an id missing", lines(lambda rows: rows[1:]), REFUSED, "names no patient"),
        Kind("table", "patients.csv: a patient missing", lines(
            lambda rows: [rows[0].rsplit(",", 1)[0] + ",", *rows[1:]]), REFUSED, "fill it in"),
        Kind("table", "patients.csv: no such column", lines(head="file,who"), REFUSED, "lacks the column"),
        Kind("table", "patients.csv: zero bytes", patients_csv(b""), REFUSED, "lacks the column"),
        Kind("table", "patients.csv: NULs", lines(lambda rows: [rows[0] + "\0", *rows[1:]]), REFUSED, "unprintable"),
        Kind("table", "patients.csv: escape sequence", lines(
            lambda rows: [rows[0] + "\x1b[2J", *rows[1:]]), REFUSED, "unprintable"),
        Kind("table", "patients.csv: no UTF-8", patients_csv(b"image_id,patient\n\xff\xfe,1\n"), REFUSED, "as CSV"),
        Kind("table", "patients.csv: a cell of 1 MB", lines(
            lambda rows: [rows[0] + "x" * 10**6, *rows[1:]]), REFUSED, "as CSV"),
        Kind("table", "patients.csv: a quote that never ends", lines(
            lambda rows: ['"' + rows[0], *rows[1:]]), REFUSED, ""),
        Kind("table", "patients.csv: a named pipe", patients_pipe, REFUSED, "it is no file"),
        Kind("table", "patients.csv: patients that are formulas", lines(
            lambda rows: [row.replace(",p", ",=1+") for row in rows]), READ),
        Kind("table", "labels.csv: sound", external(b"image_id,Stroke\n1,0\n2,1\n"), READ),
        Kind("table", "labels.csv: contradicting", external(b"image_id,Stroke\n1,0\n2,1\n1,1\n"), REFUSED, "keep one"),
        Kind("table", "labels.csv: an id missing", external(b"image_id,Stroke\n1,0\n"), REFUSED, "names no Stroke"),
        Kind("table", "labels.csv: neither 0 nor 1", external(b"image_id,Stroke\n1,0\n2,yes\n"), REFUSED, "0 or 1"),
        Kind("table", "labels.csv: a named pipe", external(None), REFUSED, "it is no file"),
    ]  # fmt: skip


# --- weights, predictions, records --------------------------------------------------------------------------------


def as_weights(data: bytes) -> Callable[[Path], int]:
    def write(root: Path) -> int:
        (root / "model.safetensors").write_bytes(data)
        return 1

    return write


def sparse_weights(root: Path) -> int:
    with (root / "model.safetensors").open("wb") as stream:
        stream.write(struct.pack("<Q", 2) + b"{}")
        stream.truncate(10 * 2**40 if _holds(root, 10 * 2**40) else 2**36)
    return 1


def weights_pipe(root: Path) -> int:
    os.mkfifo(root / "model.safetensors")
    return 1


def weights() -> list[Kind]:
    return [
        *(Kind("weights", name, as_weights(data), REFUSED) for name, data in records.weights_files().items()),
        Kind("weights", "a file of 10 TB (sparse)", sparse_weights, REFUSED, "allowed"),
        Kind("weights", "a named pipe", weights_pipe, REFUSED, ""),
    ]


def as_predictions(
    change: Callable[[dict[str, bytes]], Mapping[str, bytes] | bytes],
) -> Callable[[Path], int]:
    def write(root: Path) -> int:
        path = root / records.RUN / "predictions.npz"
        made = change(records.sound_arrays(path))
        path.write_bytes(made if isinstance(made, bytes) else records.npz(made))
        return 1

    return write


def predictions() -> list[Kind]:
    def kind(name: str, says: str, change: Callable[[dict[str, bytes]], Any]) -> Kind:
        return Kind("predictions", name, as_predictions(change), LEFT_OUT, says)

    npy, array = records.npy, records.of_array
    zeros = bytes(10**8)
    return [
        kind("zero bytes", "", lambda a: b""),
        kind("truncated", "", lambda a: records.npz(a)[:-30]),
        kind("pickled arrays", "holds object", lambda a: a | {"y_true": array([{"x": 1}], object)}),
        kind("bomb: 600 MB of zeros in 600 kB", "allowed", lambda a: a | {
            "y_score": npy((75_000_000,), "<f8", bytes(600_000_000))}),
        kind("bomb: a header of 10^12 values", "its header says", lambda a: a | {
            "y_score": npy((10**12,), "<f8", b"")}),
        kind("bomb: text 100 MB wide", "", lambda a: a | {"sample_id": npy((1,), "<U25000000", zeros)}),
        kind("lengths that lie", "its header says", lambda a: a | {"y_true": npy((999,), "<i8", bytes(8))}),
        kind("lengths that differ", "different lengths", lambda a: a | {"y_true": array([0, 1])}),
        kind("negative lengths", "", lambda a: a | {"y_true": npy((-1,), "<i8", b"")}),
        kind("a header that is no header", "no sound header", lambda a: a | {"y_true": broken_header(a["y_true"])}),
        kind("an array missing", "", lambda a: {name: data for name, data in a.items() if name != "split"}),
        kind("NaN", "not all probabilities", lambda a: a | {"y_score": _like(a["y_score"], np.nan)}),
        kind("infinity", "not all probabilities", lambda a: a | {"y_score": _like(a["y_score"], np.inf)}),
        kind("logits for probabilities", "not all probabilities", lambda a: a | {"y_score": _like(a["y_score"], 3.0)}),
        kind("words for numbers", "holds <U", lambda a: a | {"y_true": array(["stroke"] * 5)}),
        kind("classes that are none", "truth names a class", lambda a: a | {
            "y_true": _like(a["y_true"], 7).replace(b"<f8", b"<i8")}),
        kind("names that steer a terminal", "unprintable", lambda a: a | {
            "patient": _like(a["patient"], "\x1b[2J")}),
        Kind("predictions", "plausible: the truth for scores", sealed(as_predictions(
            lambda a: a | {"y_score": records.of_array(_values(a["y_true"]) * 0.8 + 0.1)})), LEFT_OUT,
            "is not the file"),
    ]  # fmt: skip


def sealed(write: Callable[[Path], int]) -> Callable[[Path], int]:
    """What `write` does, done to a study whose records have the digests that this version writes."""

    def write_sealed(root: Path) -> int:
        from study_fixture import seal_records

        seal_records(root)
        return write(root)

    return write_sealed


def broken_header(member: bytes) -> bytes:
    """Brackets that never close, which NumPy's parser takes for a file of Python 2."""
    return member[:10] + member[10:].replace(b"(", b"((").replace(b"  ", b" ", 1)


def _like(member: bytes, value: object) -> bytes:
    """An array as long as a member, of one value."""
    return records.of_array(np.full(len(_values(member)), value))


def _values(member: bytes) -> np.ndarray:
    return np.load(io.BytesIO(member))


def as_record(name: str, change: Callable[[Any], Any]) -> Callable[[Path], int]:
    """A JSON file of the study changed, or replaced where `change` gives bytes."""

    def write(root: Path) -> int:
        path = root / name
        made = change(json.loads(path.read_bytes()))
        path.write_bytes(made if isinstance(made, bytes) else json.dumps(made).encode())
        return 1

    return write


def put(*keys: str, value: Any) -> Callable[[Any], Any]:
    def change(document: Any) -> Any:
        holder = document
        for key in keys[:-1]:
            holder = holder[key]
        holder[keys[-1]] = value
        return document

    return change


def record_kinds() -> list[Kind]:
    run, html = (
        f"{records.RUN}/run.json",
        '</td><script>alert(1)</script>\' " onload="alert(2) \x1b]0;x\x07 \\input{x}',
    )
    deep = b'{"a":' * 200_000

    def of_run(name: str, expected: str, change: Callable[[Any], Any], says: str = "") -> Kind:
        return Kind("record", f"run.json: {name}", as_record(run, change), expected, says)

    def of_study(name: str, change: Callable[[Any], Any], says: str = "") -> Kind:
        return Kind("record", f"study.json: {name}", as_record("study.json", change), REFUSED, says)

    return [
        of_run("zero bytes", LEFT_OUT, lambda d: b"", "damaged"),
        of_run("nested 200,000 deep", LEFT_OUT, lambda d: deep, "damaged"),
        of_run("17 MB of blanks", LEFT_OUT, lambda d: b"{}" + b" " * 17 * 2**20, "damaged"),
        of_run("NaN", LEFT_OUT, put("timings", "train_seconds", value=float("nan")), "damaged"),
        of_run("a number of 4,000 digits", LEFT_OUT, put("threads", value=10**4000), "threads"),
        of_run("text for a number", LEFT_OUT, put("threshold", "value", value="<b>"), "threshold.value"),
        of_run("a list for an object", LEFT_OUT, put("timings", value=[1, 2]), "timings"),
        of_run("an object for text", LEFT_OUT, put("device", value={"x": 1}), "device"),
        of_run("spec of 10^12 px", LEFT_OUT, put("spec", "image_size", value="10" * 20), "spec"),
        of_run("of another run", LEFT_OUT, put("run", "seed", value=5), "not the record"),
        of_run("HTML, escapes and formulas as text", READ, put("command", value=html)),
        of_run("the same as setting", READ, put("environment", html, value=html)),
        of_study("zero bytes", lambda d: b""),
        of_study("nested 200,000 deep", lambda d: deep),
        of_study("a list", lambda d: b"[]"),
        of_study("10^9 seeds", put("study", "seeds", value=10**9), "seeds"),
        of_study("a million runs", lambda d: put("study", "folds", value=1000)(put("study", "seeds", value=9999)(d)),
                 "runs"),
        of_study("frameworks that are paths", put("study", "frameworks", value=["../../../../etc", "torch"]),
                 "frameworks"),
        of_study("lanes that are HTML", put("study", "lanes", value=["<script>"]), "lanes"),
        of_study("a spec of 10^9 px", put("study", "specs", "binary/cnn", "image_size", value=10**9), "image_size"),
        of_study("a list for an object", put("pretrained", value=[1]), "pretrained"),
        of_study("words for numbers", put("study", "folds", value="all"), "folds"),
        Kind("record", "study.json: a cache elsewhere", as_record(
            "study.json", put("caches", value={"128": "../../elsewhere"})), REFUSED, "within the study's folder"),
        Kind("record", "study.json: a cache at an absolute path", as_record(
            "study.json", put("caches", value={"128": "/etc"})), REFUSED, "within the study's folder"),
        Kind("record", "study.json: weights elsewhere", as_record("study.json", put(
            "pretrained", value={"densenet121": {"path": "../../x", "source": "", "sha256": ""}})), REFUSED,
            "does not lie in the study"),
        Kind("record", "samples.csv: an id twice", doubled("data/samples.csv"), REFUSED, "twice"),
        Kind("record", "split.csv: a sample twice", doubled("data/split.csv"), REFUSED, "twice"),
        Kind("record", "samples.csv: garbage", garbage("data/samples.csv"), REFUSED, ""),
        Kind("record", "audit.json: HTML, escapes and formulas as text", as_record("data/audit.json", put(
            "unreadable", value=[{"id": html, "path": html, "reason": html}])), READ),
        Kind("record", "audit.json: odd types", as_record("data/audit.json", lambda d: {
            **d, "unreadable": {"x": 1}, "patients_from": [1], "findings": "x", "skipped_tasks": 3}), READ),
        Kind("record", "history.csv: words", garbage(f"{records.RUN}/history.csv"), REFUSED, ""),
        Kind("record", "plausible: run.json with another time", sealed(as_record(
            run, put("timings", "train_seconds", value=1.5))), LEFT_OUT, "was changed after"),
        Kind("record", "plausible: history.csv without its last epoch", sealed(shortened(f"{records.RUN}/history.csv")),
            REFUSED, "is not the file"),
        Kind("record", "plausible: samples.csv without its last sample", sealed(shortened("data/samples.csv")),
            REFUSED, "is not the file"),
        Kind("record", "plausible: split.csv without its last sample", sealed(shortened("data/split.csv")),
            REFUSED, "is not the file"),
    ]  # fmt: skip


def doubled(name: str) -> Callable[[Path], int]:
    def write(root: Path) -> int:
        text = (root / name).read_text()
        (root / name).write_text(text + text.splitlines()[1] + "\n")
        return 1

    return write


def shortened(name: str) -> Callable[[Path], int]:
    def write(root: Path) -> int:
        lines = (root / name).read_text().splitlines(keepends=True)
        (root / name).write_text("".join(lines[:-1]))
        return 1

    return write


def garbage(name: str) -> Callable[[Path], int]:
    def write(root: Path) -> int:
        (root / name).write_bytes(b'"a,b\n\0\xff' * 50)
        return 1

    return write


def all_kinds() -> list[Kind]:
    return [
        *pictures(), *masks(), *names(), *tables(), *weights(), *predictions(), *record_kinds(),
    ]  # fmt: skip
