"""Which items are held out, and which come when: pure functions of a seed. No torch.

Nothing depends on rank or worker count. Only `random.Random(text).random()` is used, whose numbers Python promises to
keep from version to version; `shuffle` and numpy's generators carry no such promise.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from itertools import accumulate
from math import ceil

from tunesmith.data.item import Item
from tunesmith.errors import DataError

# One measurement of the held-out loss: what makes its curve smooth without taking long.
HOLDOUT_VISITS = 64  # forward passes worth of items
HOLDOUT_REPEATS = 16  # most visits of one item: more timesteps of the same picture add little
HOLDOUT_ITEMS = 256  # most items measured; of more, every n-th is taken


def holdout_stride(items: int) -> int:
    """Every how many held-out items one is measured."""
    return -(-items // HOLDOUT_ITEMS) or 1


def holdout_repeats(measured: int) -> int:
    """How often each of `measured` held-out items is visited in one measurement."""
    return max(1, min(HOLDOUT_REPEATS, HOLDOUT_VISITS // max(1, measured)))


def holdout_visits(items: int) -> int:
    """Forward passes, counted in items, of one measurement where `items` are held out."""
    measured = len(range(0, items, holdout_stride(items)))
    return measured * holdout_repeats(measured)


def split(items: Sequence[Item], fraction: float, seed: int) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """(training, held out), by group, each in the order of `items`.

    A group is held out where a hash of (seed, group) falls below `fraction`, so adding items moves no other, with two
    bounds for small datasets: with two groups or more each side gets one, and at most twice the share is held out.
    Where every item says itself whether it is held out, and both sides get one, that holds instead, for any fraction
    above 0. Prior items always train.
    """
    groups = sorted({item.group for item in items if not item.prior}, key=lambda group: (_place(seed, group), group))
    if fraction <= 0 or len(groups) < 2:
        return tuple(items), ()
    told = {item.held_out for item in items if not item.prior}
    if told == {True, False}:
        return (
            tuple(item for item in items if item.prior or not item.held_out),
            tuple(item for item in items if not item.prior and item.held_out),
        )
    below = sum(_place(seed, group) < fraction for group in groups)
    most = min(len(groups) - 1, max(1, ceil(2 * fraction * len(groups))))
    out = set(groups[: min(max(1, below), most)])
    held_out = tuple(item for item in items if item.group in out and not item.prior)
    training = tuple(item for item in items if item.group not in out or item.prior)
    return training, held_out


@dataclass(frozen=True)
class _Slot:
    """One batch's place in an epoch: how many own views of `shape`, how many prior items; None: prior ones alone."""

    shape: str | None
    own: int
    prior: int


