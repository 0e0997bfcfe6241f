"""A folder appears whole or not at all, whoever else writes or dies."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tunesmith.data.whole_folder import clear_leftovers, is_filled, whole_folder
from tunesmith.errors import DataError, DiskFull

KILLED = -signal.SIGKILL if os.name != "nt" else 1


def filled(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "file").write_text(text)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def run_until_killed(code: str, *words: object) -> None:
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == KILLED, done.stderr


def test_it_appears_with_all_that_was_put_in(tmp_path):
    out = tmp_path / "new" / "parents" / "out"
    with whole_folder(out) as folder:
        (folder / "file").write_text("x")
        assert not out.exists()
    assert (out / "file").read_text() == "x"
    assert names(out.parent) == ["out"]


def test_an_empty_folder_is_in_nobodys_way(tmp_path):
    (tmp_path / "out").mkdir()
    with whole_folder(tmp_path / "out") as folder:
        (folder / "file").write_text("x")
    assert names(tmp_path / "out") == ["file"]


def test_an_error_leaves_nothing_not_even_parents(tmp_path):
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "a" / "b" / "out") as folder:  # noqa: PT012
        (folder / "file").write_text("x")
        raise ZeroDivisionError
    assert names(tmp_path) == []


def test_an_error_leaves_the_old_one(tmp_path):
    out = filled(tmp_path / "out", "old")
    with pytest.raises(KeyboardInterrupt), whole_folder(out, replace=True) as folder:  # noqa: PT012
        (folder / "file").write_text("new")
        raise KeyboardInterrupt
    assert (out / "file").read_text() == "old"
    assert names(tmp_path) == ["out"]


def test_replaced_only_when_complete(tmp_path):
    out = filled(tmp_path / "out", "old")
    with whole_folder(out, replace=True) as folder:
        (folder / "file").write_text("new")
        assert (out / "file").read_text() == "old"
    assert (out / "file").read_text() == "new"
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("replace", [False, True])
def test_who_comes_second_keeps_off(tmp_path, replace):
    """Another writer that knows nothing of our locks puts its folder there first."""
    out = tmp_path / "out"
    if replace:
        filled(out, "old")
    with pytest.raises(DataError, match="in the meantime"), whole_folder(out, replace=replace) as folder:  # noqa: PT012
        (folder / "file").write_text("ours")
        if replace:
            out.rename(tmp_path / "moved")
        filled(out, "theirs")
    assert (out / "file").read_text() == "theirs"
    assert not [name for name in names(tmp_path) if name.startswith(".")]


def test_a_living_writer_is_named(tmp_path):
    out = tmp_path / "out"
    with whole_folder(out), pytest.raises(DataError, match="another process is writing"):
        clear_leftovers(out)
    with whole_folder(out.with_name("out.other")):
        clear_leftovers(out)  # of another name


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_killed_while_writing(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from tunesmith.data.whole_folder import whole_folder\n"
        "with whole_folder(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'file').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    run_until_killed(code, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert len(names(tmp_path)) == 1
    clear_leftovers(tmp_path / "out")
    assert names(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_killed_between_the_two_renames(tmp_path):
    """The one moment when neither stands there: the old one comes back."""
    filled(tmp_path / "out", "old")
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from tunesmith.data.whole_folder import whole_folder\n"
        "real, done = Path.rename, []\n"
        "def rename(self, target):\n"
        "    if done: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    done.append(real(self, target))\n"
        "Path.rename = rename\n"
        "with whole_folder(Path(sys.argv[1]), replace=True) as folder:\n"
        "    (folder / 'file').write_text('new')\n"
    )
    run_until_killed(code, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    clear_leftovers(tmp_path / "out")
    assert (tmp_path / "out" / "file").read_text() == "old"
    assert names(tmp_path) == ["out"]


def test_a_full_disk_and_a_file_in_the_way(tmp_path):
    with pytest.raises(DiskFull, match="no room"), whole_folder(tmp_path / "out"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match="file is a file"), whole_folder(tmp_path / "file" / "out"):
        pass
    assert names(tmp_path) == ["file"]


def test_long_names_fit(tmp_path):
    out = tmp_path / ("ä" * 120)  # 240 bytes
    with whole_folder(out) as folder:
        (folder / "file").write_text("x")
    assert is_filled(out)
    assert not is_filled(tmp_path / "missing")
