"""The files that creature families stand in: JSON as people and Windows editors write it, every fault named."""

from __future__ import annotations

import difflib
import json
import os
import re
import reprlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from tunesmith.catalog.concepts import LARGEST_STRENGTH
from tunesmith.errors import CatalogError
from tunesmith.recipe.checks import is_control

LARGEST_BYTES = 2**20
TEXTS = ("lora_path", "trigger", "negative_prompt", "engine", "base_model", "notes")
FIELDS = (*TEXTS, "scale")
_LONG = ("negative_prompt", "notes")  # what may hold several lines
_EXAMPLE = '{"lora_path": "lora/ghoul.safetensors", "trigger": "ghoul", "scale": 0.8}'
_ESCAPE = re.compile(r'\\(["\\/bfnrt]|u[0-9a-fA-F]{4})|\\')
# JSON reads "lora\new\big.safetensors" with a line break and a backspace in it, which no path holds.
_BACKSLASHES = str.maketrans({"\\": "/", "\b": "/b", "\f": "/f", "\n": "/n", "\r": "/r", "\t": "/t"})


@dataclass(frozen=True)
class Problem:
    """What is wrong with one entry, or (`name` is empty) with a whole file. `source` is the file below its project."""

    name: str
    source: str
    found: str
    expected: str = ""
    do: str = ""

    def error(self) -> CatalogError:
        """The problem as an error."""
        return CatalogError(self.found, expected=self.expected, do=self.do)


@dataclass(frozen=True)
class Note:
    """Something odd that stops nothing, about one entry or (`name` is empty) a whole file."""

    name: str
    source: str
    text: str


@dataclass(frozen=True)
class Document:
    """A file's entries by name, as found, and what is odd about it."""

    entries: Mapping[str, Any]
    notes: tuple[str, ...] = ()


def read_document(file: Path, source: str) -> Document | Problem:
    """The object in `file`, in any Unicode encoding; single backslashes are read as they are meant."""
    try:
        if not file.is_file():
            return Problem("", source, f"{file} is no file", do="put one in its place, or move it away")
        with file.open("rb") as stream:
            data = stream.read(LARGEST_BYTES + 1)
    except OSError as error:
        return Problem("", source, f"{file} cannot be read: {error.strerror or error}", do="check its permissions")
    if len(data) > LARGEST_BYTES:
        return Problem("", source, f"{file} is too large", expected=f"less than {LARGEST_BYTES // 2**20} MiB of JSON")
    example = f'{{"ghoul": {_EXAMPLE}}}'
    try:
        document, notes = _parsed(data.decode(json.detect_encoding(data)))
    except UnicodeDecodeError as error:
        return Problem("", source, f"{file} is no text: {error.reason}", expected="JSON in UTF-8")
    except json.JSONDecodeError as error:
        found = f"{file} is no JSON: line {error.lineno}, column {error.colno}: {error.msg}"
        return Problem("", source, found, expected=example)
    except (ValueError, RecursionError) as error:
        return Problem("", source, f"{file} is no JSON: {error}", expected=example)
    if not isinstance(document, dict):
        return Problem("", source, f"{file} holds {_kind(document)}", expected=f"an object such as {example}")
    return Document(document, tuple(f"{file}: {note}" for note in notes))


def read_fields(entry: Any, where: str, *, needs_lora: bool) -> dict[str, Any] | CatalogError:
    """The fields that an entry states, checked, or what is wrong with it; `where` names file and entry.

    Empty text and null count as not stated. Unknown fields are left out (see `unknown_fields`).
    """
    if not isinstance(entry, dict):
        return CatalogError(f"{where} is {_kind(entry)}", expected=f"an object such as {_EXAMPLE}")
    stated: dict[str, Any] = {}
    for name in TEXTS:
        value = entry.get(name)
        if value is not None and not isinstance(value, str):
            return CatalogError(f"{where}: {name} is {_kind(value)}", expected="text in quotes")
        text = (value or "").translate(_BACKSLASHES if name == "lora_path" else {}).strip()
        kept = "\n\r\t" if name in _LONG else ""
        if any(is_control(letter) and letter not in kept for letter in text):
            return CatalogError(f"{where}: {name} is {reprlib.repr(text)}", expected="no control characters")
        if text:
            stated[name] = text
    scale = entry.get("scale")
    if scale is not None:
        if isinstance(scale, bool) or not isinstance(scale, int | float):
            return CatalogError(f"{where}: scale is {_kind(scale)}", expected="a number, without quotes")
        if not abs(scale) <= LARGEST_STRENGTH:  # false for NaN too
            expected = f"a number from {-LARGEST_STRENGTH:g} to {LARGEST_STRENGTH:g}"
            return CatalogError(f"{where}: scale is {reprlib.repr(scale)}", expected=expected)
        stated["scale"] = float(scale)
    if needs_lora and "lora_path" not in stated:
        meant = next((name for name in unknown_fields(entry) if _near(name) == "lora_path"), None)
        do = f"is {meant!r} meant as lora_path?" if meant else ""
        return CatalogError(f"{where}: lora_path is missing", expected="the path of a LoRA", do=do)
    return stated


def unknown_fields(entry: Any) -> dict[str, str]:
    """Fields that mean nothing here, each with what to say about it; `_…` and `$…` are comments."""
    found = [name for name in entry if name not in FIELDS and name[:1] not in ("_", "$")]
    return {name: f"did you mean {near!r}?" if (near := _near(name)) else "it is ignored" for name in found}


def lora_file(text: str, project: Path) -> Path:
    """Where a `lora_path` lies: below the project, in the user's folder (`~`), or as it is.

    A path with a drive letter, read on another system, is taken as WSL shows that drive: `C:/x` is `/mnt/c/x`.
    """
    windows = PureWindowsPath(text)
    if os.name != "nt" and len(windows.drive) == 2 and windows.root:
        return Path("/mnt", windows.drive[0].lower(), *windows.parts[1:])
    path = Path(text)
    with suppress(RuntimeError):  # a user whom this machine does not know: then no such file exists either
        path = path.expanduser()
    return project / path


def _parsed(text: str) -> tuple[Any, tuple[str, ...]]:
    """The document and what is odd about it. Raises ValueError or RecursionError where it is no JSON."""
    twice: list[str] = []

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in found]
        if len(set(names)) < len(names):
            twice.extend(name for name in dict.fromkeys(names) if names.count(name) > 1)
        return dict(found)

    notes: tuple[str, ...] = ()
    try:
        document = json.loads(text, object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        if "escape" not in error.msg:
            raise
        twice.clear()
        mended = _ESCAPE.sub(lambda found: found[0] if found[1] else r"\\", text)
        document = json.loads(mended, object_pairs_hook=pairs)
        notes = (r"single backslashes are read as they stand; write / or \\ instead",)
    return document, (*notes, *(f"{name!r} is written twice; the last one counts" for name in dict.fromkeys(twice)))


def _near(name: str) -> str | None:
    return next(iter(difflib.get_close_matches(name.casefold(), FIELDS, n=1)), None)


def _kind(value: Any) -> str:
    """What a JSON value is, for a person."""
    words = {dict: "an object", list: "a list", str: "the text", bool: "", type(None): ""}
    word = words.get(type(value), "the number")
    shown = json.dumps(value) if value is None or isinstance(value, bool) else reprlib.repr(value)
    return word if isinstance(value, dict | list) else f"{word} {shown}".strip()
