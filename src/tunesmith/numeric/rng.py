"""Randomness as a function of (seed, global item position, purpose).

Nothing random depends on rank, worker count or batch size, and there is no generator state to save: a resumed run
asks for the same positions and gets the same numbers. The idea is edm2's (Karras et al., 2024, arXiv 2312.02696).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch


def generator(seed: int, position: int, purpose: str) -> torch.Generator:
    """A CPU generator that depends on nothing but its three arguments."""
    digest = hashlib.blake2b(f"{seed}/{position}/{purpose}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


@dataclass(frozen=True)
class ItemRng:
    """Randomness of one visit: `position` is the item's global place in the run, counted in items."""

    seed: int
    position: int

    def generator(self, purpose: str) -> torch.Generator:
        """A fresh CPU generator for `purpose`."""
        return generator(self.seed, self.position, purpose)

    def uniform(self, purpose: str) -> float:
        """One number in [0, 1)."""
        return float(torch.rand((), generator=self.generator(purpose), dtype=torch.float64))

    def permutation(self, purpose: str, count: int) -> list[int]:
        """A random order of range(count)."""
        return [int(index) for index in torch.randperm(count, generator=self.generator(purpose))]


@dataclass(frozen=True)
class BatchRng:
    """Randomness of one batch: item i of the batch draws from its own position only.

    `strata`, where given, holds (k, of) per item: its integers and uniform numbers then come from part k of `of` equal
    parts of the range. Validation covers the range of timesteps evenly that way.
    """

    seed: int
    positions: tuple[int, ...]
    strata: tuple[tuple[int, int], ...] = ()

    def normal(self, purpose: str, shape: Sequence[int]) -> torch.Tensor:
        """Standard normal [batch, *shape], float32 on the CPU, item by item."""
        rows = [torch.randn(tuple(shape), generator=generator(self.seed, at, purpose)) for at in self.positions]
        return torch.stack(rows)

    def integers(self, purpose: str, low: int, high: int) -> torch.Tensor:
        """Uniform integers [batch] in [low, high)."""
        if self.strata:
            return low + (self.uniform(purpose).double() * (high - low)).long().clamp(max=high - low - 1)
        rows = [torch.randint(low, high, (), generator=generator(self.seed, at, purpose)) for at in self.positions]
        return torch.stack(rows)

    def uniform(self, purpose: str) -> torch.Tensor:
        """Uniform float32 numbers [batch] in [0, 1)."""
        rows = torch.stack([torch.rand((), generator=generator(self.seed, at, purpose)) for at in self.positions])
        if not self.strata:
            return rows
        part, parts = torch.tensor(self.strata, dtype=torch.float32).unbind(1)
        return ((part + rows) / parts).clamp(max=1.0 - 2.0**-24)
