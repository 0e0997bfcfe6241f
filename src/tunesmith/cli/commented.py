"""A recipe as a file to edit: what is set, and every other knob as a comment with its default and range."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tunesmith.recipe.knobs import Knob, knobs_of
from tunesmith.recipe.render import type_text
from tunesmith.recipe.schema import SECTIONS
from tunesmith.recipe.values import range_text

if TYPE_CHECKING:
    from tunesmith.recipe.schema import Recipe

HEAD = """# A recipe: everything one run is asked for. Knobs that are commented out show their defaults;
# take the `# ` away to change one. See what it will do with `tunesmith plan`, start it with `tunesmith train`.
"""
COLUMN = 48


def commented_yaml(recipe: Recipe) -> str:
    """The recipe's own words as YAML, every knob explained; reads back as the same recipe."""
    parts = [HEAD + "engine:\n" + _row("name", recipe.engine, "the engine", commented=False)]
    parts[0] += _rows(recipe.settings, "engine")
    for name, kind in SECTIONS.items():
        summary = (kind.__doc__ or "").strip().splitlines()[0]
        parts.append(f"{name}:  # {summary}\n{_rows(getattr(recipe, name), name)}")
    return "\n".join(parts)


def _rows(section: Any, name: str) -> str:
    rows = []
    for knob in knobs_of(type(section), name):
        value = getattr(section, knob.name)
        rows.append(_row(knob.name, value, _explained(knob), commented=value == knob.default and not knob.required))
    return "".join(rows)


def _row(name: str, value: Any, words: str, *, commented: bool) -> str:
    from tunesmith.recipe.writer import dump

    plain = list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value
    text = f"{name}: null" if value is None else dump({name: plain}).strip()
    return f"{('  # ' if commented else '  ') + text:<{COLUMN}}  # {words}\n"


def _explained(knob: Knob) -> str:
    limits = " | ".join(knob.choices) or range_text(knob)
    return f"{knob.help} ({', '.join(part for part in (type_text(knob), limits) if part)})"
