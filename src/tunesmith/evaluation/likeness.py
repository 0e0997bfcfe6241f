"""How alike two pictures are, and whether what a model draws is one of the pictures it learnt from. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SIDE = 16
# An output this much nearer to a training picture than training pictures are to each other is a copy.
COPY_SHARE = 0.5

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Copies:
    """`share` of the outputs that are copies; `nearest` is each output's (training picture, distance); `usual` the
    median distance from a training picture to the nearest other one."""

    share: float
    nearest: tuple[tuple[int, float], ...]
    usual: float


def vector(picture: Image.Image) -> Vector:
    """What distances are taken between: the picture averaged to 16 by 16, 768 numbers from 0 to 255."""
    small = picture.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32).ravel()


def distance(one: Vector, other: Vector) -> float:
    """Root mean square difference, 0 to 255."""
    return float(np.sqrt(np.mean(np.square(one - other))))


def find_copies(outputs: Sequence[Image.Image], training: Sequence[Image.Image]) -> Copies:
    """Compare every output with every training picture. Needs two training pictures to know what is usual."""
    if len(training) < 2:
        raise ValueError("one training picture alone does not say how far apart pictures are")
    known = [vector(picture) for picture in training]
    among = [
        min(distance(one, other) for at, other in enumerate(known) if at != index) for index, one in enumerate(known)
    ]
    usual = float(np.median(among))
    nearest = []
    for output in map(vector, outputs):
        distances = [distance(output, one) for one in known]
        at = int(np.argmin(distances))
        nearest.append((at, distances[at]))
    copies = sum(found < COPY_SHARE * usual for _, found in nearest)
    return Copies(copies / len(nearest) if nearest else 0.0, tuple(nearest), usual)


def moved_towards(real: Sequence[Image.Image], before: Sequence[Image.Image], after: Sequence[Image.Image]) -> float:
    """How much nearer pictures came to the real ones of the same captions, the mean of differences of distance.

    All three in the same order, `before` and `after` of the same seeds; negative where they moved away.
    """
    moves = [
        distance(vector(one), vector(goal)) - distance(vector(other), vector(goal))
        for goal, one, other in zip(real, before, after, strict=True)
    ]
    return float(np.mean(moves))
