"""`metadata.jsonl`: one JSON object a line, naming a file and what belongs to it. No torch."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from tunesmith.data.captions import clean_text, decode_text
from tunesmith.data.records import clean_record
from tunesmith.errors import DataError

LIMIT_BYTES = 1 << 30
_LINE_LIMIT_BYTES = 10_000_000


@dataclass(frozen=True)
class Row:
    """One line. `files` are names by role, relative to the folder; `text` by role; None: the line does not say.

    `file_name` is absolute only where the line has the file's `sha256`, which the file must then have.
    """

    line: int
    file_name: str
    files: Mapping[str, str] = field(default_factory=dict)
    text: Mapping[str, str] = field(default_factory=dict)
    concept: str | None = None
    group: str | None = None
    weight: float = 1.0
    repeats: int = 1
    credits: Mapping[str, Any] = field(default_factory=dict)
    held_out: bool | None = None
    sha256: str | None = None


_TEXT_FIELDS = {"text": "caption", "caption": "caption", "lyrics": "lyrics", "tags": "tags"}
_FILE_FIELDS = ("mask", "control")
_SPLITS = {"train": False, "held_out": True}
_FIELDS = (
    "file_name", *_TEXT_FIELDS, *_FILE_FIELDS, "concept", "family", "group", "weight", "repeats", "credits", "licence",
    "sha256",
)  # fmt: skip
# Written beside by `dataset prepare`, for people.
_KNOWN = ("engine", "seed", "created_utc", "seconds", "source")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def read_metadata(path: Path) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """The rows and notes on what was ignored. Blank lines are skipped.

    Raises DataError naming the line: not JSON, no `file_name`, a path that leaves the folder, a value of another kind,
    a file named twice.
    """
    if path.stat().st_size > LIMIT_BYTES:
        raise DataError(f"{path} is over 1 GiB", expected="one short line per item", do="split the dataset")
    rows: dict[str, Row] = {}
    unknown: dict[str, int] = {}
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        record = _parsed(line, where)
        row = _row(record, number, where)
        if row.file_name in rows:
            raise DataError(
                f"{where}: {row.file_name!r} stands in line {rows[row.file_name].line} too",
                expected="each file once",
                do="remove one of the lines",
            )
        rows[row.file_name] = row
        unknown.update({name: number for name in record if name not in unknown and not _is_used(name, record[name])})
    notes = tuple(f"{path}: field {name!r} (first in line {line}) is not used" for name, line in unknown.items())
    return tuple(rows.values()), notes


def _is_used(name: str, value: Any) -> bool:
    return name in _FIELDS or name in _KNOWN or (name == "split" and isinstance(value, str) and value in _SPLITS)


def _parsed(line: bytes, where: str) -> dict[str, Any]:
    if len(line) > _LINE_LIMIT_BYTES:
        raise DataError(f"{where} is longer than 10 MB", do="shorten it")
    try:
        record = json.loads(decode_text(line, where))
    except (ValueError, RecursionError) as error:
        reason = str(error).split(": line")[0] or type(error).__name__
        raise DataError(
            f"{where} is not JSON ({reason})", expected="one object a line", do="correct that line"
        ) from None
    if not isinstance(record, dict):
        raise DataError(f"{where} is no JSON object", expected='{"file_name": …, "text": …}', do="correct that line")
    return record


def _row(record: Mapping[str, Any], number: int, where: str) -> Row:
    name = record.get("file_name")
    if not isinstance(name, str) or not name:
        raise DataError(f"{where} has no file_name", expected="the file's name as text", do="correct that line")
    texts = {
        role: clean_text(_text(record[key], key, where), f"{where}, {key}")
        for key, role in _TEXT_FIELDS.items()
        if record.get(key) is not None
    }
    optional = {
        key: clean_text(_text(record[key], key, where), f"{where}, {key}")
        for key in ("concept", "family", "group")
        if record.get(key) is not None
    }
    sha256 = record.get("sha256")
    outside = Path(name).is_absolute() and isinstance(sha256, str) and _SHA256.fullmatch(sha256) is not None
    split = record.get("split")
    return Row(
        line=number,
        # Who knows the hash of a file has seen it: a line from elsewhere cannot make us read what is ours.
        file_name=_absolute(name, where) if outside else _inside(name, where),
        files={
            key: _inside(_text(record[key], key, where), where) for key in _FILE_FIELDS if record.get(key) is not None
        },
        text=texts,
        concept=optional.get("concept", optional.get("family")),
        group=optional.get("group"),
        weight=_number(record.get("weight", 1.0), "weight", where, 0, 1e6),
        repeats=_whole(record.get("repeats", 1), where),
        credits=_credits(record, where),
        held_out=_SPLITS.get(split) if isinstance(split, str) else None,
        sha256=sha256 if outside else None,
    )


def _text(value: Any, key: str, where: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{where}: {key} is {json.dumps(value)[:60]}", expected="text", do="correct that line")
    return value


def _number(value: Any, key: str, where: str, low: float, high: float) -> float:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not good or not low <= value <= high:
        raise DataError(
            f"{where}: {key} is {str(value)[:60]!r}",
            expected=f"a number from {low} to {high:g}",
            do="correct that line",
        )
    return float(value)


def _whole(value: Any, where: str) -> int:
    number = _number(value, "repeats", where, 1, 100_000)
    if number != int(number):
        raise DataError(f"{where}: repeats is {number}", expected="a whole number", do="correct that line")
    return int(number)


def _credits(record: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The credits as an object, with the line's licence; measures of the sound as it once was are no credits."""
    value, licence = record.get("credits"), record.get("licence")
    stated = {"licence": clean_text(licence, where)} if isinstance(licence, str) else {}
    if value is None:
        return stated
    if isinstance(value, str):
        return stated | {"author": clean_text(value, where)}
    if isinstance(value, dict):
        cleaned = clean_record(value, f"{where}, credits")
        return {key: entry for key, entry in cleaned.items() if key != "analysis" and entry is not None} | stated
    raise DataError(
        f"{where}: credits is {json.dumps(value)[:60]}",
        expected='text, or {"author": …, "licence": …}',
        do="correct that line",
    )


def _absolute(name: str, where: str) -> str:
    if ".." in Path(name).parts or "\0" in name:
        raise DataError(f"{where}: {name[:80]!r} is no plain path", expected="no .. in it", do="correct it")
    return name


def _inside(name: str, where: str) -> str:
    """The name as written, if it stays inside the folder."""
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or "\0" in name or (len(name) > 1 and name[1] == ":"):
        raise DataError(f"{where}: {name[:80]!r} leads out of the folder", expected="a name inside it", do="correct it")
    return str(parts)
