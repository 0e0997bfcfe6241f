"""Flags are the knobs: same names, same values, same refusals."""

from __future__ import annotations

import pytest
import typer.main

from tunesmith.cli.flags import SHORT, overrides_from, shared_knobs, sort_words
from tunesmith.cli.main import app
from tunesmith.errors import RecipeError
from tunesmith.recipe.render import flag_name

KNOBS = {knob.path: name for name, knob in shared_knobs().items()}


def flags_of(*path: str) -> set[str]:
    command = typer.main.get_command(app)
    for word in path:
        command = command.commands[word]
    return {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}


@pytest.mark.parametrize("command", [("train",), ("plan",), ("recipe", "new"), ("recipe", "show")])
def test_every_knob_is_a_flag(command: tuple[str, ...]) -> None:
    flags = flags_of(*command)
    assert {flag_name(knob) for knob in shared_knobs().values()} <= flags
    assert {flag for names in SHORT.values() for flag in names} <= flags


def test_no_flag_means_two_things() -> None:
    command = typer.main.get_command(app).commands["train"]
    spelled = [flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)]
    assert len(spelled) == len(set(spelled))


def test_short_flags_belong_to_knobs() -> None:
    assert set(SHORT) <= set(KNOBS)


@pytest.mark.parametrize(
    ("path", "given", "override"),
    [
        ("length.steps", "1200", "length.steps=1200"),
        ("optimiser.rate", "1e-4", "optimiser.rate=1e-4"),
        ("output.name", "no", 'output.name="no"'),
        ("data.paths", ["a b", "c"], 'data.paths=["a b", "c"]'),
        ("optimiser.betas", ["0.9", "0.99"], "optimiser.betas=[0.9, 0.99]"),
        ("optimiser.rates", ["text_encoder=5e-5"], 'optimiser.rates={"text_encoder": 5e-5}'),
        ("output.concepts", ["peter=qb_peter", "maria"], 'output.concepts={"peter": "qb_peter", "maria": "maria"}'),
        ("method.gradient_checkpointing", True, "method.gradient_checkpointing=true"),
        ("method.gradient_checkpointing", False, "method.gradient_checkpointing=false"),
    ],
)
def test_a_flag_is_an_override(path: str, given: object, override: str) -> None:
    assert overrides_from({KNOBS[path]: given}) == (override,)


def test_flags_that_were_not_given_say_nothing() -> None:
    assert overrides_from(dict.fromkeys(shared_knobs())) == ()
    assert overrides_from({KNOBS["data.paths"]: []}) == ()


def test_a_pair_without_a_value_is_refused() -> None:
    with pytest.raises(RecipeError, match="NAME=VALUE"):
        overrides_from({KNOBS["optimiser.rates"]: ["text_encoder"]})


def test_files_and_overrides_may_be_mixed() -> None:
    files, overrides = sort_words(["one.yaml", "x.y=z", "two.yml", "data.paths=[a.yaml, b]"])
    assert files == ("one.yaml", "two.yml")
    assert overrides == ("x.y=z", "data.paths=[a.yaml, b]")


@pytest.mark.parametrize("word", ["pictures", "recipe.toml"])
def test_a_word_that_is_neither_is_refused(word: str) -> None:
    with pytest.raises(RecipeError, match="neither a recipe nor an override"):
        sort_words([word])
