"""Randomness depends on seed, position and purpose, and on nothing else."""

from __future__ import annotations

import pytest
import torch

from tunesmith.numeric.rng import BatchRng, ItemRng, generator


def numbers(seed: int, position: int, purpose: str) -> list[float]:
    return torch.rand(4, generator=generator(seed, position, purpose)).tolist()


def test_each_argument_matters_and_nothing_else() -> None:
    plain = numbers(1, 2, "noise")
    torch.manual_seed(99)
    torch.rand(17)
    assert numbers(1, 2, "noise") == plain
    assert (
        len({tuple(numbers(*args)) for args in [(1, 2, "noise"), (0, 2, "noise"), (1, 3, "noise"), (1, 2, "x")]}) == 4
    )


def test_a_generator_leaves_the_global_one_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    ItemRng(0, 0).uniform("a")
    BatchRng(0, (1, 2)).normal("b", (3,))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("draw", ["normal", "integers", "uniform"])
def test_items_do_not_depend_on_the_batch_they_are_in(draw: str) -> None:
    def values(positions: tuple[int, ...]) -> torch.Tensor:
        rng = BatchRng(3, positions)
        if draw == "normal":
            return rng.normal("p", (2, 2))
        return rng.integers("p", 0, 1000) if draw == "integers" else rng.uniform("p")

    whole = values((4, 5, 6, 7))
    assert torch.equal(whole, torch.cat([values((4,)), values((5, 6)), values((7,))]))
    assert len(whole.unique()) > 3


def test_strata_cover_the_range_evenly() -> None:
    rng = BatchRng(0, tuple(range(8)), tuple((k, 8) for k in range(8)))
    assert (rng.integers("t", 0, 1000) // 125).tolist() == list(range(8))
    assert (rng.uniform("t") * 8).floor().tolist() == list(range(8))
    assert (rng.integers("t", 5, 7) >= 5).all()
    assert (rng.integers("t", 5, 7) < 7).all()


def test_permutation_is_one() -> None:
    order = ItemRng(0, 1).permutation("tags", 20)
    assert sorted(order) == list(range(20))
    assert order != list(range(20))
