"""One value against its knob: type, choices, range. A refusal names place, knob, what was found and what fits."""

from __future__ import annotations

import difflib
import math
import types
import typing
from typing import Any

from tunesmith.errors import RecipeError
from tunesmith.recipe.document import Node
from tunesmith.recipe.knobs import Knob

_LARGEST_EXACT = 2**53  # up to here a float that is whole is the integer it looks like
_LONGEST_TEXT = 65_536


def value_of(knob: Knob, node: Node) -> Any:
    """The checked value of `node` for `knob`: a plain frozen-friendly value (lists become tuples)."""
    kind, optional = unwrap(knob.type)
    if node.value is None:
        if optional:
            return None
        raise _mismatch(knob, node, _words(kind))
    if typing.get_origin(kind) is tuple:
        return _sequence(knob, node, typing.get_args(kind)[0])
    if typing.get_origin(kind) is dict:
        return _mapping(knob, node, typing.get_args(kind)[1])
    return _scalar(knob, node, kind)


def unwrap(annotation: Any) -> tuple[Any, bool]:
    """(type, may be None) of a knob's annotation."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        parts = [part for part in typing.get_args(annotation) if part is not type(None)]
        return parts[0], len(parts) < len(typing.get_args(annotation))
    return annotation, False


def range_text(knob: Knob) -> str:
    """The range in words, such as `above 0 and at most 10`; empty without one."""
    parts = []
    if knob.above is not None:
        parts.append(f"above {_number(knob.above)}")
    if knob.low is not None:
        parts.append(f"at least {_number(knob.low)}")
    if knob.high is not None:
        parts.append(f"at most {_number(knob.high)}")
    return " and ".join(parts)


def _sequence(knob: Knob, node: Node, kind: Any) -> tuple[Any, ...]:
    if isinstance(node.value, dict):
        raise _mismatch(knob, node, f"a list of {_words(kind, plural=True)}")
    children = node.value if isinstance(node.value, list) else [node]  # one value is a list of one
    return tuple(_scalar(knob, child, kind) for child in children)


def _mapping(knob: Knob, node: Node, kind: Any) -> dict[str, Any]:
    if not isinstance(node.value, dict):
        raise _mismatch(knob, node, f"a map of names to {_words(kind, plural=True)}")
    # A later file takes an entry out again by setting it to null.
    kept = {key: child for key, child in node.value.items() if child.value is not None}
    for key in kept:
        _check_text(knob, Node(key, node.place))
    return {key: _scalar(knob, child, kind, key) for key, child in kept.items()}


def _scalar(knob: Knob, node: Node, kind: Any, key: str = "") -> Any:
    value = node.value
    if kind is bool:
        if not isinstance(value, bool):
            raise _mismatch(knob, node, "true or false", key)
        return value
    if kind is int:
        whole = isinstance(value, float) and value.is_integer() and abs(value) <= _LARGEST_EXACT
        if isinstance(value, bool) or not (isinstance(value, int) or whole):
            raise _mismatch(knob, node, "a whole number", key)
        return _in_range(knob, node, int(value), key)
    if kind is float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not _finite(value):
            raise _mismatch(knob, node, "a finite number", key)
        return _in_range(knob, node, float(value), key)
    if not isinstance(value, str) and node.loose and node.raw is not None:
        return _scalar(knob, Node(node.raw, node.place), kind, key)
    if not isinstance(value, str):
        raise _mismatch(knob, node, "text", key, do=f'write it in quotes: "{node.raw}"' if node.raw else "")
    _check_text(knob, node)
    if knob.choices and value not in knob.choices:
        near = difflib.get_close_matches(value, knob.choices, n=1)
        hint = f"did you mean {near[0]!r}?" if near else ""
        raise RecipeError(_found(knob, node, key), expected=f"one of {', '.join(knob.choices)}", do=hint)
    return value


def _check_text(knob: Knob, node: Node) -> None:
    text = node.value
    if len(text) > _LONGEST_TEXT:
        raise RecipeError(
            f"{node.place}: {knob.path} is {len(text)} characters long", expected=f"up to {_LONGEST_TEXT}"
        )
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise RecipeError(f"{node.place}: {knob.path} holds a character no file name or UTF-8 text may have")


def _in_range(knob: Knob, node: Node, value: float, key: str) -> Any:
    too_low = (knob.low is not None and value < knob.low) or (knob.above is not None and value <= knob.above)
    if too_low or (knob.high is not None and value > knob.high):
        raise RecipeError(_found(knob, node, key), expected=range_text(knob))
    return value


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def _mismatch(knob: Knob, node: Node, expected: str, key: str = "", do: str = "") -> RecipeError:
    return RecipeError(_found(knob, node, key), expected=expected, do=do)


def _found(knob: Knob, node: Node, key: str) -> str:
    path = f"{knob.path}.{key}" if key else knob.path
    if node.value is None:
        return f"{node.place}: {path} is empty"
    if isinstance(node.value, dict | list):
        return f"{node.place}: {path} is a {'map' if isinstance(node.value, dict) else 'list'}"
    shown = node.raw if node.raw is not None else node.value
    text = repr(shown) if isinstance(node.value, str) else str(shown)
    return f"{node.place}: {path} is {text if len(text) <= 80 else text[:77] + '...'}"


def _words(kind: Any, *, plural: bool = False) -> str:
    singular = {bool: "true or false", int: "a whole number", float: "a finite number", str: "text"}
    many = {bool: "true or false", int: "whole numbers", float: "finite numbers", str: "texts"}
    if typing.get_origin(kind) is tuple:
        return f"a list of {_words(typing.get_args(kind)[0], plural=True)}"
    if typing.get_origin(kind) is dict:
        return f"a map of names to {_words(typing.get_args(kind)[1], plural=True)}"
    return (many if plural else singular)[kind]


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e16 else repr(value)
