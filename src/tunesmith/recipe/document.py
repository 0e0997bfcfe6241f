"""A document whose every value remembers where it was written, so that an error can name its file and line."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith.errors import RecipeError


@dataclass(frozen=True)
class Node:
    """One value and where it stands. `value` is None, bool, int, float, str, list[Node] or dict[str, Node].

    `place` reads like `recipe.yaml, line 3`. `raw` is the text of a plain (unquoted) scalar. `loose` marks what was
    typed on a command line, where quotes are the shell's: a text knob takes `raw` as it is.
    """

    value: Any
    place: str
    raw: str | None = None
    loose: bool = False

    def plain(self) -> Any:
        """The value without places."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value


# YAML 1.2.2, section 10.3.2: the core schema's tag resolution.
_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]{1,300}\Z")
_OCTAL = re.compile(r"0o[0-7]{1,300}\Z")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]{1,300}\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_INFINITE = re.compile(r"([-+]?)\.(inf|Inf|INF)\Z")


def plain_scalar(text: str) -> Any:
    """What an unquoted scalar means in YAML 1.2's core schema: None, bool, int, float or the text itself.

    So `1e-4` is a float, while `no`, `1:30` and `2024-01-01` are text.
    """
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.match(text):
        return int(text)
    if _OCTAL.match(text):
        return int(text[2:], 8)
    if _HEXADECIMAL.match(text):
        return int(text[2:], 16)
    if _FLOAT.match(text):
        return float(text)
    infinite = _INFINITE.match(text)
    if infinite:
        return -math.inf if infinite[1] == "-" else math.inf
    return math.nan if text in {".nan", ".NaN", ".NAN"} else text


def from_plain(value: Any, place: str) -> Node:
    """Plain Python data as a document; every part gets the same place. Mapping keys must be text."""
    if value is None or isinstance(value, bool | int | float | str):
        return Node(value, place)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise RecipeError(f"{place}: the key {key!r} is not text", expected="names of sections and knobs")
        return Node({key: from_plain(child, place) for key, child in value.items()}, place)
    if isinstance(value, list | tuple):
        return Node([from_plain(child, place) for child in value], place)
    raise RecipeError(
        f"{place}: a {type(value).__name__} cannot stand in a recipe", expected="text, numbers, lists, maps"
    )


def merge(under: Node, over: Node) -> Node:
    """`over` on top of `under`: maps are merged key by key, everything else is replaced; `{}` clears a map."""
    if not isinstance(under.value, dict) or not isinstance(over.value, dict) or not over.value:
        return over
    merged = dict(under.value)
    for key, child in over.value.items():
        merged[key] = merge(merged[key], child) if key in merged else child
    return Node(merged, over.place)


def nested(path: tuple[str, ...], leaf: Node) -> Node:
    """A document that holds `leaf` at `path` and nothing else."""
    for key in reversed(path):
        leaf = Node({key: leaf}, leaf.place)
    return leaf
