"""Writes are whole or not at all, whatever the disk says."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from tunesmith.errors import DiskFull, TunesmithError
from tunesmith.weights import atomic


def test_written_bytes_replace_the_old_ones_and_leave_nothing_beside(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.bin"
    atomic.write_bytes(target, b"one")
    atomic.write_bytes(target, b"two")
    assert target.read_bytes() == b"two"
    assert [entry.name for entry in target.parent.iterdir()] == ["file.bin"]


def test_json_is_utf8_indented_and_refuses_nan(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    atomic.write_json(target, {"name": "Käfer", "rate": 1e-4})
    assert json.loads(target.read_text("utf-8")) == {"name": "Käfer", "rate": 1e-4}
    assert "Käfer" in target.read_text("utf-8")
    with pytest.raises(ValueError, match="JSON"):
        atomic.write_json(target, {"rate": float("nan")})
    assert "Käfer" in target.read_text("utf-8")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_keeps_the_old_file_and_leaves_no_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    target = tmp_path / "state.bin"
    atomic.write_bytes(target, b"old")

    def full(handle: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(DiskFull, match=r"state\.bin"):
        atomic.write_bytes(target, b"new" * 1000)
    assert target.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.bin"]


def test_a_full_device_is_disk_full() -> None:
    device = Path("/dev/full")
    if not device.exists():
        pytest.skip("no /dev/full here")
    with pytest.raises(DiskFull), atomic.explained(device):
        device.write_bytes(b"x" * 100_000)


def test_a_path_under_a_regular_file_is_one_clear_error(tmp_path: Path) -> None:
    blocker = tmp_path / "notes.txt"
    blocker.write_text("mine")
    with pytest.raises(TunesmithError, match=r"notes\.txt is a file"):
        atomic.write_text(blocker / "out" / "a.safetensors", "x")
    assert blocker.read_text() == "mine"


def test_a_folder_in_the_way_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(TunesmithError, match="folder"):
        atomic.write_text(tmp_path / "out", "x")


def test_an_error_in_the_block_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    atomic.write_bytes(target, b"old")

    def interrupted() -> None:
        with atomic.writing(target) as handle:
            handle.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_takes_the_place_of_another(tmp_path: Path) -> None:
    final, temporary = tmp_path / "states" / "step-2", tmp_path / "states" / ".new"
    for round_ in ("first", "second"):
        (temporary / "sub").mkdir(parents=True)
        (temporary / "sub" / "a").write_text(round_)
        atomic.replace_folder(temporary, final)
        assert (final / "sub" / "a").read_text() == round_
        assert [entry.name for entry in final.parent.iterdir()] == ["step-2"]


def test_a_failed_swap_puts_the_old_folder_back(tmp_path: Path) -> None:
    final = tmp_path / "final"
    final.mkdir()
    (final / "a").write_text("old")
    with pytest.raises(FileNotFoundError):
        atomic.replace_folder(tmp_path / "missing", final)
    assert (final / "a").read_text() == "old"


def test_reserve_asks_the_disk_of_a_path_that_does_not_exist_yet(tmp_path: Path) -> None:
    place = tmp_path / "not" / "yet"
    atomic.reserve(place, 1)
    with pytest.raises(DiskFull, match="GB are free"):
        atomic.reserve(place, atomic.free_bytes(place) + (1 << 40))
