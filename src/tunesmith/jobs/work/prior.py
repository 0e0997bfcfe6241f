"""Prior items that the base itself draws, so that teaching one thing does not change everything else."""

from __future__ import annotations

import gc

import torch

from tunesmith.events import Progress
from tunesmith.jobs.folder import JobFolder
from tunesmith.jobs.work.opening import Opened
from tunesmith.jobs.work.previews import draw, request_for
from tunesmith.jobs.work.run import Run
from tunesmith.recipe.schema import Recipe
from tunesmith.training.device import Precision
from tunesmith.weights.atomic import fsync_folder, write_text

# Far from the seeds that people choose, so that no preview repeats a prior item.
_FIRST_SEED = 1_000_003


def prior_missing(folder: JobFolder, recipe: Recipe) -> bool:
    """Whether the recipe wants generated prior items and not all of them are there."""
    if recipe.data.prior != "generated":
        return False
    return sum(1 for _ in folder.prior.glob("*.txt")) < recipe.data.prior_items


def generate_prior(run: Run, opened: Opened, *, device: torch.device, precision: Precision) -> None:
    """Draw what is missing into the job's folder, the prompts in turn, each item on a seed of its own.

    A caption is written after its picture, so an item counts only once it is whole. Raises Stopped when asked to.
    """
    recipe, engine = opened.recipe, opened.engine
    run.folder.prior.mkdir(exist_ok=True)
    total, prompts = recipe.data.prior_items, recipe.data.prior_prompts
    with torch.no_grad():
        sampler = engine.load_sampler(opened.base, device, precision.dtype)
        for index in range(total):
            run.emit(Progress(index, total, "prior items"))
            caption = run.folder.prior / f"{index:05d}.txt"
            if caption.exists():
                continue
            prompt = prompts[index % len(prompts)]
            request = request_for(engine, recipe, prompt=prompt, seed=recipe.length.seed + _FIRST_SEED + index)
            draw(engine, sampler, request, out=caption.with_suffix(".png"), should_stop=run.stops)
            run.check_stop()
            write_text(caption, prompt)
    fsync_folder(run.folder.prior)
    del sampler
    gc.collect()
