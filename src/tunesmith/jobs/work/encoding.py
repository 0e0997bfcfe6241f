"""The encode phase: everything the items need is in the cache when it ends, and no encoder is in memory."""

from __future__ import annotations

import torch

from tunesmith.data.cache import Cache
from tunesmith.engines.protocol import Base, Engine
from tunesmith.jobs.items import Gathered
from tunesmith.jobs.work.run import Run
from tunesmith.recipe.schema import Recipe
from tunesmith.training.encode import encode_items


def fill_cache(
    run: Run, engine: Engine, base: Base, *, recipe: Recipe, gathered: Gathered, device: torch.device
) -> Cache:
    """Encode what is missing. Raises Stopped when asked to stop; what is encoded by then is kept."""
    cache = Cache(run.folder.home / "cache" / "encoded", recipe.resources.cache_limit_bytes)
    with run.phase("encode"):
        run.emit_all(
            encode_items(
                engine,
                base,
                recipe=recipe,
                items=gathered.every,
                cache=cache,
                device=device,
                should_stop=run.stops,
            )
        )
        run.check_stop()
    return cache
