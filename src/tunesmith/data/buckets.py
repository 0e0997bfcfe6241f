"""Sizes that pictures of one aspect ratio share. No torch.

The rules are those users of kohya's trainer know, so that the same pictures land in the same buckets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def bucket_sizes(area_pixels: int, low: int, high: int, step: int) -> tuple[tuple[int, int], ...]:
    """Sizes (width, height) of at most `area_pixels`, sides from `low` to `high` in multiples of `step`, sorted.

    For each width the tallest height that fits, and each size turned by 90 degrees.
    """
    sizes = set()
    for width in range(low, high + 1, step):
        height = min(high, area_pixels // width // step * step)
        if height >= low:
            sizes |= {(width, height), (height, width)}
    square = math.isqrt(area_pixels) // step * step
    if low <= square <= high:
        sizes.add((square, square))
    return tuple(sorted(sizes))


def nearest_bucket(width: int, height: int, sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The size whose width / height is nearest to the picture's; of equals, the largest."""
    ratio = width / height
    return min(sizes, key=lambda size: (abs(size[0] / size[1] - ratio), -size[0] * size[1]))


def bucket_without_upscale(width: int, height: int, area_pixels: int, step: int) -> tuple[int, int]:
    """The picture's own size, shrunk to `area_pixels` where it is larger, each side cut down to a multiple of `step`.

    A side below `step` pixels becomes `step`: the one case where a picture is enlarged.
    """
    ratio = width / height
    if width * height > area_pixels:
        width, height = _shrunk(ratio, area_pixels, step)
    return max(step, width - width % step), max(step, height - height % step)


def _shrunk(ratio: float, area_pixels: int, step: int) -> tuple[int, int]:
    """Width and height near `area_pixels`, one of them a multiple of `step`: the one that keeps `ratio` better."""
    width = math.sqrt(area_pixels * ratio)
    by_width = max(step, int(width + 0.5) // step * step)
    by_height = max(step, int(width / ratio + 0.5) // step * step)
    of_width = (by_width, max(step, int(by_width / ratio + 0.5)))
    of_height = (max(step, int(by_height * ratio + 0.5)), by_height)

    def error(size: tuple[int, int]) -> float:
        return abs(size[0] // step * step / (size[1] // step * step) - ratio)

    return min(of_width, of_height, key=error)
