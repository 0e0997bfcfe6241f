"""Validation: the held-out loss over fixed noise and timesteps, so that two measures differ by the weights alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import fmean

import torch

from tunesmith.data.item import Item
from tunesmith.data.order import holdout_repeats, holdout_stride
from tunesmith.engines.protocol import Batch, Engine, Model
from tunesmith.events import Validated
from tunesmith.numeric.rng import BatchRng, ItemRng, generator
from tunesmith.recipe.schema import Recipe
from tunesmith.training.average import averaged
from tunesmith.training.batches import Reader
from tunesmith.training.device import Precision
from tunesmith.training.failures import explained_memory
from tunesmith.training.state import TrainState
from tunesmith.training.step import autocast, on_device, seed_modules


@dataclass(frozen=True)
class Holdout:
    """Held-out items, each visited several times with the timestep range divided evenly among its visits.

    The draws depend on the recipe's seed and the item's place in the list, never on the run's position. Captions are
    not dropped here, whatever the recipe does in training.
    """

    engine: Engine
    model: Model
    recipe: Recipe = field(kw_only=True)
    items: Sequence[Item] = field(kw_only=True)
    reader: Reader = field(kw_only=True)
    precision: Precision = field(kw_only=True)

    @property
    def repeats(self) -> int:
        """Visits of one item."""
        return holdout_repeats(len(self.chosen))

    @cached_property
    def chosen(self) -> tuple[Item, ...]:
        """The items measured."""
        return tuple(self.items[:: holdout_stride(len(self.items))])

    def measure(self, state: TrainState) -> Validated:
        """The mean loss of the held-out items at `state.step`; of the averaged weights where there are any.

        `loss` is over items that are not prior ones; `per_concept` holds each concept's mean, prior items under
        "prior". Nothing about the training changes: weights, modes and random numbers are left as they were.
        """
        with averaged(state) as weights:
            means = self.item_losses(state.device)
        own = [value for value, item in zip(means, self.chosen, strict=True) if not item.prior]
        concepts: dict[str, list[float]] = {}
        for value, item in zip(means, self.chosen, strict=True):
            concepts.setdefault("prior" if item.prior else item.concept, []).append(value)
        per_concept = {name: fmean(values) for name, values in sorted(concepts.items())} if len(concepts) > 1 else {}
        return Validated(state.step, fmean(own or means), per_concept, weights)

    def item_losses(self, device: torch.device) -> tuple[float, ...]:
        """Each chosen item's mean loss over its visits, with the model's weights as they are."""
        losses: list[list[float]] = [[] for _ in self.chosen]
        explained = explained_memory(self.recipe, device, "measuring the held-out loss")
        with explained, evaluating(self.model), torch.no_grad():
            for chunk, batch, rng in self._batches():
                seed_modules(rng, device)
                with autocast(self.precision, device):
                    loss = self.engine.loss(self.model, on_device(batch, device), self._recipe, rng)
                for index, value in zip(chunk, loss.per_item.tolist(), strict=True):
                    losses[index].append(value)
        return tuple(fmean(values) for values in losses)

    @cached_property
    def _recipe(self) -> Recipe:
        return replace(self.recipe, data=replace(self.recipe.data, caption_dropout=0.0))

    def _batches(self) -> Iterator[tuple[list[int], Batch, BatchRng]]:
        """Item indices, their batch and its fixed randomness; items of one shape together."""
        # A seed of its own: no draw here may equal one of the training.
        seed = generator(self.recipe.length.seed, 0, "holdout").initial_seed()
        shapes: dict[str, list[int]] = {}
        for index, item in enumerate(self.chosen):
            shapes.setdefault(self.engine.shape(item, self.recipe), []).append(index)
        size = self.recipe.length.batch_items
        for indices in shapes.values():
            visits = [(index, repeat) for repeat in range(self.repeats) for index in indices]
            for start in range(0, len(visits), size):
                chunk = visits[start : start + size]
                positions = tuple(index * self.repeats + repeat for index, repeat in chunk)
                examples = [
                    self.engine.draw(item, self.reader(item), self._recipe, ItemRng(seed, position))
                    for position, item in zip(positions, (self.chosen[index] for index, _ in chunk), strict=True)
                ]
                strata = tuple((repeat, self.repeats) for _, repeat in chunk)
                yield [index for index, _ in chunk], self.engine.collate(examples), BatchRng(seed, positions, strata)


@contextmanager
def evaluating(model: Model) -> Iterator[None]:
    """Inside, every component is in evaluation mode; afterwards each module is in the mode it was in."""
    modules = [module for component in model.components.values() for module in component.modules()]
    modes = [module.training for module in modules]
    state = torch.random.get_rng_state()
    try:
        for module in modules:
            module.training = False
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
        torch.random.set_rng_state(state)
