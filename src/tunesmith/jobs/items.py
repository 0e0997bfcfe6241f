"""Which items a recipe trains on, measures by and mixes in: one answer for the plan and for the work. No torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tunesmith.data.item import Item
from tunesmith.data.order import split
from tunesmith.data.source import as_prior, dataset_hash, read_items
from tunesmith.engines.protocol import Engine
from tunesmith.recipe.schema import Recipe
from tunesmith.weights.hashes import HashCache


@dataclass(frozen=True)
class Gathered:
    """`training` includes the prior items, which come last; `notes` explain how the folders were read."""

    training: tuple[Item, ...]
    held_out: tuple[Item, ...]
    notes: tuple[str, ...] = ()

    @property
    def own(self) -> tuple[Item, ...]:
        """What is taught: the training items without the prior ones."""
        return tuple(item for item in self.training if not item.prior)

    @property
    def prior(self) -> tuple[Item, ...]:
        """Items of the wider class, mixed into every batch."""
        return tuple(item for item in self.training if item.prior)

    @property
    def every(self) -> tuple[Item, ...]:
        """Everything that is encoded."""
        return (*self.training, *self.held_out)

    @property
    def hash(self) -> str:
        """Changes whenever what is trained or measured would."""
        return dataset_hash(self.every)


def prior_missing(recipe: Recipe, generated: Path) -> bool:
    """Whether the recipe wants prior items that the base draws and not all of them are whole: captions come last."""
    if recipe.data.prior != "generated":
        return False
    return sum(1 for _ in generated.glob("*.txt")) < recipe.data.prior_items


def gather(
    recipe: Recipe,
    engine: Engine,
    *,
    home: Path,
    generated: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Gathered:
    """Read the recipe's folders. `generated` is the folder of prior items that the base drew, once all are there."""
    hashes = HashCache(home / "cache" / "hashes.json")
    media = engine.facts.media or ("image",)

    def read(paths: tuple[str, ...]) -> tuple[tuple[Item, ...], tuple[str, ...]]:
        folders = [Path(path) for path in paths]
        reading = read_items(
            folders,
            recipe.data,
            media=media,
            hash_file=hashes.get,
            concepts=recipe.output.concepts,
            on_progress=on_progress,
        )
        return reading.items, reading.notes

    items, notes = read(recipe.data.paths)
    if recipe.data.holdout_paths:
        training, (held_out, more) = items, read(recipe.data.holdout_paths)
        notes = (*notes, *more)
        known = {item.key for item in held_out}
        training = tuple(item for item in training if item.key not in known)
    else:
        training, held_out = split(items, recipe.data.holdout_fraction, recipe.length.seed)
    prior: tuple[Item, ...] = ()
    if recipe.data.prior == "given":
        prior, more = read(recipe.data.prior_paths)
        notes = (*notes, *more)
    elif recipe.data.prior == "generated" and generated is not None and not prior_missing(recipe, generated):
        prior, _ = read((str(generated),))
    hashes.save()
    return Gathered(
        (*training, *as_prior(prior, recipe.data.prior_weight)), tuple(held_out), tuple(dict.fromkeys(notes))
    )
