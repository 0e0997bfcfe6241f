"""Folders that are written anew: only what an earlier run wrote goes away. No torch."""

from __future__ import annotations

import shutil
from pathlib import Path

from tunesmith.errors import DataError
from tunesmith.weights.atomic import explained, write_text

MARK = "written-by-tunesmith.txt"
_SAYS = "This folder is replaced whenever the command that wrote it runs again. Keep nothing else here.\n"


def check_replaceable(folder: Path, mark: str = MARK) -> None:
    """Raise DataError where `folder` is a file, or holds things and no file called `mark`: somebody else's."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise DataError(f"{folder} is not a folder", expected="a folder that can be replaced", do="choose another")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / mark).exists():
        raise DataError(
            f"{folder} holds files that were not written by this command, and it would replace them",
            expected="an empty folder, or none",
            do="choose another, or move what is there",
        )


def check_apart(one: Path, other: Path) -> None:
    """Raise DataError where one of two folders is the other or lies inside it: replacing one would take the other."""
    first, second = one.resolve(), other.resolve()
    if first.is_relative_to(second) or second.is_relative_to(first):
        raise DataError(f"{one} and {other} lie in one another", expected="two folders apart", do="choose another")


def emptied(folder: Path) -> Path:
    """The folder, there and empty but for its mark. Raises DataError, see `check_replaceable`."""
    check_replaceable(folder)
    shutil.rmtree(folder, ignore_errors=True)
    with explained(folder):
        folder.mkdir(parents=True)
    write_text(folder / MARK, _SAYS)
    return folder
