"""Defaults, polish, orders and refusals of the settings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tunesmith.errors import RecipeError
from tunesmith.generation.sound.layers import TEXTURES
from tunesmith.generation.sound.record import step_knobs
from tunesmith.generation.sound.reverb import ROOMS
from tunesmith.generation.sound.settings import (
    POLISH,
    ROOM_NAMES,
    STEPS,
    TEXTURE_KINDS,
    PostSettings,
    polished,
    post_knobs,
)
from tunesmith.recipe.render import markdown_table

USUAL = [
    *("trim", "denoise", "filters", "multiband", "formant", "texture", "noise_bed", "transient", "exciter"),
    *("duck_bed", "fade", "compressor", "reverb", "loop_clean", "normalise", "limiter", "clip"),
]


def test_the_usual_order_has_seventeen_steps() -> None:
    assert list(STEPS) == USUAL
    assert len(STEPS) == 17


def test_defaults_are_the_plain_post() -> None:
    plain = PostSettings()
    assert plain.steps == ("trim", "filters", "fade", "normalise", "clip")
    found = (plain.trim_threshold_db, plain.trim_padding_ms, plain.highpass_hz, plain.lowpass_hz, plain.fade_ms)
    assert found == (-40, 30, 40, 16_000, 8)
    assert (plain.normalise, plain.normalise_rms_db, plain.normalise_ceiling_db) == ("rms", -18, -1)


def test_steps_that_are_off_know_their_values() -> None:
    plain = PostSettings()
    bands = (plain.multiband_low_hz, plain.multiband_high_hz, plain.multiband_ratio)
    assert (*bands, plain.multiband_attack_ms, plain.multiband_release_ms) == (250, 3000, 2, 4, 120)
    assert (plain.transient_split_hz, plain.exciter_hz, plain.duck_bed_split_hz) == (1200, 2500, 1800)
    assert plain.loop_crossfade_ms == 100


def test_polish_turns_on_what_it_should() -> None:
    done = polished(PostSettings())
    assert done.steps == (
        "trim",
        "denoise",
        "filters",
        "transient",
        "fade",
        "compressor",
        "normalise",
        "limiter",
        "clip",
    )
    assert (done.denoise, done.transient, done.limiter_db) == (0.25, 0.25, -1)
    compressor = (done.compressor_threshold_db, done.compressor_ratio, done.compressor_attack_ms)
    assert (*compressor, done.compressor_release_ms, done.compressor_makeup_db) == (-18, 4, 5, 90, 3)
    assert replace(done, **{name: post_knobs()[name].default for name in POLISH}) == PostSettings()


@pytest.mark.parametrize(
    ("asked", "given", "expected"),
    [
        ({"denoise": 0.7}, ("denoise",), {"denoise": 0.7, "transient": 0.25}),
        ({"denoise": 0.7}, (), {"denoise": 0.7, "transient": 0.25}),
        ({}, ("denoise", "compressor"), {"denoise": 0.0, "compressor": False, "compressor_makeup_db": 3.0}),
        ({"compressor_makeup_db": 0.0}, {"compressor_makeup_db": 0.0}, {"compressor_makeup_db": 0.0, "limiter": True}),
    ],
)
def test_polish_leaves_what_was_given(asked: dict, given: tuple[str, ...], expected: dict) -> None:
    done = polished(PostSettings(**asked), given)
    assert {name: getattr(done, name) for name in expected} == expected


def test_polish_knows_its_knobs() -> None:
    with pytest.raises(RecipeError, match=r"no knob 'denoize'.*'denoise'"):
        polished(PostSettings(), ("denoize",))


@pytest.mark.parametrize(
    ("changes", "step"),
    [
        ({"trim": False}, "trim"),
        ({"fade_ms": 0.0}, "fade"),
        ({"highpass_hz": 0.0, "lowpass_hz": 0.0}, "filters"),
        ({"normalise": "off"}, "normalise"),
        ({"clip": False}, "clip"),
    ],
)
def test_default_steps_can_be_turned_off(changes: dict, step: str) -> None:
    assert set(PostSettings().steps) - set(PostSettings(**changes).steps) == {step}


@pytest.mark.parametrize(
    ("changes", "step"),
    [
        ({"denoise": 0.1}, "denoise"),
        ({"multiband": True}, "multiband"),
        ({"formant_size": -0.5}, "formant"),
        ({"texture": "buzz"}, "texture"),
        ({"noise_bed_db": -30.0}, "noise_bed"),
        ({"transient": -0.1}, "transient"),
        ({"transient_sustain": 0.1}, "transient"),
        ({"exciter": 0.1}, "exciter"),
        ({"duck_bed": 0.1}, "duck_bed"),
        ({"compressor": True}, "compressor"),
        ({"reverb": "cave"}, "reverb"),
        ({"loop_clean": True}, "loop_clean"),
        ({"limiter": True}, "limiter"),
    ],
)
def test_other_steps_can_be_turned_on(changes: dict, step: str) -> None:
    assert set(PostSettings(**changes).steps) - set(PostSettings().steps) == {step}


def test_a_half_of_the_filters_is_enough() -> None:
    assert "filters" in PostSettings(highpass_hz=0.0).steps
    assert "filters" in PostSettings(lowpass_hz=0.0).steps


def test_an_order_runs_its_own_steps_only() -> None:
    asked = PostSettings(stack=("normalise", "trim", "denoise", "trim"))
    assert asked.steps == ("normalise", "trim", "trim"), "denoise is off"


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("normalize", "normalise"), ("loop", "loop_clean"), ("final_clip", "clip"), ("filter", "filters")],
)
def test_unknown_steps_are_refused_with_near_names(wrong: str, meant: str) -> None:
    with pytest.raises(RecipeError, match=rf"names a step '{wrong}'.*Did you mean .*'{meant}'"):
        PostSettings(stack=("trim", wrong))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fade_ms": -1.0}, "post.fade_ms is -1.*at least 0"),
        ({"compressor_ratio": 0.5}, "post.compressor_ratio is 0.5.*at least 1"),
        ({"texture": "growl"}, "post.texture is 'growl'.*one of off, chitter"),
        ({"denoise": float("nan")}, "post.denoise is nan"),
        ({"trim": "yes"}, "post.trim is 'yes'.*true or false"),
        ({"highpass_hz": 5000.0, "lowpass_hz": 4000.0}, "post.highpass_hz is 5000.*less than lowpass_hz, 4000"),
        ({"multiband_low_hz": 3000.0}, "less than multiband_high_hz, 3000"),
    ],
)
def test_wrong_values_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        PostSettings(**changes)


def test_every_room_and_texture_can_be_chosen() -> None:
    assert ("off", *ROOMS) == ROOM_NAMES
    assert ("off", *TEXTURES) == TEXTURE_KINDS


def test_every_knob_belongs_to_one_step_and_can_be_shown() -> None:
    owned = [name for step in STEPS for name in step_knobs(step)]
    assert sorted([*owned, "stack"]) == sorted(post_knobs())
    assert all(step_knobs(step) for step in STEPS)
    table = markdown_table(tuple(post_knobs().values()))
    assert len(table.splitlines()) == len(post_knobs()) + 2
