"""What the credits of a sound tell about how it was made: steps that change it heavily. No torch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tunesmith.data.item import Item

_SUFFIX = ".credits.json"
_LIMIT_BYTES = 1 << 20
_HEAVY = re.compile(r"polish|denois|noise.?reduc|compress(?!ion.?level)|multiband", re.IGNORECASE)
_CHAIN = re.compile(r"post|chain|effects|fx|preset|stack|process", re.IGNORECASE)
_ORIGINS = {"base", "checkpoints"}  # our own credits list files there, such as denoiser/config.json
_OFF = {"", "none", "off", "no", "false", "0", "0.0", "null"}


def heavy_steps(item: Item) -> tuple[str, ...]:
    """Polish, noise reduction and compression that were on, by the names they have in the credits, sorted.

    Looks at the item's own credits and at `<file>.credits.json` beside its sound; a file that is no JSON says nothing.
    """
    path = item.media["audio"].path
    beside = _parsed(path.with_name(path.name + _SUFFIX))
    return tuple(sorted({*_processing(item.credits), *_processing(beside)}))


def _parsed(path: Path) -> Any:
    try:
        if path.stat().st_size > _LIMIT_BYTES:
            return None
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return None


def _processing(value: Any, key: str = "") -> Iterator[str]:
    """Names of heavy steps that were on: a key that names one, or a word in a list of steps."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name in _ORIGINS:
                continue
            if _HEAVY.search(str(name)):
                if _is_on(inner):
                    yield str(name)
            else:
                yield from _processing(inner, str(name))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _processing(inner, key)
    elif isinstance(value, str) and _CHAIN.search(key) and _HEAVY.search(value):
        yield value[:40]


def _is_on(value: Any) -> bool:
    if isinstance(value, Mapping):
        return value.get("enabled", True) is not False and any(_is_on(inner) for inner in value.values())
    if isinstance(value, str):
        return value.strip().lower() not in _OFF
    return bool(value)
