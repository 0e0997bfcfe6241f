"""One statement per knob: type, default, unit, range, choices, help. Everything else is rendered from it.

A section is a frozen dataclass whose fields are declared with `knob(...)`. Flags, form fields, the JSON schema, the
docs table and the YAML reader all read `knobs_of(section)`.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_META = "tunesmith.knob"


@dataclass(frozen=True)
class Knob:
    """What a user may know about one knob. `low`/`high` are inclusive unless `above` is set (exclusive lower bound)."""

    section: str
    name: str
    type: Any
    default: Any
    help: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    above: float | None = None
    choices: tuple[str, ...] = ()
    required: bool = False

    @property
    def path(self) -> str:
        """`section.name`, as written in overrides."""
        return f"{self.section}.{self.name}"


@dataclass(frozen=True)
class _Statement:
    help: str
    unit: str
    low: float | None
    high: float | None
    above: float | None
    choices: tuple[str, ...]
    required: bool


def knob(
    default: Any = dataclasses.MISSING,
    *,
    help: str,  # noqa: A002 - the field's own word, always given by keyword
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] = (),
    factory: Callable[[], Any] | None = None,
) -> Any:
    """Declare one knob as a dataclass field. Without `default` and `factory` the knob is required."""
    required = default is dataclasses.MISSING and factory is None
    statement = _Statement(help, unit, low, high, above, choices, required)
    if factory is not None:
        return dataclasses.field(default_factory=factory, metadata={_META: statement})
    if required:
        return dataclasses.field(default=None, metadata={_META: statement})
    return dataclasses.field(default=default, metadata={_META: statement})


def knobs_of(section: type, name: str) -> tuple[Knob, ...]:
    """The knobs of a section class in declaration order; `name` is the section's key in a recipe."""
    hints = typing.get_type_hints(section)
    found = []
    for entry in dataclasses.fields(section):
        statement: _Statement = entry.metadata[_META]
        default = entry.default_factory() if entry.default_factory is not dataclasses.MISSING else entry.default
        found.append(
            Knob(
                section=name,
                name=entry.name,
                type=hints[entry.name],
                default=default,
                help=statement.help,
                unit=statement.unit,
                low=statement.low,
                high=statement.high,
                above=statement.above,
                choices=statement.choices,
                required=statement.required,
            )
        )
    return tuple(found)
