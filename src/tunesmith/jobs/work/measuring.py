"""An engine's own quality figures of what was trained, over the items that were held out."""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean

import torch

from tunesmith.data.item import Item
from tunesmith.jobs.work.live import Live
from tunesmith.numeric.rng import ItemRng
from tunesmith.training.average import averaged
from tunesmith.training.holdout import evaluating
from tunesmith.training.step import autocast, on_device

_MOST_BATCHES = 16


def stage_measures(live: Live) -> dict[str, float]:
    """`holdout_psnr_db` and the like: each of the engine's measures, the mean over held-out batches."""
    opened = live.opened
    measures = opened.engine.measures(opened.settled.method.stage)
    if not measures or not opened.gathered.held_out:
        return {}
    found: dict[str, list[float]] = defaultdict(list)
    size = opened.recipe.length.batch_items
    by_shape: dict[str, list[Item]] = defaultdict(list)
    for item in opened.gathered.held_out:
        by_shape[opened.engine.shape(item, opened.settled)].append(item)
    chunks = [items[start : start + size] for items in by_shape.values() for start in range(0, len(items), size)]
    with averaged(live.state), evaluating(live.model), torch.no_grad(), autocast(live.precision, live.device):
        for position, items in enumerate(chunks[:_MOST_BATCHES]):
            examples = [
                opened.engine.draw(
                    item, live.batches.reader(item), opened.settled, ItemRng(live.state.seed, position * size + at)
                )
                for at, item in enumerate(items)
            ]
            batch = on_device(opened.engine.collate(examples), live.device)
            for name, measure in measures.items():
                found[f"holdout_{name}"].append(measure(live.model, batch, opened.settled))
    return {name: fmean(values) for name, values in found.items()}
