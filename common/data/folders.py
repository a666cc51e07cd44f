"""Looking around in folders: what is there, without hidden entries and leavings, and in words for a message."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from common import config
from common.errors import StudyError
from common.files import file_digest
from common.names import UNSHOWN

DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".ima"})
# Listed as pictures; the second row is refused when decoded, by name, rather than left out in silence.
PICTURE_SUFFIXES = (
    frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"} | {".gif", ".webp", ".jp2", ".heic"})
    | DICOM_SUFFIXES
)
LEAVINGS = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini", "DICOMDIR"})
NOT_INPUT = frozenset({"masks", "overlay"})  # truth, never looked through for pictures
DEPTH = 2  # levels below the given folder at which a data set may lie
HASH_THREADS = 4


# --- walking ------------------------------------------------------------------------------------------------------


def existing_folder(directory: Path | str) -> Path:
    """The absolute path of a folder that holds something. Raises StudyError otherwise."""
    path = Path(directory)
    if UNSHOWN.search(str(path)):  # line breaks, and bytes that are no UTF-8, which no table can hold
        raise StudyError(f"data folder {str(path)!a} has a name with unprintable characters; rename it")
    try:
        path.stat()
    except (OSError, ValueError) as error:
        reason = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be opened ({error})"
        raise StudyError(f"data folder {path} {reason}; check the path") from None
    if not path.is_dir():
        raise StudyError(
            f"{path} is a file; give the folder that holds Normal/ and Stroke/ (unpack archives first)"
        )
    whole = path.resolve()
    if UNSHOWN.search(str(whole)):
        raise StudyError(f"data folder {str(whole)!a} lies in one with unprintable characters; rename that")
    return whole


def entries(folder: Path) -> list[Path]:
    """What a folder holds, by name, without hidden entries and the leavings of archivers."""
    try:
        found = sorted(folder.iterdir())
    except OSError as error:
        raise StudyError(
            f"folder {folder} cannot be listed ({error.strerror}); check its permissions"
        ) from error
    return [entry for entry in found if not entry.name.startswith(".") and entry.name not in LEAVINGS]


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder; none where it cannot be listed (`lost+found`), for no layout is seen there."""
    try:
        return [entry for entry in entries(folder) if entry.is_dir()]
    except StudyError:
        return []


def named_subfolders(folder: Path, names: frozenset[str]) -> dict[str, Path]:
    """Name in small letters -> the folder in `folder` so named. Two spellings of one name are refused."""
    found: dict[str, Path] = {}
    for child in subfolders(folder):
        name = child.name.casefold()
        if name in names and name in found:
            raise StudyError(
                f"{folder} has both {found[name].name}/ and {child.name}/; merge them into one folder"
            )
        if name in names:
            found[name] = child
    return found


def levels(root: Path) -> Iterator[list[Path]]:
    """The folder itself, those in it, and those in them; masks and overlays left out."""
    level = [root]
    for _ in range(DEPTH + 1):
        yield level
        level = [
            child
            for folder in level
            for child in subfolders(folder)
            if child.name.casefold() not in NOT_INPUT
        ]


def upwards(base: Path, root: Path) -> list[Path]:
    """`base` and the folders above it, as far as `root`."""
    return [base, *(parent for parent in base.parents if parent.is_relative_to(root))]


# --- files --------------------------------------------------------------------------------------------------------


def pictures_in(
    folder: Path, suffixes: frozenset[str] = PICTURE_SUFFIXES, beside: frozenset[str] = frozenset()
) -> list[Path]:
    """The pictures that lie directly in a folder; pictures deeper down are refused rather than missed, but in the
    folders named in `beside`.
    """
    files = []
    for entry in entries(folder):
        if entry.is_dir():
            if entry.name.casefold() not in beside and any(
                child.suffix.casefold() in suffixes for child in entries(entry)
            ):
                raise StudyError(f"{entry} holds pictures, but they must lie directly in {folder.name}/")
        elif entry.suffix.casefold() in suffixes:
            if UNSHOWN.search(entry.name):  # line breaks, and bytes that are no UTF-8
                raise StudyError(f"{str(entry)!a} has a name with unprintable characters; rename it")
            files.append(entry)
    return files


def by_stem(files: Sequence[Path]) -> dict[str, Path]:
    """Name without suffix -> file. Raises StudyError where two files share it."""
    found: dict[str, Path] = {}
    for file in files:
        if file.stem in found:
            raise StudyError(f"{found[file.stem]} and {file} differ in their suffix only; keep one of them")
        found[file.stem] = file
    return found


def digests(files: Sequence[Path]) -> dict[Path, str]:
    """The sha256 of each file's bytes; empty for what cannot be opened or is too large to be decoded."""
    distinct = list(dict.fromkeys(files))
    with ThreadPoolExecutor(HASH_THREADS) as pool:
        return dict(zip(distinct, pool.map(_sha256, distinct), strict=True))


def _sha256(file: Path) -> str:
    try:
        # Opening a pipe would wait for ever.
        if not file.is_file() or file.stat().st_size > config.MAX_FILE_BYTES:
            return ""
        return file_digest(file)
    except OSError:
        return ""


# --- in words -----------------------------------------------------------------------------------------------------


def source_names(roots: Sequence[Path]) -> list[str]:
    """Folder names, made unique in the order given: data, data-2, ..."""
    repeated = next((root for root in roots if roots.count(root) > 1), None)
    if repeated:
        raise StudyError(
            f"data folder {repeated} is given twice; its images would be on both sides of a split"
        )
    names: list[str] = []
    for root in roots:
        base = root.name or "data"
        numbered = (f"{base}-{number}" for number in itertools.count(2))
        names.append(next(name for name in itertools.chain([base], numbered) if name not in names))
    return names


def describe(root: Path, most: int = 10) -> str:
    """The first entries of a folder, one a line, for a message."""
    found = entries(root)
    lines = []
    for entry in found[:most]:
        if entry.is_dir():
            lines.append(f"  {entry.name}/ ({number(entries(entry), 'file')})")
        else:
            lines.append(f"  {entry.name}")
    if len(found) > most:
        lines.append(f"  ... and {len(found) - most} more")
    return "\n".join(["", *lines])


def number(things: Sized, noun: str) -> str:
    """`1 file`, `3 files`."""
    return f"{len(things)} {noun}" if len(things) == 1 else f"{len(things)} {noun}s"
