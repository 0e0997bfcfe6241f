"""Write a draft beside the target, prove it, and only then let it appear."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tunesmith.engines.protocol import Base
from tunesmith.errors import ExchangeError
from tunesmith.weights.atomic import explained, fsync_folder, replace_folder

Proof = TypeVar("Proof")


def weights_target(path: Path, layout: str) -> Path:
    """Where full weights land: one file gets the ending that its readers insist on."""
    if layout != "single_file" or path.suffix == ".safetensors":
        return path
    return path.with_name(f"{path.name}.safetensors")


def check_target(path: Path, base: Base, *, replace: bool = True) -> None:
    """Refuse to write over a file the base is read from, and, unless `replace`, over anything at all.

    Raises ExchangeError.
    """
    target = Path(path).resolve()
    for source in base.files:
        if target == source.resolve() or (source.is_dir() and source.resolve() in target.parents):
            raise ExchangeError(f"{path} belongs to the base {source}", do="choose another path")
    if not replace and target.exists():
        raise ExchangeError(f"{path} is there already", do="choose another path, or replace it with --force")


def settle(path: Path, write: Callable[[Path], Path], prove: Callable[[Path], Proof]) -> tuple[Path, Proof]:
    """(path to open, proof): `write(draft)` makes a file or folder and returns what to open of it, `prove` reads it.

    The draft has the target's own name in a hidden folder beside it. Whatever is raised, nothing new is at `path`,
    what was there before is as it was, and the draft is gone. Raises ExchangeError where `path` holds something
    that an export would not have written.
    """
    path = Path(path)
    hidden = path.parent / f".draft-{uuid.uuid4().hex[:12]}"
    draft = hidden / path.name
    try:
        with explained(path):
            hidden.mkdir(parents=True)
        opened = write(draft)
        draft = hidden / opened.relative_to(hidden).parts[0]
        path = path.parent / draft.name  # a writer may add the ending that its readers insist on
        proof = prove(opened)
        _refuse_to_replace(path, draft)
        with explained(path):
            if draft.is_dir():
                replace_folder(draft, path)
            else:
                draft.replace(path)
                fsync_folder(path.parent)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    return path / opened.relative_to(draft), proof


def _refuse_to_replace(path: Path, draft: Path) -> None:
    """A folder is replaced only by one that has every name in it; a file only by a file."""
    if not path.exists():
        return
    what = "a folder" if path.is_dir() else "a file"
    if path.is_dir() != draft.is_dir():
        raise ExchangeError(f"{path} is {what} already", do="choose another path")
    if path.is_dir():
        new = {entry.name for entry in draft.iterdir()}
        odd = sorted(entry.name for entry in path.iterdir() if entry.name not in new)
        if odd:
            raise ExchangeError(f"{path} is a folder that holds {odd[0]}", do="choose another path, or empty it first")
