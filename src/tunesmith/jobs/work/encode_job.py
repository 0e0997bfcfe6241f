"""A job of kind `encode`: fill the cache and nothing else, such as on a machine with a fast disk, before training."""

from __future__ import annotations

from tunesmith.jobs.work.encoding import fill_cache
from tunesmith.jobs.work.opening import accept, open_job
from tunesmith.jobs.work.run import Run
from tunesmith.training.device import choose_device, set_threads


def do_encode(run: Run) -> None:
    """Plan, then encode."""
    with run.phase("plan"):
        opened = open_job(run)
        accept(run.folder, opened)
    device = choose_device(opened.recipe.resources)
    set_threads(opened.recipe.resources.threads, device)
    fill_cache(run, opened.engine, opened.base, recipe=opened.settled, gathered=opened.gathered, device=device)
