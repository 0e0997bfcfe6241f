"""Batches: which items come when, drawn and collated. A function of recipe, items and batch index, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch

from tunesmith.data.item import Item
from tunesmith.data.order import Order
from tunesmith.engines.protocol import Batch, Engine
from tunesmith.numeric.rng import BatchRng, ItemRng
from tunesmith.recipe.schema import Recipe
from tunesmith.training.world import World

# reader(item)(label) gives the encoded tensors of one want; see `training.encode.CachedReader`.
Reader = Callable[[Item], Callable[[str], Mapping[str, torch.Tensor]]]


@dataclass(frozen=True)
class Microbatch:
    """One forward pass. `items` counts the whole batch over all ranks, `share` is the part of it drawn here.

    `batch` is None where this rank has no item of it. `names` are the items' files, for messages.
    """

    batch: Batch | None
    rng: BatchRng
    items: int
    names: tuple[str, ...]

    @property
    def share(self) -> float:
        """This rank's part of the batch, in [0, 1]."""
        return len(self.rng.positions) / self.items


@dataclass(frozen=True)
class Batches:
    """Batches of `items`, endless; this rank's slice of each. `recipe` is settled."""

    engine: Engine
    items: Sequence[Item]
    recipe: Recipe = field(kw_only=True)
    reader: Reader = field(kw_only=True)
    world: World = field(default_factory=World, kw_only=True)

    @cached_property
    def order(self) -> Order:
        """Which items share a batch, and when."""
        prior = [item.prior for item in self.items]
        return Order(
            shapes=[self.engine.shape(item, self.recipe) for item in self.items],
            repeats=[item.repeats for item in self.items],
            prior=prior,
            batch_items=self.recipe.length.batch_items,
            prior_fraction=self.recipe.data.prior_fraction if any(prior) else 0.0,
            seed=self.recipe.length.seed,
        )

    @property
    def per_epoch(self) -> int:
        """Batches in one pass over the items, repeats counted."""
        return self.order.batches_per_epoch

    def items_before(self, batch_index: int) -> int:
        """How many items all batches before `batch_index` hold: the position of its first one."""
        return self.order.items_before(batch_index)

    def microbatches(self, batch_index: int, count: int | None = None) -> tuple[Microbatch, ...]:
        """`count` batches from `batch_index` on; None: those of one optimiser step."""
        count = self.recipe.length.accumulation if count is None else count
        return tuple(self._drawn(index) for index in range(batch_index, batch_index + count))

    def _drawn(self, batch_index: int) -> Microbatch:
        indices, first = self.order.batch(batch_index)
        positions = tuple(range(first, first + len(indices)))
        own = self.world.share(len(indices))
        chosen = [self.items[index] for index in indices[own]]
        seed = self.recipe.length.seed
        examples = [
            self.engine.draw(item, self.reader(item), self.recipe, ItemRng(seed, position))
            for item, position in zip(chosen, positions[own], strict=True)
        ]
        batch = self.engine.collate(examples) if examples else None
        return Microbatch(batch, BatchRng(seed, positions[own]), len(indices), tuple(map(name_of, chosen)))


def name_of(item: Item) -> str:
    """What a person calls an item: its first file's name, or the start of its key."""
    return next((file.path.name for file in item.media.values()), item.key[:12])
