"""Two checkpoints side by side. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.catalog.card import Card

_FIELDS = ("engine", "method", "stage", "kind", "origin", "base_hash", "dataset_hash", "item_count", "step", "parent")
_SHORT = 16


def compare_cards(a: Card, b: Card) -> list[tuple[str, str, str]]:
    """Rows (what, in a, in b): every measure, and every fact and recipe knob in which they differ.

    What one of them lacks is shown as a dash. A number in both measures gets the change of b against a in per cent.
    """
    rows = [(what, _text(getattr(a, what)), _text(getattr(b, what))) for what in _FIELDS]
    rows += [_pair(f"concept {name}", a.concepts, b.concepts, name) for name in _names(a.concepts, b.concepts)]
    one, other = _flat(a.recipe), _flat(b.recipe)
    rows += [_pair(name, one, other, name) for name in _names(one, other)]
    different = [row for row in rows if row[1] != row[2]]
    return [*(_measure(name, a, b) for name in _names(a.measures, b.measures)), *different]


def _measure(name: str, a: Card, b: Card) -> tuple[str, str, str]:
    what, left, right = _pair(name, a.measures, b.measures, name)
    if name in a.measures and name in b.measures and a.measures[name] != 0:
        right += f" ({100 * (b.measures[name] / a.measures[name] - 1):+.1f} %)"
    return what, left, right


def _pair(what: str, one: Mapping[str, Any], other: Mapping[str, Any], name: str) -> tuple[str, str, str]:
    return what, _text(one.get(name)), _text(other.get(name))


def _names(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys((*one, *other)))


def _flat(value: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            found.update(_flat(inner, f"{start}{name}."))
        else:
            found[f"{start}{name}"] = inner
    return found


def _text(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    looks_like_a_hash = len(text) == 64 and set(text) <= set("0123456789abcdef")
    return text[:_SHORT] if looks_like_a_hash else text
