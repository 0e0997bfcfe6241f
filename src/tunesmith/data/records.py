"""JSON that others wrote, made safe to keep and to write again. No torch."""

from __future__ import annotations

import math
from typing import Any

from tunesmith.data.captions import clean_text
from tunesmith.errors import DataError

DEEPEST = 40


def clean_record(value: Any, name: str) -> Any:
    """The same JSON value: texts cleaned as captions are, NaN and Inf as None, which JSON can hold.

    Raises DataError, calling the value `name`: a NUL or half a character in a text, nested more than 40 deep.
    """
    return _cleaned(value, name, 0)


def _cleaned(value: Any, name: str, depth: int) -> Any:
    if depth > DEEPEST:
        raise DataError(f"{name} is nested more than {DEEPEST} deep", expected="a plain record", do="shorten it")
    if isinstance(value, dict):
        return {clean_text(str(key), name): _cleaned(inner, name, depth + 1) for key, inner in value.items()}
    if isinstance(value, list):
        return [_cleaned(inner, name, depth + 1) for inner in value]
    if isinstance(value, str):
        return clean_text(value, name)
    return None if isinstance(value, float) and not math.isfinite(value) else value
