"""What others show of the knobs: a JSON schema, flag names, and the tables of the documentation."""

from __future__ import annotations

import sys
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunesmith.recipe.knobs import Knob, knobs_of
from tunesmith.recipe.schema import SECTIONS
from tunesmith.recipe.values import range_text, unwrap

BEGIN = "<!-- knobs: made by `python -m tunesmith.recipe.render docs/recipe.md` -->"
END = "<!-- end of knobs -->"
_JSON_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}


def json_schema(section_classes: Mapping[str, type] = SECTIONS) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a recipe with these sections; the section `engine` also takes `name`.

    Source: https://json-schema.org/draft/2020-12/schema.
    """
    sections = {name: _section_schema(kind, name) for name, kind in section_classes.items()}
    sections["preset"] = {"type": "string", "description": "a preset of the engine, applied before everything else"}
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tunesmith recipe",
        "type": "object",
        "properties": sections,
        "additionalProperties": False,
    }
    if "engine" in section_classes:
        schema["required"] = ["engine"]
    return schema


def flag_name(knob: Knob) -> str:
    """The command-line flag, such as `--optimiser-weight-decay`."""
    return f"--{knob.section}-{knob.name}".replace("_", "-")


def markdown_table(knobs: Sequence[Knob]) -> str:
    """One row a knob: path, type, default, range or choices, help."""
    rows = ["| knob | type | default | may be | meaning |", "|---|---|---|---|---|"]
    for knob in knobs:
        cells = [f"`{knob.path}`", type_text(knob), _default_text(knob), _limits(knob), knob.help]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def type_text(knob: Knob) -> str:
    """The type in words, with its unit: `whole number (steps)`, `list of texts`."""
    kind, _ = unwrap(knob.type)
    single = {bool: "true / false", int: "whole number", float: "number", str: "text"}
    if typing.get_origin(kind) is tuple:
        words = f"list of {single[typing.get_args(kind)[0]]}s"
    elif typing.get_origin(kind) is dict:
        words = f"map of names to {single[typing.get_args(kind)[1]]}s"
    else:
        words = single[kind]
    return f"{words} ({knob.unit})" if knob.unit else words


def all_tables(section_classes: Mapping[str, type] = SECTIONS) -> str:
    """A heading and a table for each section, the section's one-line docstring between them."""
    parts = []
    for name, kind in section_classes.items():
        summary = (kind.__doc__ or "").strip().splitlines()[0]
        parts.append(f"### {name}\n\n{summary}\n\n{markdown_table(knobs_of(kind, name))}")
    return "\n\n".join(parts)


def with_tables(page: str) -> str:
    """The page with its part between the markers made anew."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    return f"{head}{begin}\n\n{all_tables()}\n\n{end}{tail}" if end else page


def _section_schema(kind: type, name: str) -> dict[str, Any]:
    knobs = knobs_of(kind, name)
    properties = {knob.name: _knob_schema(knob) for knob in knobs}
    required = [knob.name for knob in knobs if knob.required]
    if name == "engine":
        properties = {"name": {"type": "string", "description": "the engine"}, **properties}
        required = ["name", *required]
    schema = {
        "type": "object",
        "description": (kind.__doc__ or "").strip().splitlines()[0] if kind.__doc__ else name,
        "properties": properties,
        "additionalProperties": False,
    }
    return {**schema, "required": required} if required else schema


def _knob_schema(knob: Knob) -> dict[str, Any]:
    kind, optional = unwrap(knob.type)
    schema: dict[str, Any]
    if typing.get_origin(kind) is tuple:
        schema = {"type": "array", "items": _scalar_schema(knob, typing.get_args(kind)[0])}
    elif typing.get_origin(kind) is dict:
        schema = {"type": "object", "additionalProperties": _scalar_schema(knob, typing.get_args(kind)[1])}
    else:
        schema = _scalar_schema(knob, kind)
    if optional:
        schema = {"anyOf": [schema, {"type": "null"}]}
    schema = {"description": knob.help, **schema}
    if not knob.required:
        schema["default"] = _plain(knob.default)
    if knob.unit:
        schema["x-unit"] = knob.unit
    return schema


def _scalar_schema(knob: Knob, kind: Any) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": _JSON_TYPES[kind]}
    limits = {"minimum": knob.low, "maximum": knob.high, "exclusiveMinimum": knob.above}
    schema.update({name: limit for name, limit in limits.items() if limit is not None})
    if knob.choices:
        schema["enum"] = list(knob.choices)
    return schema


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, Mapping) else value


def _default_text(knob: Knob) -> str:
    if knob.required:
        return "required"
    value = _plain(knob.default)
    if value is None or value in ([], {}):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`" if value != "" else "empty"


def _limits(knob: Knob) -> str:
    return ", ".join(f"`{choice}`" for choice in knob.choices) or range_text(knob)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        page = Path(name)
        page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")
