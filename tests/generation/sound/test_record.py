"""Sidecars tell what was on, and give the settings back exactly."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.errors import RecipeError
from tunesmith.generation.sound.record import describe, settings_from
from tunesmith.generation.sound.settings import STEPS, PostSettings, polished, post_knobs
from tunesmith.recipe.knobs import Knob


def _values(knob: Knob) -> st.SearchStrategy[Any]:
    if knob.name == "stack":
        return st.lists(st.sampled_from(sorted(STEPS)), max_size=6).map(tuple)
    if knob.type is bool:
        return st.booleans()
    if knob.choices:
        return st.sampled_from(knob.choices)
    low = knob.above + 1e-3 if knob.above is not None else knob.low
    return st.sampled_from([float(low), float(knob.high)]) | st.floats(low, knob.high)


@st.composite
def any_settings(draw: st.DrawFn) -> PostSettings:
    """Settings with any few knobs at any value."""
    # Corners have an order of their own; here it is the round trip that counts.
    free = [name for name in post_knobs() if not name.endswith(("pass_hz", "low_hz", "high_hz"))]
    chosen = draw(st.lists(st.sampled_from(free), unique=True, max_size=12))
    return PostSettings(**{name: draw(_values(post_knobs()[name])) for name in chosen})


@settings(max_examples=50, deadline=None)
@given(any_settings())
def test_settings_come_back_from_json(asked: PostSettings) -> None:
    text = json.dumps(describe(asked), allow_nan=False, sort_keys=True)
    assert settings_from(json.loads(text)) == asked


@settings(max_examples=50, deadline=None)
@given(any_settings())
def test_only_steps_that_run_are_told(asked: PostSettings) -> None:
    told = describe(asked)
    assert told["order"] == list(asked.steps)
    assert set(told) - {"order", "off", "stack"} == set(asked.steps)


def test_defaults_read_well() -> None:
    assert describe(PostSettings()) == {
        "order": ["trim", "filters", "fade", "normalise", "clip"],
        "trim": {"trim": True, "trim_threshold_db": -40.0, "trim_padding_ms": 30.0},
        "filters": {"highpass_hz": 40.0, "lowpass_hz": 16_000.0},
        "fade": {"fade_ms": 8.0},
        "normalise": {
            "normalise": "rms",
            "normalise_rms_db": -18.0,
            "normalise_lufs": -18.0,
            "normalise_ceiling_db": -1.0,
        },
        "clip": {"clip": True},
    }


def test_what_was_turned_off_is_told_apart() -> None:
    asked = PostSettings(trim=False, compressor_ratio=8.0, stack=("fade", "trim"))
    assert describe(asked) == {
        "order": ["fade"],
        "fade": {"fade_ms": 8.0},
        "off": {"trim": False, "compressor_ratio": 8.0},
        "stack": ["fade", "trim"],
    }


def test_an_order_may_be_left_out() -> None:
    told = describe(polished(PostSettings()))
    del told["order"]
    assert settings_from(told) == polished(PostSettings())


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"trims": {}}, "no step 'trims'.*'trim'"),
        ({"trim": {"trim_threshold": -40}}, "no knob 'trim_threshold'.*'trim_threshold_db'"),
        ({"trim": True}, "trim is True.*a map of knobs"),
        ({"fade": {"fade_ms": "long"}}, "post.fade_ms is 'long'"),
        ({"stack": ["trimm"]}, "names a step 'trimm'"),
        ({"order": ["trim"]}, r"order is \['trim'\].*'filters'"),
        ({"order": 5}, "order is 5"),
    ],
)
def test_what_cannot_be_settings_is_refused(told: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        settings_from(told)
