"""Prior items that the base itself draws, so that teaching one thing does not change everything else."""

from __future__ import annotations

import gc
from pathlib import Path

import torch

from tunesmith.engines.protocol import Media
from tunesmith.events import Progress
from tunesmith.generation.medium import medium_of
from tunesmith.jobs.work.drawing import drawn, request_for
from tunesmith.jobs.work.opening import Opened
from tunesmith.jobs.work.run import Run
from tunesmith.training.device import Precision
from tunesmith.weights.atomic import fsync_folder, write_text

# Far from the seeds that people choose, so that no preview repeats a prior item.
_FIRST_SEED = 1_000_003


def generate_prior(run: Run, opened: Opened, *, device: torch.device, precision: Precision) -> None:
    """Draw what is missing into the job's folder, the prompts in turn, each item on a seed of its own.

    They are as large or as long as the recipe trains. Raises Stopped when asked to, NonFinite for NaN and Inf.
    """
    recipe, engine = opened.recipe, opened.engine
    run.folder.prior.mkdir(exist_ok=True)
    total, prompts = recipe.data.prior_items, recipe.data.prior_prompts
    with torch.no_grad():
        sampler = engine.load_sampler(opened.base, device, precision.dtype)
        for index in range(total):
            run.emit(Progress(index, total, "prior items"))
            place = run.folder.prior / f"{index:05d}"
            if _caption(place).exists():
                continue
            prompt = prompts[index % len(prompts)]
            seed = recipe.length.seed + _FIRST_SEED + index
            request = request_for(engine, opened.base, opened.settled, prompt=prompt, seed=seed)
            media = drawn(engine, sampler, request, run.stops)
            run.check_stop()
            if media is not None:
                _keep(media, place, prompt)
    run.emit(Progress(total, total, "prior items"))
    fsync_folder(run.folder.prior)
    del sampler
    gc.collect()


def _keep(media: Media, place: Path, prompt: str) -> None:
    """The caption comes after the file it belongs to, so an item counts only once it is whole."""
    medium = medium_of(media)
    medium.save(media, place.with_suffix(medium.ending), {})
    write_text(_caption(place), prompt)


def _caption(place: Path) -> Path:
    return place.with_suffix(".txt")
