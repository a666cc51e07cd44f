"""Digests by which a record tells whether it and its files are still what was written."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from common import seals
from common.errors import StudyError
from common.results import read_json, write_json


def test_a_record_that_was_changed_is_told(tmp_path: Path) -> None:
    written = {"seconds": 0.1 + 0.2, "whole": 3, "nested": {"b": [1.0, None, "ü \u202e"], "a": True}}
    write_json(tmp_path / "run.json", seals.sealed(written))
    read = read_json(tmp_path / "run.json")
    assert not seals.is_broken(read)
    assert {name: value for name, value in read.items() if name != seals.SEAL} == written
    assert not seals.is_broken(dict(reversed(read.items())))  # the order of names says nothing
    assert seals.is_broken(read | {"seconds": 0.3})
    assert seals.is_broken(read | {"whole": 3.0})
    assert seals.is_broken(read | {"more": 1})
    assert seals.sealed(read) == read
    assert not seals.is_broken(written)  # of an earlier version


def test_another_file_in_a_files_place_is_told(tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    path.write_bytes(b"one")
    document = {"files": seals.file_digests(tmp_path, (path.name,))}
    seals.check_file(path, document)
    path.write_bytes(b"two")
    with pytest.raises(StudyError, match=r"not the file .* run\.json\); .* delete its folder"):
        seals.check_file(path, document)
    with pytest.raises(StudyError, match="repeat the study's command"):
        seals.check_file(path, document, "study.json")
    for without in ({}, {"files": {}}, {"files": ["odd"]}):  # of an earlier version, or no sound record
        seals.check_file(path, without)
    path.unlink()  # who reads it says so
    seals.check_file(path, document)


def test_a_file_that_cannot_be_read_is_told_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "history.csv"
    path.write_bytes(b"one")
    document = {"files": seals.file_digests(tmp_path, (path.name,))}

    def fail(path: Path) -> str:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(seals, "file_digest", fail)
    with pytest.raises(StudyError, match=r"history\.csv cannot be read \(Input/output error\)"):
        seals.check_file(path, document)
