"""`metadata.jsonl`: one JSON object a line, naming a file and what belongs to it. No torch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from tunesmith.data.captions import clean_text, decode_text
from tunesmith.errors import DataError

LIMIT_BYTES = 1 << 30
_LINE_LIMIT_BYTES = 10_000_000


@dataclass(frozen=True)
class Row:
    """One line. `files` are names by role, relative to the folder; `text` by role; None: the line does not say."""

    line: int
    file_name: str
    files: Mapping[str, str] = field(default_factory=dict)
    text: Mapping[str, str] = field(default_factory=dict)
    concept: str | None = None
    group: str | None = None
    weight: float = 1.0
    repeats: int = 1
    credits: Mapping[str, str] = field(default_factory=dict)


_TEXT_FIELDS = {"text": "caption", "caption": "caption", "lyrics": "lyrics", "tags": "tags"}
_FILE_FIELDS = ("mask", "control")
_FIELDS = ("file_name", *_TEXT_FIELDS, *_FILE_FIELDS, "concept", "group", "weight", "repeats", "credits")


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
        unknown.update({name: number for name in record if name not in _FIELDS and name not in unknown})
    notes = tuple(f"{path}: field {name!r} (first in line {line}) is not used" for name, line in unknown.items())
    return tuple(rows.values()), notes


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
        for key in ("concept", "group")
        if record.get(key) is not None
    }
    return Row(
        line=number,
        file_name=_inside(name, where),
        files={
            key: _inside(_text(record[key], key, where), where) for key in _FILE_FIELDS if record.get(key) is not None
        },
        text=texts,
        concept=optional.get("concept"),
        group=optional.get("group"),
        weight=_number(record.get("weight", 1.0), "weight", where, 0, 1e6),
        repeats=_whole(record.get("repeats", 1), where),
        credits=_credits(record.get("credits"), where),
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


def _credits(value: Any, where: str) -> dict[str, str]:
    if value is None:
        return {}
    if isinstance(value, str):
        return {"author": clean_text(value, where)}
    if isinstance(value, dict) and all(isinstance(text, str) for text in value.values()):
        return {clean_text(key, where): clean_text(text, where) for key, text in value.items()}
    raise DataError(
        f"{where}: credits is {json.dumps(value)[:60]}",
        expected='text, or {"author": …, "licence": …}',
        do="correct that line",
    )


def _inside(name: str, where: str) -> str:
    """The name as written, if it stays inside the folder."""
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or "\0" in name or (len(name) > 1 and name[1] == ":"):
        raise DataError(f"{where}: {name[:80]!r} leads out of the folder", expected="a name inside it", do="correct it")
    return str(parts)
