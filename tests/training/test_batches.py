"""Batches: a function of recipe, items and batch index."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from training_run import make_run, recipe_of
from tunesmith.training.batches import Batches, Microbatch, name_of
from tunesmith.training.world import World


def tensors(microbatch: Microbatch) -> dict[str, torch.Tensor]:
    assert microbatch.batch is not None
    return dict(microbatch.batch.tensors)


def test_positions_count_items_over_all_epochs(world: Path) -> None:
    run = make_run(world, recipe_of(world, length={"accumulation": 2}))
    position = 0
    for index in range(2 * run.batches.per_epoch + 1):
        (one,) = run.batches.microbatches(index, 1)
        assert run.batches.items_before(index) == position
        assert one.rng.positions == tuple(range(position, position + one.items))
        assert one.batch is not None
        assert len(one.batch.keys) == one.items == len(one.names)
        position += one.items
    assert len(run.batches.microbatches(0)) == 2
    epoch = [name for i in range(run.batches.per_epoch) for name in run.batches.microbatches(i, 1)[0].names]
    assert sorted(epoch) == sorted(name_of(item) for item in run.items)


def test_any_batch_can_be_drawn_again_alone(world: Path) -> None:
    run = make_run(world, recipe_of(world, engine={"flip": True}))
    row = run.batches.microbatches(0, 5)
    again = make_run(world, recipe_of(world, engine={"flip": True})).batches.microbatches(3, 1)[0]
    assert again.names == row[3].names
    assert all(torch.equal(tensors(again)[name], value) for name, value in tensors(row[3]).items())


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_share_every_batch_once(world: Path, size: int) -> None:
    recipe = recipe_of(world, engine={"buckets": False}, length={"batch_items": 4})
    whole = make_run(world, recipe).batches
    ranks = [
        Batches(whole.engine, whole.items, recipe=whole.recipe, reader=whole.reader, world=World(rank, size))
        for rank in range(size)
    ]
    for index in range(4):
        (all_items,) = whole.microbatches(index, 1)
        parts = [rank.microbatches(index, 1)[0] for rank in ranks]
        assert sum((part.names for part in parts), ()) == all_items.names
        assert sum((part.rng.positions for part in parts), ()) == all_items.rng.positions
        assert sum(part.share for part in parts) == pytest.approx(1.0)
        assert {part.items for part in parts} == {all_items.items}
        full = [part for part in parts if part.batch is not None]
        for name, value in tensors(all_items).items():
            assert torch.equal(torch.cat([tensors(part)[name] for part in full]), value)


def test_a_rank_without_an_item_of_a_short_batch_has_none(world: Path) -> None:
    recipe = recipe_of(world, engine={"buckets": False}, length={"batch_items": 4})
    whole = make_run(world, recipe).batches
    short = next(at for at in range(2) if whole.microbatches(at, 1)[0].items == 1)
    ranks = [
        Batches(whole.engine, whole.items, recipe=whole.recipe, reader=whole.reader, world=World(rank, 2))
        for rank in range(2)
    ]
    assert [rank.microbatches(short, 1)[0].batch is None for rank in ranks] == [True, False]
    assert [rank.microbatches(short, 1)[0].share for rank in ranks] == [0.0, 1.0]


@pytest.mark.parametrize("knob", ["seed", "batch_items"])
def test_order_knobs_change_what_they_name(world: Path, knob: str) -> None:
    recipe = recipe_of(world, engine={"buckets": False})
    plain = make_run(world, recipe)
    other = make_run(world, replace(recipe, length=replace(recipe.length, **{knob: 3})))
    sizes = [sorted(m.items for m in run.batches.microbatches(0, run.batches.per_epoch)) for run in (plain, other)]
    order = [[m.names for m in run.batches.microbatches(0, 4)] for run in (plain, other)]
    assert sizes == [[1, 2, 2], [1, 2, 2] if knob == "seed" else [2, 3]]
    assert order[0] != order[1]


def test_prior_items_take_their_share_of_every_pass(world: Path) -> None:
    recipe = recipe_of(world, engine={"buckets": False}, data={"prior_fraction": 0.5}, length={"batch_items": 4})
    items = make_run(world, recipe).items
    mixed = [replace(item, prior=index >= 3) for index, item in enumerate(items)]
    run = make_run(world, recipe, items=mixed)
    counts = [m.names for m in run.batches.microbatches(0, run.batches.per_epoch)]
    names = [name for row in counts for name in row]
    assert len(names) == 6
    assert sum(name in {"003.png", "004.png"} for name in names) == 3
