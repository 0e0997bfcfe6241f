"""Where the little monsters stand: scenes in flat colours, none of them a monster's. No torch."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tunesmith.starters.pen import Colour, Pen

# Where the ground begins at the left and the right edge. It rises everywhere: where left and right look alike
# a denoiser learns to tell high from low, and never left from right.
GROUND_Y = (52.0, 40.0)

_WHITE: Colour = (255, 255, 255)


@dataclass(frozen=True)
class Place:
    """A scene: its words in a caption, the colours behind and below, what stands there and its colours."""

    words: str
    above: Colour
    below: Colour
    things: Callable[[Pen, random.Random], None]
    colours: tuple[Colour, ...]

    def paint(self, pen: Pen, rng: random.Random) -> None:
        """Fill the picture."""
        pen.shape([(0, 0), (64, 0), (64, 64), (0, 64)], self.above)
        pen.shape([(0, GROUND_Y[0]), (64, GROUND_Y[1]), (64, 64), (0, 64)], self.below)
        self.things(pen, rng)


def _spread(rng: random.Random, count: int) -> list[float]:
    """`count` places across the picture, one in each equal part of it."""
    return [(index + rng.random()) * 64 / count for index in range(count)]


def _meadow(pen: Pen, rng: random.Random) -> None:
    for x in _spread(rng, 2):
        y = 7 + 6 * rng.random()
        for step in (-4, 0, 4):
            pen.disc(x + step, y - (step == 0), 3.4, _WHITE, 2.6)
    for x in _spread(rng, 5):
        y = 49 + 12 * rng.random()
        pen.disc(x, y, 1.7, (250, 246, 250))
        pen.disc(x, y, 0.7, (246, 190, 60))


def _desert(pen: Pen, rng: random.Random) -> None:
    pen.disc(10 + 44 * rng.random(), 9, 5, (255, 250, 200))
    for x in _spread(rng, 2):
        green = (104, 140, 84)
        pen.stroke([(x, 48), (x, 34)], 3.4, green)
        pen.stroke([(x, 42), (x + 5, 42), (x + 5, 37)], 2.4, green)
        pen.stroke([(x, 44), (x - 5, 44), (x - 5, 39)], 2.4, green)


def _night(pen: Pen, rng: random.Random) -> None:
    x = 12 + 40 * rng.random()
    pen.disc(x, 10, 5.5, (240, 238, 210))
    pen.disc(x + 2.6, 8.6, 4.8, (24, 26, 74))
    for x in _spread(rng, 9):
        pen.disc(x, 3 + 36 * rng.random(), 0.8, (236, 236, 220))


def _snow(pen: Pen, rng: random.Random) -> None:
    for x in _spread(rng, 3):
        for step in range(3):
            y, half = 47 - 5 * step, 6 - 1.6 * step
            pen.shape([(x - half, y), (x + half, y), (x, y - 8)], (108, 150, 150))
    for x in _spread(rng, 8):
        pen.disc(x, 3 + 40 * rng.random(), 1.0, _WHITE)


def _cave(pen: Pen, rng: random.Random) -> None:
    for x in _spread(rng, 5):
        pen.shape([(x - 5, 0), (x + 5, 0), (x, 9 + 9 * rng.random())], (58, 46, 46))
    for x in _spread(rng, 4):
        pen.shape([(x - 4, 64), (x + 4, 64), (x, 56 - 4 * rng.random())], (108, 92, 84))


def _sea(pen: Pen, rng: random.Random) -> None:
    for x in _spread(rng, 3):
        line = [(x, 52.0), (x + 2, 46.0), (x - 2, 40.0), (x + 1, 33.0)]
        pen.stroke(line, 2.2, (22, 112, 104))
    for x in _spread(rng, 6):
        y = 4 + 36 * rng.random()
        pen.disc(x, y, 2.0, (196, 232, 240))
        pen.disc(x, y, 1.2, (72, 150, 180))


def _city(pen: Pen, rng: random.Random) -> None:
    for x in (4, 19, 34, 49, 62):
        top = 14 + 18 * rng.random()
        pen.shape([(x - 6, top), (x + 6, top), (x + 6, 47), (x - 6, 47)], (136, 120, 140))
        for row in range(4):
            for column in (-3, 1):
                y = top + 3 + 6 * row
                if y < 43:
                    corners = [(x + column, y), (x + column + 2.2, y), (x + column + 2.2, y + 3), (x + column, y + 3)]
                    pen.shape(corners, (252, 232, 160))


def _forest(pen: Pen, rng: random.Random) -> None:
    for x in _spread(rng, 5):
        pen.stroke([(x, 2), (x, 48)], 4.5, (88, 64, 44))
        pen.disc(x, 6 + 8 * rng.random(), 8, (66, 92, 62), 7)


PLACES: Mapping[str, Place] = {
    "meadow": Place(
        "in a meadow", (176, 222, 250), (164, 210, 122), _meadow, ((255, 255, 255), (250, 246, 250), (246, 190, 60))
    ),
    "desert": Place("in the desert", (255, 224, 172), (226, 184, 116), _desert, ((255, 250, 200), (104, 140, 84))),
    "night": Place("at night", (24, 26, 74), (52, 62, 84), _night, ((240, 238, 210), (236, 236, 220))),
    "snow": Place("in the snow", (206, 222, 240), (248, 251, 255), _snow, ((108, 150, 150), (255, 255, 255))),
    "cave": Place("in a cave", (84, 70, 68), (70, 57, 55), _cave, ((58, 46, 46), (108, 92, 84))),
    "sea": Place("under the sea", (72, 150, 180), (206, 190, 150), _sea, ((22, 112, 104), (196, 232, 240))),
    "city": Place("in the city", (222, 202, 226), (112, 108, 118), _city, ((136, 120, 140), (252, 232, 160))),
    "forest": Place("in the forest", (112, 140, 106), (92, 106, 70), _forest, ((88, 64, 44), (66, 92, 62))),
}
