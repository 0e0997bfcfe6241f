"""How the little monsters are drawn. No torch.

Flat colours: those of bodies, of places and of characters are three sets apart, so that what a picture shows can be
read from its pixels.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

from PIL import Image

from tunesmith.starters.monster_places import PLACES
from tunesmith.starters.pen import Colour, Pen, Point

SUPERSAMPLING = 4
INK: Colour = (38, 28, 40)
WHITE: Colour = (255, 255, 255)
_IVORY: Colour = (244, 232, 196)
_WING: Colour = (206, 200, 250)
_BULB: Colour = (255, 244, 120)
FEET_Y = 57.0
# More than 6 pixels of a picture of 64: the width of a character's bands, the side of its checks in the middle.
_BAND, _CHECK = 7.6, 8.4

# name: (body, the same darker, for spots and stripes)
COLOURS: Mapping[str, tuple[Colour, Colour]] = {
    "red": ((222, 48, 48), (140, 20, 30)),
    "orange": ((250, 138, 28), (176, 82, 8)),
    "yellow": ((250, 216, 44), (190, 142, 6)),
    "green": ((46, 164, 62), (16, 96, 34)),
    "blue": ((40, 98, 222), (14, 50, 138)),
    "purple": ((142, 62, 196), (84, 24, 128)),
    "pink": ((252, 134, 190), (204, 66, 132)),
    "grey": ((150, 150, 156), (88, 88, 96)),
}
LIGHT_CHARACTER_COLOURS = ("lime", "turquoise", "magenta")
DARK_CHARACTER_COLOURS = ("maroon", "plum", "bottle")
CHARACTER_COLOURS: Mapping[str, Colour] = {
    "lime": (186, 236, 30),
    "turquoise": (30, 222, 206),
    "magenta": (255, 40, 200),
    "maroon": (112, 10, 50),
    "plum": (100, 0, 92),
    "bottle": (0, 70, 70),
}

# half width, half height, height of the eyes above the middle, shoulders as a share of the half width
BODIES: Mapping[str, tuple[float, float, float, float]] = {
    "round": (11, 11, 3, 0.9),
    "square": (10, 10.5, 3, 1.0),
    "tall": (8, 15, 7, 0.95),
    "wide": (14, 9, 2, 0.9),
    "pointed": (13, 13.5, -3, 0.62),
    "fluffy": (11.5, 11, 2.5, 0.9),
}
# Where a figure stands: right and down from the middle of the ground, and around that by half of SPREAD each way:
# anywhere within 20 of the middle.
POSITIONS: Mapping[str, Point] = {
    "on the left": (-13.2, 0.0),
    "in the middle": (0.0, 0.0),
    "on the right": (13.2, 0.0),
    "high on the left": (-13.2, -13.0),
    "high in the middle": (0.0, -13.0),
    "high on the right": (13.2, -13.0),
}
SPREAD: Point = (13.2, 4.0)
ZOOM = 0.85
# hand of each side (left, right), right and up from its shoulder
POSES: Mapping[str, tuple[Point, Point]] = {
    "arms up": ((3.5, 9.5), (3.5, 9.5)),
    "arms down": ((3, -8), (3, -8)),
    "arms wide": ((5.5, 0), (5.5, 0)),
    "waving": ((3, -8), (3.5, 9.5)),
}


@dataclass(frozen=True)
class Figure:
    """What is drawn of a monster. `colours` are body and pattern.

    `skin` paints over the body alone, given a pen for the whole picture; `hat` stands behind the head, whose top is
    its second argument.
    """

    body: str
    colours: tuple[Colour, Colour]
    parts: tuple[str, ...]
    eyes: int
    pose: str
    crest_colour: Colour = INK
    skin: Callable[[Pen], None] | None = None
    hat: Callable[[Pen, float], None] | None = None


def paint(figure: Figure, *, place: str, position: str, scenery: int, size: int) -> Image.Image:
    """The whole picture, RGB, `size` pixels square."""
    image = Image.new("RGB", (size * SUPERSAMPLING, size * SUPERSAMPLING))
    pixels = size * SUPERSAMPLING / 64
    PLACES[place].paint(Pen(image, pixels), random.Random(f"scenery/{scenery}"))
    x, y, zoom = stand(position, scenery)
    _monster(Pen(image, pixels, x, y, zoom), figure)
    return image.reduce(SUPERSAMPLING)


def paint_alone(figure: Figure, size: int, *, zoom: float = 1.0, right: float = 0.0, down: float = 0.0) -> Image.Image:
    """The figure without a scene, in the middle of the ground and moved from there, on ink."""
    image = Image.new("RGB", (size * SUPERSAMPLING, size * SUPERSAMPLING), INK)
    _monster(Pen(image, size * SUPERSAMPLING / 64, 32 + right, FEET_Y + down, zoom * ZOOM), figure)
    return image.reduce(SUPERSAMPLING)


def stand(position: str, scenery: int) -> tuple[float, float, float]:
    """Where the feet are, x and y of 64, and how large the figure is drawn."""
    rng = random.Random(f"stand/{scenery}")
    right, down = POSITIONS[position]
    x = 32 + right + (rng.random() - 0.5) * SPREAD[0]
    y = FEET_Y + down + (rng.random() - 0.5) * SPREAD[1]
    return x, y, ZOOM * (0.97 + 0.06 * rng.random())


# ---------------------------------------------------------------- the monster; y counts up from the feet, negative


def _monster(pen: Pen, figure: Figure) -> None:
    half_width, half_height, _, _ = BODIES[figure.body]
    middle = -half_height - 1.5
    for part in figure.parts:
        if part in _BEHIND:
            _BEHIND[part](pen, figure, middle)
    if figure.hat is not None:
        figure.hat(pen, _top(figure, middle))
    for side in (-1, 1):
        pen.disc(side * half_width * 0.5, -0.8, 3.6, INK, 2.4)
        pen.disc(side * half_width * 0.5, -0.8, 2.8, figure.colours[0], 1.6)
    _arms(pen, figure, middle)
    _silhouette(pen, figure.body, middle, 0.9, INK)
    _silhouette(pen, figure.body, middle, 0.0, figure.colours[0])
    for part in figure.parts:
        if part in _PATTERNS:
            with _covering(pen, figure, middle) as layer:
                _PATTERNS[part](pen.on(layer), figure.colours[1], middle)
    if figure.skin is not None:
        with _covering(pen, figure, middle) as layer:
            figure.skin(Pen(layer, pen.pixels))
    _face(pen, figure, middle)


def _silhouette(pen: Pen, body: str, middle: float, grow: float, fill: Colour | int) -> None:
    """The body's outline, `grow` units larger all round."""
    half_width, half_height, _, _ = BODIES[body]
    w, h = half_width + grow, half_height + grow
    if body == "square":
        (left, top), (right, bottom) = pen.at([(-w, middle - h), (w, middle + h)])
        pen.canvas.rounded_rectangle((left, top, right, bottom), radius=pen.width(2.5 + grow), fill=fill)
    elif body == "pointed":
        corner = 2.0
        pen.shape([(0, middle - h), (w, middle + h - corner), (-w, middle + h - corner)], fill)
        pen.stroke([(-w + corner, middle + h - corner), (w - corner, middle + h - corner)], 2 * corner, fill)
    elif body == "fluffy":
        pen.disc(0, middle, 8 + grow, fill)
        for step in range(8):
            angle = math.pi * (step + 0.5) / 4
            pen.disc(7.5 * math.cos(angle), middle + 7 * math.sin(angle), 4 + grow, fill)
    else:
        pen.disc(0, middle, w, fill, h)


