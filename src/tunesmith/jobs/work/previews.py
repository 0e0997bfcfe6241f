"""Drawing with a model: previews while it trains, and prior items from the bare base before it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from tunesmith.data.item import Item
from tunesmith.engines.protocol import Engine, Media, Sampler
from tunesmith.errors import PlanRefused
from tunesmith.events import Sampled
from tunesmith.generation.pictures import save_png
from tunesmith.generation.sheet import contact_sheet
from tunesmith.jobs.work.live import Live
from tunesmith.jobs.work.run import Run
from tunesmith.recipe.schema import Recipe
from tunesmith.training.average import averaged
from tunesmith.training.holdout import evaluating
from tunesmith.weights.atomic import explained

_CAPTIONS_SHOWN = 4


def draw_previews(run: Run, live: Live) -> None:
    """One picture per prompt, on the same seeds every time, beside the base's where an adapter trains.

    Nothing about the training changes: weights, modes and random numbers are left as they were. Stops when told to.
    """
    prompts = preview_prompts(live)
    step, opened, attached = live.state.step, live.opened, live.state.attached
    folder = run.folder.samples / f"step-{step:08d}"
    rows: list[list[Image.Image | None]] = []
    with averaged(live.state), evaluating(live.model), torch.no_grad():
        sampler = opened.engine.load_sampler(opened.base, live.device, live.precision.dtype, live.model)
        for index, prompt in enumerate(prompts):
            request = request_for(opened.engine, opened.recipe, prompt=prompt, seed=opened.recipe.length.seed + index)
            row: list[Image.Image | None] = []
            if attached is not None:
                with _without(attached):
                    row.append(_picture(_drawn(opened.engine, sampler, request, run.stops)))
            media = _drawn(opened.engine, sampler, request, run.stops)
            if media is None or run.stops():
                return
            row.append(_picture(media))
            rows.append(row)
            if _picture(media) is not None:
                save_png(media, folder / f"{index:02d}.png", {"step": step, "job": run.folder.id})
    if any(picture is not None for row in rows for picture in row):
        columns = ("base", f"step {step}") if attached is not None else (f"step {step}",)
        sheet = run.folder.samples / f"step-{step:08d}.png"
        with explained(sheet):
            contact_sheet(rows, row_labels=prompts, column_labels=columns).save(sheet)
        run.emit(Sampled(step, str(sheet)))


def preview_prompts(live: Live) -> tuple[str, ...]:
    """The recipe's, or captions of held-out items, or of the items themselves."""
    chosen = live.opened.recipe.output.preview_prompts
    if chosen:
        return chosen
    gathered = live.opened.gathered
    captions = (item.text.get("caption", "") for item in (*gathered.held_out, *gathered.own))
    return tuple(dict.fromkeys(caption for caption in captions if caption))[:_CAPTIONS_SHOWN] or ("",)


def draw(engine: Engine, sampler: Sampler, request: Any, *, out: Path, should_stop: Callable[[], bool]) -> bool:
    """Draw one picture into a file; False where it was stopped. PlanRefused for an engine that makes no pictures."""
    media = _drawn(engine, sampler, request, should_stop)
    if media is None:
        return False
    if _picture(media) is None:
        raise PlanRefused(
            f"{engine.facts.title} makes {media.kind}, which cannot be kept as prior items yet",
            do="name folders of prior items instead: data.prior=given",
        )
    save_png(media, out)
    return True


def request_for(engine: Engine, recipe: Recipe, *, prompt: str, seed: int, like: Item | None = None) -> Any:
    """A generation request at the size or window that the recipe trains at, where requests and recipe have one.

    Sounds are as long as the item `like`, or else as the window.
    """
    wanted: dict[str, Any] = {"prompt": prompt, "seed": seed}
    own = {entry.name for entry in fields(recipe.settings)}
    if "resolution" in own:
        wanted |= dict.fromkeys(("width", "height"), recipe.settings.resolution)
    window = recipe.settings.window_seconds if "window_seconds" in own else None
    if window is not None:
        length = like.media["audio"].facts["seconds"] if like is not None and "audio" in like.media else window
        wanted |= {"window_seconds": window, "seconds": min(window, length)}
    known = {entry.name for entry in fields(engine.facts.request)}
    return engine.facts.request(**{name: value for name, value in wanted.items() if name in known})


def _drawn(engine: Engine, sampler: Sampler, request: Any, should_stop: Callable[[], bool]) -> Media | None:
    """The media; None where it was stopped on the way."""
    found = [event for event in engine.sample(sampler, request, should_stop) if isinstance(event, Media)]
    return found[-1] if found else None


def _picture(media: Media | None) -> Image.Image | None:
    return media.data if media is not None and isinstance(media.data, Image.Image) else None


@contextmanager
def _without(attached: Any) -> Iterator[None]:
    attached.scale(0.0)
    try:
        yield
    finally:
        attached.scale(1.0)
