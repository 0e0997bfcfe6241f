"""Which changes of a recipe a run that has started can take."""

from __future__ import annotations

from typing import Any

from tunesmith.recipe.knobs import knobs_of
from tunesmith.recipe.schema import SECTIONS, Recipe

# They change when work is done, shown or stopped, never what the weights become. Resources may change bits (threads,
# precision); the run then says that it is not bit-exact.
_FREE = {
    "length.max_minutes",
    "output.save_every_steps",
    "output.state_every_minutes",
    "output.state_every_steps",
    "output.validate_every_steps",
    "output.preview_every_steps",
    "output.preview_prompts",
    "output.exports",
    "output.folder",
}
_MAY_GROW = {"length.steps", "length.epochs"}


def resume_differences(old: Recipe, new: Recipe) -> tuple[str, ...]:
    """The changes that forbid a resume, each as `knob: old -> new`; empty where `new` may go on from `old`.

    Length may grow; resources, cadence of previews, validation and saves, exports and their folder may change.
    """
    if old.engine != new.engine or type(old.settings) is not type(new.settings):
        return (f"engine.name: {old.engine} -> {new.engine}",)
    found = []
    pairs = [("engine", old.settings, new.settings)]
    pairs += [(name, getattr(old, name), getattr(new, name)) for name in SECTIONS if name != "resources"]
    for name, before, after in pairs:
        for knob in knobs_of(type(before), name):
            was, now = getattr(before, knob.name), getattr(after, knob.name)
            if was == now or knob.path in _FREE:
                continue
            if knob.path in _MAY_GROW and was is not None and now is not None:
                if now > was:
                    continue
                found.append(f"{knob.path}: {was} -> {now} (may only grow)")
            else:
                found.append(f"{knob.path}: {_shown(was)} -> {_shown(now)}")
    return tuple(found)


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, tuple):
        return str(list(value))
    return repr(value) if isinstance(value, str) else str(value)