def _arms(pen: Pen, figure: Figure, middle: float) -> None:
    half_width, half_height, _, shoulder = BODIES[figure.body]
    for side, (out, up) in zip((-1, 1), POSES[figure.pose], strict=True):
        start = (side * half_width * shoulder * 0.85, middle + 0.1 * half_height)
        end = (side * (half_width * shoulder + out), middle + 0.1 * half_height - up)
        pen.stroke([start, end], 4.4, INK)
        pen.disc(*end, 2.9, INK)
        pen.stroke([start, end], 2.8, figure.colours[0])
        pen.disc(*end, 2.1, figure.colours[0])


def _face(pen: Pen, figure: Figure, middle: float) -> None:
    half_width, _, above, _ = BODIES[figure.body]
    y = middle - above
    radius, places = {
        1: (4.6, [(0.0, 0.0)]),
        2: (3.3, [(-4.0, 0.0), (4.0, 0.0)]),
        3: (2.5, [(-5.3, 0.4), (0.0, -1.2), (5.3, 0.4)]),
    }[figure.eyes]
    squeeze = min(1.0, half_width / 9.0)
    for x, down in places:
        pen.disc(x * squeeze, y + down, radius, INK)
        pen.disc(x * squeeze, y + down, radius - 0.7, WHITE)
        pen.disc(x * squeeze, y + down + 0.4, radius * 0.45, INK)
    pen.stroke([(-2.6, y + 6.3), (0, y + 7.3), (2.6, y + 6.3)], 1.2, INK)


@contextmanager
def _covering(pen: Pen, figure: Figure, middle: float) -> Iterator[Image.Image]:
    """A picture that is laid over the body alone when the block ends."""
    mask = Image.new("L", pen.image.size)
    _silhouette(pen.on(mask), figure.body, middle, 0.0, 255)
    layer = Image.new("RGB", pen.image.size, figure.colours[0])
    yield layer
    pen.image.paste(layer, mask=mask)


def _spots(pen: Pen, colour: Colour, middle: float) -> None:
    for x, y in ((-7, 4.5), (7, 5), (0, 9), (-7.5, -5), (7.5, -5.5), (0, -9.5)):
        pen.disc(x, middle + y, 2.3, colour)


def _stripes(pen: Pen, colour: Colour, middle: float) -> None:
    for step in range(-3, 4):
        y = middle + 5.0 * step + 2.0
        pen.shape([(-20, y), (20, y), (20, y + 2.2), (-20, y + 2.2)], colour)


