"""Pictures that no monster's scene looks like: random colours, patterns and noise. No torch.

The starter's autoencoder sees them beside the monsters, so that it can say what a new character brings.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from PIL import Image

from tunesmith.starters import monster_art
from tunesmith.starters.monster_art import INK, SUPERSAMPLING
from tunesmith.starters.monsters import Monster, figure_of, random_monster
from tunesmith.starters.pen import Colour, Pen

_SIDE = 64.0


def random_texture(rng: random.Random, size: int = 64) -> Image.Image:
    """One picture, RGB, `size` pixels square: four in five a figure in any colours, the others patterns all over."""
    if rng.random() < 0.8:
        return _stranger(random_monster(rng), rng, size)
    image = Image.new("RGB", (size * SUPERSAMPLING, size * SUPERSAMPLING), _colour(rng))
    pen = Pen(image, size * SUPERSAMPLING / _SIDE)
    for _ in range(1 + int(rng.random() * 3)):
        _PATTERNS[int(rng.random() * len(_PATTERNS))](pen, rng)
    picture = image.reduce(SUPERSAMPLING)
    return _noisy(picture, rng) if rng.random() < 0.3 else picture


def _stranger(monster: Monster, rng: random.Random, size: int) -> Image.Image:
    """A monster in colours of its own, half of them in a random skin, half in a random hat.

    Characters' skins and crests are left to characters.
    """
    figure = replace(figure_of(monster), colours=(_colour(rng), _colour(rng)))
    if rng.random() < 0.5:
        pattern = _PATTERNS[int(rng.random() * len(_PATTERNS))]
        figure = replace(figure, skin=lambda pen: pattern(pen, rng))
    if rng.random() < 0.5:
        figure = replace(figure, hat=lambda pen, top: _hat(pen, top, rng))
    return monster_art.paint(figure, place=monster.place, position=monster.position, scenery=monster.scenery, size=size)


def _hat(pen: Pen, top: float, rng: random.Random) -> None:
    """One to three inked lumps in one colour on the head."""
    colour = _colour(rng)
    for _ in range(1 + int(rng.random() * 3)):
        x, y, rx, ry = (rng.random() - 0.5) * 16, top - 5 * rng.random(), 2.5 + 4 * rng.random(), 2.5 + 5 * rng.random()
        pen.disc(x, y, rx + 0.9, INK, ry + 0.9)
        pen.disc(x, y, rx, colour, ry)


def _colour(rng: random.Random) -> Colour:
    return int(rng.random() * 256), int(rng.random() * 256), int(rng.random() * 256)


def _checks(pen: Pen, rng: random.Random) -> None:
    side, colour = 3 + 9 * rng.random(), _colour(rng)
    shift = side * rng.random()
    for row in range(-1, int(_SIDE / side) + 1):
        for column in range(-1, int(_SIDE / side) + 1):
            if (row + column) % 2:
                x, y = shift + column * side, shift + row * side
                pen.shape([(x, y), (x + side, y), (x + side, y + side), (x, y + side)], colour)


def _stripes(pen: Pen, rng: random.Random) -> None:
    width, slant, colour = 2 + 8 * rng.random(), (rng.random() - 0.5) * 128, _colour(rng)
    for number in range(-20, 40, 2):
        at = number * width
        pen.shape([(at, 0.0), (at + width, 0.0), (at + width + slant, _SIDE), (at + slant, _SIDE)], colour)


def _discs(pen: Pen, rng: random.Random) -> None:
    for _ in range(3 + int(rng.random() * 12)):
        pen.disc(
            _SIDE * rng.random(), _SIDE * rng.random(), 1.5 + 8 * rng.random(), _colour(rng), 1.5 + 8 * rng.random()
        )


def _shapes(pen: Pen, rng: random.Random) -> None:
    for _ in range(2 + int(rng.random() * 6)):
        x, y, reach = _SIDE * rng.random(), _SIDE * rng.random(), 4 + 16 * rng.random()
        corners = [(x + (rng.random() - 0.5) * 2 * reach, y + (rng.random() - 0.5) * 2 * reach) for _ in range(4)]
        pen.shape(corners, _colour(rng))


def _lines(pen: Pen, rng: random.Random) -> None:
    for _ in range(2 + int(rng.random() * 8)):
        ends = [(_SIDE * rng.random(), _SIDE * rng.random()) for _ in range(2)]
        pen.stroke(ends, 1 + 3 * rng.random(), _colour(rng))


def _noisy(picture: Image.Image, rng: random.Random) -> Image.Image:
    """Soft blotches laid over a picture."""
    source = np.random.default_rng(int(rng.random() * 2**32))
    side = 4 + int(rng.random() * 12)
    coarse = Image.fromarray(source.integers(0, 256, (side, side, 3), dtype=np.uint8), "RGB")
    blotches = coarse.resize(picture.size, Image.Resampling.BICUBIC)
    return Image.blend(picture, blotches, 0.2 + 0.5 * rng.random())


_PATTERNS: tuple[Callable[[Pen, random.Random], None], ...] = (_checks, _stripes, _discs, _shapes, _lines)
