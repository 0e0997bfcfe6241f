"""Each knob is stated once: turning it is read, ranged, hashed, and lands in the document."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

import pytest

from recipe_engines import lookup
from tunesmith.errors import RecipeError
from tunesmith.recipe.knobs import Knob, knob, knobs_of
from tunesmith.recipe.load import recipe_from, recipe_hash, to_document
from tunesmith.recipe.schema import SECTIONS
from tunesmith.recipe.values import unwrap

ALL = [entry for name, kind in SECTIONS.items() for entry in knobs_of(kind, name)]
START: dict[str, Any] = {"engine": {"name": "toy"}, "base": {"path": "w.safetensors"}, "length": {"steps": 10}}

# What a knob needs beside it to make sense.
COMPANIONS: dict[str, dict[str, Any]] = {
    "data.prior": {"data": {"prior_paths": ["p"]}},
    "data.prior_paths": {"data": {"prior": "given"}},
    "data.prior_prompts": {"data": {"prior": "generated"}},
    "base.architecture": {"base": {"path": None}},
    "method.conv_alpha": {"method": {"conv_rank": 4}},
    "optimiser.restarts": {"optimiser": {"schedule": "cosine_restarts"}},
}
OTHER: dict[str, Any] = {
    "optimiser.betas": [0.8, 0.95],
    "data.caption_extensions": [".cap"],
    "output.concepts": {"fox": "zz_fox"},
    "data.prior": "given",
}


def other_value(entry: Knob) -> Any:
    """A valid value that is not the default."""
    if entry.path in OTHER:
        return OTHER[entry.path]
    kind, _ = unwrap(entry.type)
    if typing.get_origin(kind) is tuple:
        return ["x", "y"]
    if typing.get_origin(kind) is dict:
        return {"denoiser": 0.5 if typing.get_args(kind)[1] is float else "x"}
    if kind is bool:
        return not entry.default
    if entry.choices:
        return next(choice for choice in entry.choices if choice != entry.default)
    if kind is str:
        return "something"
    low = entry.low if entry.low is not None else (entry.above or 0)
    if kind is int:
        return int(low) + (2 if entry.default != low + 2 else 3)
    high = entry.high if entry.high is not None else low + 2
    middle = low + (high - low) / 4
    return middle if middle != entry.default else low + (high - low) / 3


def document(path: str, value: Any) -> dict[str, Any]:
    """A small recipe with `path` set to `value` and what it needs beside it."""
    made: dict[str, Any] = {name: dict(knobs) for name, knobs in START.items()}
    for section, knobs in COMPANIONS.get(path, {}).items():
        made.setdefault(section, {}).update(knobs)
    section, _, name = path.partition(".")
    made.setdefault(section, {})[name] = value
    return made


def as_read(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@pytest.mark.parametrize("entry", ALL, ids=lambda entry: entry.path)
def test_turning_a_knob_changes_what_it_names(entry: Knob) -> None:
    value = other_value(entry)
    turned = recipe_from(document(entry.path, value), lookup)
    section, _, name = entry.path.partition(".")
    assert getattr(getattr(turned, section), name) == as_read(value)
    assert to_document(turned)[section][name] == value
    rest = document(entry.path, value)
    if entry.path in ("length.steps",):
        rest["length"][name] = 11
    elif entry.path == "base.path":
        rest["base"] = {"path": "other"}
    elif entry.path == "base.architecture":
        rest["base"][name] = "another"
    elif entry.path == "data.prior":
        rest["data"] = {}
    elif entry.path in ("data.prior_paths", "data.prior_prompts"):
        rest["data"][name] = ["elsewhere"]
    else:
        del rest[section][name]
    plain = recipe_from(rest, lookup)
    assert recipe_hash(plain) != recipe_hash(turned)
    assert recipe_hash(turned) == recipe_hash(recipe_from(to_document(turned, full=True), lookup))


BOUNDED = [
    (entry, limit, step)
    for entry in ALL
    for limit, step in ((entry.low, -1), (entry.above, 0), (entry.high, 1))
    if limit is not None
]


@pytest.mark.parametrize(("entry", "limit", "step"), BOUNDED, ids=lambda part: getattr(part, "path", str(part)))
def test_a_value_out_of_range_is_refused_by_name(entry: Knob, limit: float, step: int) -> None:
    kind, _ = unwrap(entry.type)
    inner = typing.get_args(kind)[-1 if typing.get_origin(kind) is dict else 0] if typing.get_args(kind) else kind
    outside: Any = (int if inner is int else float)(limit) + step
    value = [outside, 0.5] if typing.get_origin(kind) is tuple else outside
    value = {"denoiser": outside} if typing.get_origin(kind) is dict else value
    with pytest.raises(RecipeError) as caught:
        recipe_from(document(entry.path, value), lookup)
    assert entry.path in caught.value.found
    assert str(outside) in caught.value.found
    assert ("at least" if step < 0 else "above" if step == 0 else "at most") in caught.value.expected


@pytest.mark.parametrize("entry", [e for e in ALL if e.choices], ids=lambda entry: entry.path)
def test_a_value_that_is_no_choice_lists_them(entry: Knob) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_from(document(entry.path, "nonsense"), lookup)
    assert all(choice in caught.value.expected for choice in entry.choices)


@pytest.mark.parametrize("entry", ALL, ids=lambda entry: entry.path)
def test_every_knob_has_help_and_a_default_that_fits(entry: Knob) -> None:
    assert entry.help
    kind, optional = unwrap(entry.type)
    if entry.default is None:
        assert optional
    elif kind in (int, float):
        assert entry.low is None or entry.default >= entry.low
        assert entry.above is None or entry.default > entry.above
        assert entry.high is None or entry.default <= entry.high
    elif entry.choices:
        assert entry.default in entry.choices


def test_a_knob_without_default_is_required() -> None:
    @dataclasses.dataclass(frozen=True)
    class Section:
        """One required knob."""

        size: int = knob(help="a size")

    assert knobs_of(Section, "engine")[0].required
    with pytest.raises(RecipeError, match=r"engine\.size is missing"):
        recipe_from(START, lambda name: (Section, {}))
