"""Flags made from the knobs: `--steps 1200` says `length.steps=1200`. No knob is stated a second time here."""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, TypeVar

import typer

from tunesmith.errors import RecipeError
from tunesmith.recipe.knobs import Knob, knobs_of
from tunesmith.recipe.render import flag_name
from tunesmith.recipe.schema import SECTIONS
from tunesmith.recipe.values import unwrap

Function = TypeVar("Function", bound=Callable[..., Any])

# Shorter words for what everybody sets, beside the `--section-name` that every knob has.
SHORT: Mapping[str, tuple[str, ...]] = {
    "data.paths": ("--data",),
    "base.path": ("--base",),
    "base.init": ("--init",),
    "base.architecture": ("--architecture",),
    "base.allow_download": ("--allow-download",),
    "method.name": ("--method",),
    "method.stage": ("--stage",),
    "method.components": ("--components",),
    "method.rank": ("--rank",),
    "method.alpha": ("--alpha",),
    "method.gradient_checkpointing": ("--gradient-checkpointing",),
    "optimiser.name": ("--optimiser",),
    "optimiser.rate": ("--rate", "--learning-rate"),
    "optimiser.schedule": ("--schedule",),
    "length.steps": ("--steps",),
    "length.epochs": ("--epochs",),
    "length.batch_items": ("--batch",),
    "length.accumulation": ("--accumulation",),
    "length.max_minutes": ("--max-minutes",),
    "length.seed": ("--seed",),
    "output.name": ("--name",),
    "output.concepts": ("--concept", "--family", "--creature-family"),
    "output.exports": ("--export",),
    "output.folder": ("--out",),
    "resources.device": ("--device",),
    "resources.precision": ("--precision",),
    "resources.threads": ("--threads",),
}

# A knob of some engines that people look for among the flags of all.
_RESOLUTION = "engine__resolution"


@cache
def shared_knobs() -> Mapping[str, Knob]:
    """Parameter name (`section__name`) -> knob, for every section all engines share."""
    found = {}
    for name, section in SECTIONS.items():
        for knob in knobs_of(section, name):
            found[f"{knob.section}__{knob.name}"] = knob
    return found


def with_knob_flags(function: Function) -> Function:
    """Replace the `**knobs` of a command by one flag per shared knob."""
    signature = inspect.signature(function, eval_str=True)
    own = [entry for entry in signature.parameters.values() if entry.kind is not inspect.Parameter.VAR_KEYWORD]
    flags = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_annotation(knob))
        for name, knob in shared_knobs().items()
    ]
    side = typer.Option("--resolution", metavar="N", help="side of the pictures in pixels (engine.resolution)")
    flags.append(
        inspect.Parameter(
            _RESOLUTION, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, side]
        )
    )
    # Typer reads the signature; assigning it is how `inspect` lets a function state another one.
    function.__signature__ = signature.replace(parameters=[*own, *flags])  # type: ignore[attr-defined]
    return function


def overrides_from(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The flags that were given, as `section.knob=value` overrides."""
    found = []
    for name, value in values.items():
        if name == _RESOLUTION:
            found += [f"engine.resolution={value}"] if value is not None else []
            continue
        knob = shared_knobs()[name]
        if value is not None and value != []:
            found.append(f"{knob.path}={_written(knob, value)}")
    return tuple(found)


def sort_words(words: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(recipe files, overrides): typer has one positional list, so `-b one.yaml two.yaml x.y=z` lands here mixed."""
    files, overrides = [], []
    for word in words:
        if word.endswith((".yaml", ".yml")):
            files.append(word)
        elif "=" in word and not word.startswith("-"):
            overrides.append(word)
        else:
            raise RecipeError(
                f"{word!r} is neither a recipe nor an override",
                expected="files ending in .yaml and overrides such as length.steps=1200",
                do=f"name a folder of pictures with --data {word}" if "." not in word or "/" in word else "",
            )
    return tuple(files), tuple(overrides)


def _annotation(knob: Knob) -> Any:
    kind, _ = unwrap(knob.type)
    many = typing.get_origin(kind) in (tuple, dict)
    declared: Any = list[str] | None if many else (bool | None if kind is bool else str | None)
    names = (*SHORT.get(knob.path, ()), flag_name(knob))
    if kind is bool:
        first = names[0]
        names = (f"{first}/--no-{first.removeprefix('--')}", *names[1:])
    option = typer.Option(
        *names, help=_help(knob), metavar=None if kind is bool else _metavar(knob), show_default=False
    )
    return Annotated[declared, option]


def _help(knob: Knob) -> str:
    default = knob.default
    shown = "" if default in (None, (), {}, "") else f" [{default}]"
    return f"{knob.help}{shown}"


def _metavar(knob: Knob) -> str:
    kind, _ = unwrap(knob.type)
    if knob.choices:
        return "|".join(knob.choices)
    if typing.get_origin(kind) is dict:
        return "NAME=VALUE"
    return {int: "N", float: "X"}.get(kind, "TEXT")


def _written(knob: Knob, value: Any) -> str:
    """The value as YAML (JSON is a part of it); numbers stay as they were typed, so that errors show the same text."""
    kind, _ = unwrap(knob.type)
    origin = typing.get_origin(kind)
    if origin is dict:
        entry = typing.get_args(kind)[1]
        pairs = dict(_pair(knob, text) for text in value)
        inner = ", ".join(f"{json.dumps(key)}: {_scalar(entry, text)}" for key, text in pairs.items())
        return "{" + inner + "}"
    if origin is tuple:
        entry = typing.get_args(kind)[0]
        return "[" + ", ".join(_scalar(entry, text) for text in value) + "]"
    return _scalar(kind, value)


def _scalar(kind: Any, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if kind is str else str(value)


def _pair(knob: Knob, text: str) -> tuple[str, str]:
    """`peter=qb_peter`; a concept alone is its own trigger."""
    name, found, value = text.partition("=")
    if found:
        return name, value
    if knob.path == "output.concepts":
        return text, text
    raise RecipeError(f"{knob.path}: {text!r} has no value", expected="NAME=VALUE")
