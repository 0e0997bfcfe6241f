"""Settings as a sidecar keeps them, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.errors import RecipeError
from tunesmith.generation.sound.settings import STEPS, PostSettings, check_knob, near, post_knobs
from tunesmith.recipe.document import from_plain
from tunesmith.recipe.values import value_of

# Step -> its knobs, by the start of their names; `filters` alone has other ones.
_PREFIXES: Mapping[str, tuple[str, ...]] = {step: (step,) for step in STEPS} | {
    "filters": ("highpass", "lowpass"),
    "loop_clean": ("loop",),
}
_KEYS = ("order", *STEPS, "off", "stack")


def describe(settings: PostSettings) -> dict[str, Any]:
    """JSON-ready: `order`, the names of the steps that run, and for each its knobs; a step that is off has no entry.

    `stack` is there where an order was given. `off` holds the knobs of other steps that are not at their defaults,
    such as the one that turned a step off, so that nothing is lost: `settings_from` gives equal settings back.
    """
    running = settings.steps
    described: dict[str, Any] = {"order": list(running)}
    for step in dict.fromkeys(running):
        described[step] = {name: getattr(settings, name) for name in step_knobs(step)}
    told = {name for step in running for name in step_knobs(step)} | {"stack"}
    off = {
        name: getattr(settings, name)
        for name, entry in post_knobs().items()
        if name not in told and getattr(settings, name) != entry.default
    }
    return described | ({"off": off} if off else {}) | ({"stack": list(settings.stack)} if settings.stack else {})


def settings_from(described: Mapping[str, Any]) -> PostSettings:
    """The settings that `describe` described. Raises RecipeError for unknown names and wrong values.

    `order` may be left out; where it is there it must be what the settings make.
    """
    values: dict[str, Any] = {}
    for key, entry in described.items():
        if key not in _KEYS:
            raise RecipeError(f"post-processing has no step {key!r}", do=near(key, tuple(STEPS)))
        if key in ("order", "stack"):
            continue
        if not isinstance(entry, Mapping):
            raise RecipeError(f"post-processing: {key} is {entry!r}", expected="a map of knobs")
        values |= entry
    if "stack" in described:
        values["stack"] = described["stack"]
    checked = {name: value_of(check_knob(name), from_plain(value, "post-processing")) for name, value in values.items()}
    settings = PostSettings(**checked)
    order = described.get("order", list(settings.steps))
    if not isinstance(order, list | tuple) or tuple(order) != settings.steps:
        raise RecipeError(f"post-processing: order is {order!r}", expected=f"{list(settings.steps)}, as the knobs say")
    return settings


def step_knobs(step: str) -> tuple[str, ...]:
    """Names of the knobs of a step."""
    starts = _PREFIXES[step]
    return tuple(
        name for name in post_knobs() if any(name == start or name.startswith(f"{start}_") for start in starts)
    )