@dataclass(frozen=True)
class Order:
    """Batches of item indices, one shape each, over endless epochs; a function of its fields and nothing else.

    `shapes`, `repeats` and `prior` run along the items. One epoch visits every item that is not prior `repeats` times;
    prior items fill `prior_fraction` of what is drawn, cycling through all of them over the epochs. Where a shape has
    no prior items of its own, batches of prior items alone keep the share.
    """

    shapes: Sequence[str]
    repeats: Sequence[int]
    prior: Sequence[bool]
    batch_items: int
    prior_fraction: float = 0.0
    seed: int = 0
    _recent: dict[int, tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]] = field(
        default_factory=dict, init=False, repr=False, compare=False, hash=False
    )  # the last two epochs asked for, with the items before each batch: only a saving, the answer never changes

    def __post_init__(self) -> None:
        if not len(self.shapes) == len(self.repeats) == len(self.prior):
            raise ValueError("shapes, repeats and prior must have one entry per item")
        if self.batch_items < 1 or not 0 <= self.prior_fraction < 1 or any(count < 1 for count in self.repeats):
            raise ValueError("batch_items and repeats start at 1, prior_fraction lies in [0, 1)")
        if not self._own:
            raise DataError("no item is left to train on", expected="at least one", do="hold out less, or add items")

    @property
    def batches_per_epoch(self) -> int:
        """The same for every epoch."""
        return len(self._slots)

    @cached_property
    def items_per_epoch(self) -> int:
        """Own views and prior ones together; the same for every epoch."""
        return sum(slot.own + slot.prior for slot in self._slots)

    def epoch(self, number: int) -> tuple[tuple[int, ...], ...]:
        """The batches of epoch `number`, counted from 0; the last of a shape may be short."""
        return self._drawn(number)[0]

    def items_before(self, batch_index: int) -> int:
        """How many items the batches before `batch_index` hold; `batch_index` counts over epochs."""
        number, at = divmod(batch_index, self.batches_per_epoch)
        return number * self.items_per_epoch + self._drawn(number)[1][at]

    def batch(self, batch_index: int) -> tuple[tuple[int, ...], int]:
        """(item indices, global position of the first); the position counts items from the start of the run."""
        number, at = divmod(batch_index, self.batches_per_epoch)
        return self.epoch(number)[at], self.items_before(batch_index)

    @cached_property
    def _own(self) -> dict[str, list[int]]:
        """Shape -> the views of one epoch, item indices with repeats."""
        views: dict[str, list[int]] = {}
        for index, (shape, count, prior) in enumerate(zip(self.shapes, self.repeats, self.prior, strict=True)):
            if not prior:
                views.setdefault(shape, []).extend([index] * count)
        return dict(sorted(views.items()))

    @cached_property
    def _priors(self) -> dict[str, list[int]]:
        """Shape -> prior items; empty where none are mixed in."""
        found: dict[str, list[int]] = {}
        for index, (shape, prior) in enumerate(zip(self.shapes, self.prior, strict=True)):
            if prior and self.prior_fraction > 0:
                found.setdefault(shape, []).append(index)
        return dict(sorted(found.items()))

    @cached_property
    def _slots(self) -> tuple[_Slot, ...]:
        share = Fraction(self.prior_fraction).limit_denominator(1_000_000)
        own = {shape: len(views) for shape, views in self._own.items()}
        return _slots_of(own, self._priors, self.batch_items, share if self._priors else Fraction(0))

    @cached_property
    def _mixed_in(self) -> dict[str, int]:
        """Shape -> how many prior items one epoch mixes into batches of that shape."""
        return {
            shape: count
            for shape in self._priors
            if (count := sum(slot.prior for slot in self._slots if slot.shape == shape)) > 0
        }

    @cached_property
    def _alone(self) -> tuple[str, ...]:
        """The shapes that batches of prior items alone take in turn, each often enough to show all it has."""
        turns = {shape: ceil(len(found) / self.batch_items) for shape, found in self._priors.items()}
        return tuple(
            shape
            for _, shape in sorted(((at + 0.5) / turns[shape], shape) for shape in turns for at in range(turns[shape]))
        )

    def _drawn(self, number: int) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]:
        """An epoch's batches, and how many of its items come before each."""
        if number not in self._recent:
            while len(self._recent) > 1:
                self._recent.pop(next(iter(self._recent)))
            batches = self._filled(number)
            self._recent[number] = batches, tuple(accumulate((len(batch) for batch in batches), initial=0))
        return self._recent[number]

    def _filled(self, number: int) -> tuple[tuple[int, ...], ...]:
        views = {
            shape: [indices[at] for at in permutation(len(indices), f"{self.seed}/{number}/views/{shape}")]
            for shape, indices in self._own.items()
        }
        priors = {
            shape: self._prior_row(shape, "mixed", number * count, count) for shape, count in self._mixed_in.items()
        }
        alone = number * sum(slot.shape is None for slot in self._slots)
        batches = []
        for slot in self._slots:
            if slot.shape is not None:
                own = [views[slot.shape].pop() for _ in range(slot.own)]
                batches.append(tuple(own + [priors[slot.shape].pop() for _ in range(slot.prior)]))
            else:
                batches.append(tuple(self._prior_batch(alone, slot.prior)))
                alone += 1
        return tuple(batches[at] for at in permutation(len(batches), f"{self.seed}/{number}/batches"))

    def _prior_batch(self, turn: int, count: int) -> list[int]:
        """The prior items of the run's batch number `turn` of prior items alone."""
        rounds, at = divmod(turn, len(self._alone))
        shape = self._alone[at]
        before = rounds * self._alone.count(shape) + self._alone[:at].count(shape)
        return self._prior_row(shape, "alone", before * self.batch_items, count)

    def _prior_row(self, shape: str, stream: str, start: int, count: int) -> list[int]:
        """A stretch of the endless row of a shape's prior items: one permutation after the other."""
        items = self._priors[shape]
        first, last = start // len(items), (start + count - 1) // len(items)
        row = [
            items[at]
            for cycle in range(first, last + 1)
            for at in permutation(len(items), f"{self.seed}/{cycle}/{stream}/{shape}")
        ]
        return row[start - first * len(items) :][:count]


def permutation(count: int, place: str) -> list[int]:
    """A random order of range(count): a function of `count` and `place`."""
    draw = random.Random(place).random
    keys = [draw() for _ in range(count)]
    return sorted(range(count), key=keys.__getitem__)


def _slots_of(own: Mapping[str, int], priors: Collection[str], batch_items: int, share: Fraction) -> tuple[_Slot, ...]:
    """The batches of an epoch by shape and size, before they are filled and shuffled.

    `own` counts views by shape, `priors` are the shapes with prior items. Of what is drawn, `share` is prior: rounded
    up over the epoch, so that a small one still has some.
    """
    slots: list[_Slot] = []
    own_done = prior_done = 0
    for shape in sorted(own, key=lambda shape: (shape in priors, shape)):
        left = own[shape]
        while left:
            prior = 0
            if shape in priors:
                owed = ceil(share * (own_done + prior_done + batch_items)) - prior_done
                prior = min(max(owed, 0), batch_items)
                if left + prior < batch_items:  # the last, short one keeps the share too
                    prior = min(max(_owed(share, own_done + left) - prior_done, 0), batch_items - left)
            taken = min(left, batch_items - prior)
            slots.append(_Slot(shape, taken, prior))
            left, own_done, prior_done = left - taken, own_done + taken, prior_done + prior
            while shape not in priors and _owed(share, own_done) - prior_done >= batch_items:
                slots.append(_Slot(None, 0, batch_items))
                prior_done += batch_items
    if (owed := _owed(share, own_done) - prior_done) > 0:
        slots.append(_Slot(None, 0, owed))
    return tuple(slots)


def _owed(share: Fraction, own: int) -> int:
    """How many prior items belong to `own` others."""
    return ceil(share / (1 - share) * own)


def _place(seed: int, group: str) -> float:
    digest = hashlib.blake2b(f"{seed}/{group}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
