"""Folders that are brought to a node: whole, held by who uses them, gone when nobody does."""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common import config, parcels
from common.parcels import Parcel, held, own_folder, remove, sweep
from common.shipping import pack

ROOT = Path(__file__).resolve().parents[2]
CONTENTS = {"a.json": b"{}", "data/cache/images.npy": bytes(range(25)), "empty": b""}
HOUR = 3600.0


def parcel_of(home: Path, name: str = "study") -> tuple[Parcel, Callable[[Any], bytes], list[int]]:
    """A parcel whose references are places in a list, what fetches them, and which were fetched."""
    store: list[bytes] = []
    fetched: list[int] = []

    def put(piece: bytes) -> int:
        store.append(piece)
        return len(store) - 1

    def fetch(place: int) -> bytes:
        fetched.append(place)
        return store[place]

    return pack(home, [home / path for path in CONTENTS], put, name), fetch, fetched


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(config, "SHIP_PIECE_BYTES", 10)
    for name, content in CONTENTS.items():
        path = tmp_path / "home" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "home"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "away"
    folder.mkdir()
    return folder


def read(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_a_parcel_arrives_whole_and_once(home: Path, base: Path) -> None:
    parcel, fetch, fetched = parcel_of(home)
    with held(parcel, base, fetch) as folder:
        assert read(folder) == CONTENTS
    assert fetched == [0, 1, 2, 3]  # in pieces of ten bytes
    with held(parcel, base, fetch) as again:
        assert again == folder
    assert len(fetched) == 4
    renamed, fetch, _ = parcel_of(home, "renamed")
    with held(renamed, base, fetch) as other:  # not where the same files lie as `study`
        assert read(other) == CONTENTS
        assert other != folder
    (home / "a.json").write_bytes(b"{ }")
    changed, _, _ = parcel_of(home)
    assert changed.digest != parcel.digest
    _, fetch_before, _ = parcel_of(home)
    (home / "a.json").write_bytes(b"{x}")
    lying, _, _ = parcel_of(home)
    with (
        pytest.raises(OSError, match=r"a\.json of study came with another digest"),
        held(lying, base, fetch_before),
    ):
        pass
    assert not list((base / lying.digest).rglob("*.json*"))


def test_what_a_cleaner_removed_or_a_crash_cut_is_brought_again(home: Path, base: Path) -> None:
    """While another run is at work there: it keeps what it has open."""
    parcel, fetch, fetched = parcel_of(home)
    with held(parcel, base, fetch) as folder, (folder / "data/cache/images.npy").open("rb") as at_work:
        fetched.clear()
        (folder / "a.json").unlink()
        os.truncate(folder / "data/cache/images.npy", 7)
        (folder / "own.pyc").write_bytes(b"of the run")
        with held(parcel, base, fetch):
            assert read(folder) == CONTENTS | {"own.pyc": b"of the run"}
        assert sorted(fetched) == [0, 1, 2, 3]
        assert at_work.read() == bytes(range(7))
    fetched.clear()
    (folder / "a.json").unlink()
    with held(parcel, base, fetch):
        assert fetched == [0]


def test_parcels_that_nobody_uses_are_swept(home: Path, base: Path) -> None:
    data, fetch, _ = parcel_of(home)
    code, fetch_code, _ = parcel_of(home, "code")
    whole = base / data.digest

    def clean(living: set[str], keep: float = HOUR) -> None:
        sweep(base, lambda: living, keep)

    with held(data, base, fetch, "me"), held(code, base, fetch_code):
        clean(set(), keep=-1.0)  # in use, whoever lives
        assert whole.exists()
        assert (base / code.digest).exists()
    clean({"me", "you"}, keep=-1.0)
    assert whole.exists()  # its driver lives: another run will need it
    assert not (base / code.digest).exists()
    clean({"you"})
    assert sorted(path.name for path in base.iterdir()) == ["unpack.lock"]  # at once

    with held(code, base, fetch_code):
        pass
    clean(set())
    assert (base / code.digest).exists()
    old = time.time() - 2 * HOUR
    os.utime(base / code.digest, (old, old))
    clean(set())
    assert not (base / code.digest).exists()
    with held(data, base, fetch, "me") as folder:  # after all that, as new
        assert read(folder) == CONTENTS


def test_the_lock_of_a_killed_user_is_open(home: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parcels, "REMOVE_SECONDS", 0.0)
    parcel, fetch, _ = parcel_of(home)
    with held(parcel, base, fetch, "me"):
        pass
    user = (
        "import sys; from pathlib import Path; from common.parcels import _shared\n"
        "with _shared(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", user, str(base / parcel.digest)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        remove(base, parcel.digest)
        assert (base / parcel.digest).exists()
        process.kill()
        process.wait()
    remove(base, parcel.digest)
    assert not (base / parcel.digest).exists()
    remove(base, parcel.digest)  # nothing is there


def test_who_comes_while_a_parcel_is_removed_gets_a_new_one(home: Path, base: Path) -> None:
    parcel, fetch, fetched = parcel_of(home)
    problems: list[object] = []

    def use() -> None:
        try:
            for _ in range(30):
                with held(parcel, base, fetch, "me") as folder:
                    if (found := read(folder)) != CONTENTS:
                        problems.append(found)
                time.sleep(0.001)
        except OSError as error:
            problems.append(error)

    users = [threading.Thread(target=use) for _ in range(2)]
    for thread in users:
        thread.start()
    while any(thread.is_alive() for thread in users):
        sweep(base, set, HOUR)
    assert problems == []
    assert len(fetched) > 8  # it was removed and brought again


def test_a_nodes_folder_is_its_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = own_folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert own_folder() == folder
    folder.chmod(0o777)
    with pytest.raises(OSError, match="not this user's alone"):
        own_folder()
