"""Three real steps of a recipe with nothing kept: what `plan --probe` tells in place of an estimate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tunesmith.data.cache import Cache
from tunesmith.events import StepDone
from tunesmith.jobs.plan import order_of
from tunesmith.jobs.work.live import load_live
from tunesmith.jobs.work.memory import device_peak_bytes, peak_bytes, reset_peak
from tunesmith.jobs.work.opening import open_recipe
from tunesmith.recipe.schema import Recipe
from tunesmith.training.device import choose_device, choose_precision, set_threads
from tunesmith.training.encode import encode_items
from tunesmith.training.loop import Until, train
from tunesmith.training.step import make_step


@dataclass(frozen=True)
class Probe:
    """What was measured. `seconds_per_step` is the median without the first step, which also warms up; `minutes`
    is the whole run's training at that pace; `peak_bytes` by phase (resident memory), `device_peak_bytes` on an
    accelerator."""

    steps: int
    seconds_per_step: float
    first_step_seconds: float
    minutes: float
    peak_bytes: dict[str, int]
    device_peak_bytes: int


def probe_steps(recipe: Recipe, home: Path, *, steps: int = 3, clock: Callable[[], float] = time.perf_counter) -> Probe:
    """Run `steps` real optimiser steps (and one to warm up) on the recipe's items, then forget them.

    What was encoded stays in the cache, since the run would encode it anyway. Raises what the run would raise.
    """
    opened = open_recipe(recipe, home)
    recipe = opened.settled
    device = choose_device(recipe.resources)
    precision = choose_precision(recipe.resources, device, recipe.method)
    set_threads(recipe.resources.threads, device)
    peaks: dict[str, int] = {}
    cache = Cache(home / "cache" / "encoded", recipe.resources.cache_limit_bytes)
    until = Until(steps=min(opened.steps, steps + 1))
    order = order_of(recipe, opened.engine, opened.gathered)
    drawn = {index for at in range(until.steps * recipe.length.accumulation) for index in order.batch(at)[0]}
    items = [opened.gathered.training[index] for index in sorted(drawn)]
    with _measured(peaks, "encode"):
        for _ in encode_items(opened.engine, opened.base, recipe=recipe, items=items, cache=cache, device=device):
            pass
    with _measured(peaks, "load"):
        live = load_live(opened, cache, device=device, precision=precision)
    with _measured(peaks, "train"):
        step = make_step(opened.engine, live.model, recipe=recipe, precision=precision, steps=opened.steps)
        events = train(live.state, live.batches, step=step, until=until, should_stop=lambda: False, clock=clock)
        seconds = [event.seconds for event in events if isinstance(event, StepDone)]
    pace = median(seconds[1:] or seconds)
    return Probe(len(seconds), pace, seconds[0], pace * opened.steps / 60, peaks, device_peak_bytes())


@contextmanager
def _measured(peaks: dict[str, int], name: str) -> Iterator[None]:
    reset_peak()
    yield
    peaks[name] = peak_bytes()
