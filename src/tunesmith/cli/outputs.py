"""Where `tunesmith generate` writes: paths as they were typed, checked before anything is loaded."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.errors import DataError, RecipeError

if TYPE_CHECKING:
    from tunesmith.cli.screen import Screen

PICTURE_ENDINGS = (".png",)
SOUND_ENDINGS = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3")
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_FORMAT_OF = {".oga": "ogg", ".opus": "ogg"}


def as_path(text: str, flag: str, screen: Screen) -> Path:
    """The path that was meant: backslashes part folders, as PowerShell writes them, also where they need not."""
    if os.sep == "\\" or "\\" not in text or Path(text).exists():
        return Path(text)
    if _WINDOWS.match(text):
        raise RecipeError(f"{flag} {text} is a path of a Windows machine", expected="a path of this one")
    path = Path(text.replace("\\", "/"))
    screen.say(f"{flag} {text} is read as {path}")
    return path


def check_out(out: Path, endings: Sequence[str], count: int, *, flag: str = "--out") -> None:
    """Refuse a place that cannot be written before anything is loaded; `endings` are those of one file."""
    one_file = is_one_file(out, endings)
    if one_file and count > 1:
        raise RecipeError(f"{flag} {out} is one file and --count is {count}", do="name a folder")
    if one_file and out.is_dir():
        raise RecipeError(f"{flag} {out} is a folder", expected=f"a {endings[0]} file, or a folder without that ending")
    folders = out.parents if one_file else (out, *out.parents)
    blocked = next((folder for folder in folders if folder.exists() and not folder.is_dir()), None)
    if blocked is not None:
        raise RecipeError(f"{flag} {out}: {blocked} is a file", expected="a folder", do=f"name another with {flag}")


def refuse_existing(files: Sequence[Path], *, force: bool) -> None:
    """Raise RecipeError for a file that is there already."""
    found = next((file for file in files if file.is_file()), None)
    if found is not None and not force:
        raise RecipeError(f"{found} is there already", do="choose another name, or replace it with --force")


def is_one_file(out: Path, endings: Sequence[str]) -> bool:
    """Whether --out names a file rather than a folder."""
    return out.suffix.lower() in endings


def sound_ending(out: Path, out_format: str | None) -> str:
    """What the sounds of a run end in. Raises DataError for an ending that we do not write."""
    suffix = out.suffix.lower()
    if suffix in SOUND_ENDINGS and not out.is_dir():
        if out_format is not None and _FORMAT_OF.get(suffix, suffix[1:]) != out_format:
            raise RecipeError(f"--out ends in {suffix} and --out-format is {out_format}", do="leave one of them out")
        return suffix
    if suffix and not out.is_dir():
        raise DataError(
            f"--out {out} names no format we write",
            expected=f"one of {', '.join(SOUND_ENDINGS)}, or a folder",
            do="name the format in the ending, or a folder and --out-format",
        )
    return f".{out_format or 'wav'}"


def free(path: Path) -> Path:
    """The path, or the first of `NAME-2.png`, `NAME-3.png` … that nothing has."""
    number, found = 2, path
    while found.exists():
        found = path.with_stem(f"{path.stem}-{number}")
        number += 1
    return found


def slug(text: str, otherwise: str) -> str:
    """A prompt as a part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:50] or otherwise