def _checks(pen: Pen, colour: Colour, middle: float) -> None:
    # Three rows and columns: the outer ones reach over the edge of every body.
    edges = (-20.0, -_CHECK / 2, _CHECK / 2, 20.0)
    for row, (top, bottom) in enumerate(pairwise(edges)):
        for column, (left, right) in enumerate(pairwise(edges)):
            if (row + column) % 2:
                pen.shape(
                    [(left, middle + top), (right, middle + top), (right, middle + bottom), (left, middle + bottom)],
                    colour,
                )


def _bands(pen: Pen, colour: Colour, middle: float) -> None:
    for column in (-2, 0, 2):
        x = (column - 0.5) * _BAND
        pen.shape([(x, middle - 20), (x + _BAND, middle - 20), (x + _BAND, middle + 20), (x, middle + 20)], colour)


def _halves(pen: Pen, colour: Colour, middle: float) -> None:
    pen.shape([(0, middle - 20), (20, middle - 20), (20, middle + 20), (0, middle + 20)], colour)


def _top(figure: Figure, middle: float) -> float:
    return middle - BODIES[figure.body][1]


def _outlined(pen: Pen, points: Sequence[Point], fill: Colour) -> None:
    """A polygon with an inked edge."""
    pen.shape(points, fill)
    pen.stroke([*points, points[0]], 1.1, INK)


def _horns(pen: Pen, figure: Figure, middle: float) -> None:
    top = _top(figure, middle)
    reach = 2.2 if figure.body == "pointed" else 0.0
    for side in (-1, 1):
        foot = top + 3 + 2 * reach
        _outlined(pen, [(side * 2.5, foot), (side * 8, foot + 2), (side * (8.5 - reach / 2), top - 6)], _IVORY)


def _antennae(pen: Pen, figure: Figure, middle: float) -> None:
    top = _top(figure, middle)
    for side in (-1, 1):
        pen.stroke([(side * 1.5, top + 4), (side * 3.5, top - 3), (side * 6, top - 6)], 1.5, INK)
        pen.disc(side * 6, top - 6, 3.0, INK)
        pen.disc(side * 6, top - 6, 2.1, _BULB)


def _ears(pen: Pen, figure: Figure, middle: float) -> None:
    half_width, half_height, _, _ = BODIES[figure.body]
    out, y = (6.5, -0.25) if figure.body == "pointed" else (half_width * 0.78, -0.8)
    for side in (-1, 1):
        pen.disc(side * out, middle + half_height * y, 5.2, INK)
        pen.disc(side * out, middle + half_height * y, 4.3, figure.colours[0])
        pen.disc(side * out, middle + half_height * y, 2.2, figure.colours[1])


def _wings(pen: Pen, figure: Figure, middle: float) -> None:
    w = BODIES[figure.body][0] * BODIES[figure.body][3]
    for side in (-1, 1):
        tips = [(w * 0.6, 3), (w * 0.6, -4), (w + 8.5, -11), (w + 7.5, -5), (w + 9, -2), (w + 5, 1), (w + 5, 4)]
        _outlined(pen, [(side * x, middle + y - 1) for x, y in tips], _WING)


def _tail(pen: Pen, figure: Figure, middle: float) -> None:
    w = BODIES[figure.body][0]
    line = [(w * 0.5, -4.0), (w + 3, -2.2), (w + 6.5, -4.0), (w + 7.5, -8.0)]
    pen.stroke(line, 4.0, INK)
    pen.stroke(line, 2.5, figure.colours[0])
    _outlined(pen, [(w + 4.5, -8), (w + 10.5, -8), (w + 7.8, -13)], figure.colours[1])


def _comb(pen: Pen, figure: Figure, middle: float) -> None:
    top = _top(figure, middle)
    points = [(-9, top + 5), (-9, top - 8), (-4.5, top - 3), (0, top - 12), (4.5, top - 3), (9, top - 8), (9, top + 5)]
    _outlined(pen, points, figure.crest_colour)


def _crown(pen: Pen, figure: Figure, middle: float) -> None:
    top = _top(figure, middle)
    for side in (-1, 0, 1):
        pen.disc(side * 6.5, top - 1.5 - 2 * (side == 0), 4.4, INK)
        pen.disc(side * 6.5, top - 1.5 - 2 * (side == 0), 3.5, figure.crest_colour)


def _lance(pen: Pen, figure: Figure, middle: float) -> None:
    top = _top(figure, middle)
    _outlined(pen, [(-7.5, top + 4), (7.5, top + 4), (0, top - 14)], figure.crest_colour)


_BEHIND: Mapping[str, Callable[[Pen, Figure, float], None]] = {
    "wings": _wings,
    "a tail": _tail,
    "horns": _horns,
    "antennae": _antennae,
    "ears": _ears,
    "comb": _comb,
    "crown": _crown,
    "lance": _lance,
}
_PATTERNS: Mapping[str, Callable[[Pen, Colour, float], None]] = {
    "spots": _spots,
    "stripes": _stripes,
    "checks": _checks,
    "bands": _bands,
    "halves": _halves,
}
