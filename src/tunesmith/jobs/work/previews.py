"""Previews while a model trains: pictures or sounds of the same prompts and seeds every time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from PIL import Image

from tunesmith.engines.protocol import Media
from tunesmith.errors import DataError, NonFinite
from tunesmith.events import Sampled
from tunesmith.generation.medium import medium_of
from tunesmith.generation.sheet import contact_sheet
from tunesmith.jobs.work.drawing import drawn, request_for
from tunesmith.jobs.work.live import Live
from tunesmith.jobs.work.run import Run
from tunesmith.training.average import averaged
from tunesmith.training.holdout import evaluating
from tunesmith.weights.atomic import explained

_CAPTIONS_SHOWN = 4


def draw_previews(run: Run, live: Live) -> None:
    """A file for each prompt and a sheet of all, beside the base's where an adapter trains.

    Nothing about the training changes: weights, modes and random numbers are left as they were. Stops when told to.
    """
    prompts = preview_prompts(live)
    opened, attached = live.opened, live.state.attached
    rows: list[list[Image.Image | None]] = []
    with averaged(live.state), evaluating(live.model), torch.no_grad():
        sampler = opened.engine.load_sampler(opened.base, live.device, live.precision.dtype, live.model)
        for index, prompt in enumerate(prompts):
            seed = opened.recipe.length.seed + index
            request = request_for(opened.engine, opened.base, opened.settled, prompt=prompt, seed=seed)
            before = None
            if attached is not None:
                with _without(attached):
                    before = drawn(opened.engine, sampler, request, run.stops)
            media = drawn(opened.engine, sampler, request, run.stops)
            if media is None or run.stops():
                return
            beside = [] if before is None else [_cell(run, live, before, index, save=False)]
            rows.append([*beside, _cell(run, live, media, index, save=True)])
    _write_sheet(run, live, prompts, rows)


def preview_prompts(live: Live) -> tuple[str, ...]:
    """The recipe's, or captions of held-out items, or of the items themselves."""
    chosen = live.opened.recipe.output.preview_prompts
    if chosen:
        return chosen
    gathered = live.opened.gathered
    captions = (item.text.get("caption", "") for item in (*gathered.held_out, *gathered.own))
    return tuple(dict.fromkeys(caption for caption in captions if caption))[:_CAPTIONS_SHOWN] or ("",)


def _cell(run: Run, live: Live, media: Media, index: int, *, save: bool) -> Image.Image | None:
    """The sheet's picture of one preview, which becomes a file where `save`; None where it has none, which is said."""
    step = live.state.step
    try:
        medium = medium_of(media)
        if save:
            path = run.folder.samples / f"step-{step:08d}" / f"{index:02d}{medium.ending}"
            medium.save(media, path, {"step": step, "job": run.folder.id})
        return medium.cell(media)
    except (NonFinite, DataError) as error:  # the training is none the worse for it
        run.warn(f"step {step}, preview {index}{'' if save else ' of the base'}: {error.found}")
        return None


def _write_sheet(run: Run, live: Live, prompts: tuple[str, ...], rows: list[list[Image.Image | None]]) -> None:
    if not any(picture is not None for row in rows for picture in row):
        return
    step = live.state.step
    columns = ("base", f"step {step}") if live.state.attached is not None else (f"step {step}",)
    sheet = run.folder.samples / f"step-{step:08d}.png"
    with explained(sheet):
        contact_sheet(rows, row_labels=prompts, column_labels=columns).save(sheet)
    run.emit(Sampled(step, str(sheet)))


@contextmanager
def _without(attached: Any) -> Iterator[None]:
    attached.scale(0.0)
    try:
        yield
    finally:
        attached.scale(1.0)
