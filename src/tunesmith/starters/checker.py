"""Reads a monster off a picture's pixels: body, colour, place, pose and where it stands. No torch.

Colours are told by the nearest of the world's flat colours; body and pose by laying every silhouette over the pixels
of the body's colours, wherever it fits best. Made for 64 by 64 pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_dilation, binary_fill_holes, binary_opening, label
from scipy.signal import fftconvolve

from tunesmith.starters import monster_art, monster_places
from tunesmith.starters.monster_art import Figure
from tunesmith.starters.monsters import BODIES, COLOURS, PLACES, POSES, Character, Monster

SIDE = 64
POSITION_TOLERANCE_PIXELS = 8.0
# Pixels of a skin's, pattern's and crest's colour by which a character is known.
_CHARACTER_PIXELS = (30, 12, 8)
_FAR = 110.0  # further than this from every flat colour, a pixel says nothing
# Parts in the body's colour; the others have colours of their own.
_SHAPING_PARTS = ((), ("ears",), ("a tail",), ("ears", "a tail"))
_APART_PIXELS = 2
_REACH_PIXELS = 6
_CLOSE, _REFINED = 0.06, 16  # silhouettes nearly as good as the best, at most so many, are laid on more finely:
_FINER = ((0.97, 1.0, 1.03), (-0.5, 0.0, 0.5), (-0.5, 0.0, 0.5))  # sizes, and moves by less than a pixel
_MIDDLE = SIDE // 2  # where `fftconvolve` puts a shift of nothing
_MAGENTA = (255, 0, 255)

Mask = NDArray[np.bool_]
_Kind = tuple[str, str, tuple[str, ...]]  # body, pose, parts of its colour


@dataclass(frozen=True)
class Reading:
    """What a picture shows. `x`, `y` are the feet's place in pixels, as `monster_art.stand` gives it.

    `character` is whether the one asked for is there; None where none was asked for.
    """

    body: str
    colour: str
    place: str
    pose: str
    x: float
    y: float
    character: bool | None = None


def read(picture: Image.Image, character: Character | None = None) -> Reading:
    """Read a picture; with `character` its figure is sought as that one, in its own colours."""
    pixels = np.asarray(picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float32)
    place = _place(pixels)
    if character is None:
        colour, figure = _colour(pixels, place)
        found: bool | None = None
    else:
        colour = character.trigger
        found, figure = _character(pixels, place, character)
    body, pose, x, y = _silhouette(figure)
    return Reading(body, colour, place, pose, x, y, found)


def position_error(reading: Reading, position: str) -> float:
    """Pixels between where the figure stands and the middle of what the caption's position means."""
    right, down = monster_art.POSITIONS[position]
    return float(np.hypot(reading.x - 32 - right, reading.y - monster_art.FEET_Y - down))


def agrees(reading: Reading, monster: Monster) -> dict[str, bool]:
    """Attribute by attribute, whether a picture shows what a caption asks for."""
    return {
        "body": reading.body == monster.body,
        "colour": reading.colour == monster.colour,
        "place": reading.place == monster.place,
        "pose": reading.pose == monster.pose,
        "position": position_error(reading, monster.position) <= POSITION_TOLERANCE_PIXELS,
    }


def _nearest(pixels: NDArray[np.float32], palette: list[tuple[int, int, int]]) -> NDArray[np.intp]:
    """The palette's index of every pixel, -1 where none is near."""
    flat = np.array(palette, dtype=np.float32)
    distance = np.linalg.norm(pixels[..., None, :] - flat, axis=-1)
    nearest = distance.argmin(-1)
    return np.where(distance.min(-1) <= _FAR, nearest, -1)


def _place(pixels: NDArray[np.float32]) -> str:
    """The place whose two colours fill the most of the rows they belong to."""
    above = _nearest(
        pixels[: int(min(monster_places.GROUND_Y))], [place.above for place in monster_places.PLACES.values()]
    )
    below = _nearest(
        pixels[int(max(monster_places.GROUND_Y)) :], [place.below for place in monster_places.PLACES.values()]
    )
    scores = [(above == at).mean() + (below == at).mean() for at in range(len(PLACES))]
    return PLACES[int(np.argmax(scores))]


def _scenery_colours(place: str) -> list[tuple[int, int, int]]:
    scene = monster_places.PLACES[place]
    return [scene.above, scene.below, *scene.colours, monster_art.INK, monster_art.WHITE]


def _colour(pixels: NDArray[np.float32], place: str) -> tuple[str, Mask]:
    """The body colour that most pixels have, and where it or its darker twin is."""
    known = list(monster_art.COLOURS.values())
    labels = _nearest(pixels, [*(main for main, _ in known), *(dark for _, dark in known), *_scenery_colours(place)])
    masks = [(labels == at) | (labels == at + len(known)) for at in range(len(known))]
    at = int(np.argmax([_solid(mask).sum() for mask in masks]))
    return COLOURS[at], _gathered(masks[at])


def _solid(mask: Mask) -> Mask:
    """Without the thin lines that lie where two other colours meet."""
    return np.asarray(binary_opening(mask, np.ones((2, 2))))


def _gathered(mask: Mask) -> Mask:
    """The largest solid piece with what lies within an arm's reach of it, holes filled."""
    # Skins and outlines cut a body into pieces: what is near belongs together.
    pieces, count = label(binary_dilation(_solid(mask), np.ones((3, 3)), iterations=_APART_PIXELS))
    if count > 1:
        largest = pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
        mask = mask & binary_dilation(largest, np.ones((3, 3)), iterations=_REACH_PIXELS)
    return np.asarray(binary_fill_holes(mask))


def _character(pixels: NDArray[np.float32], place: str, character: Character) -> tuple[bool, Mask]:
    own = [monster_art.CHARACTER_COLOURS[name] for name in character.colours]
    others = [main for main, _ in monster_art.COLOURS.values()]
    labels = _nearest(pixels, [*own, *others, *_scenery_colours(place)])
    counts = [int((labels == at).sum()) for at in range(3)]
    found = all(count >= least for count, least in zip(counts, _CHARACTER_PIXELS, strict=True))
    return found, _gathered((labels == 0) | (labels == 1))


@cache
def _template(kind: _Kind, zoom: float = 1.0, right: float = 0.0, down: float = 0.0) -> NDArray[np.float32]:
    """Where a figure's colour is, its feet at column 32, row 57, moved by less than a pixel."""
    body, pose, parts = kind
    figure = Figure(body, (_MAGENTA, _MAGENTA), parts, 2, pose)
    picture = monster_art.paint_alone(figure, SIDE, zoom=zoom, right=right, down=down)
    half_covered = np.asarray(picture)[..., 0] > 146  # at least half magenta, half ink
    return _gathered(half_covered).astype(np.float32)


def _silhouette(figure: Mask) -> tuple[str, str, float, float]:
    """The body and pose whose silhouette covers the figure best (intersection over union), and where."""
    inside = figure.astype(np.float32)
    kinds: list[_Kind] = list(product(BODIES, POSES, _SHAPING_PARTS))
    fits = {kind: _fit(inside, _template(kind)) for kind in kinds}
    ranked = sorted(kinds, key=lambda kind: fits[kind][0], reverse=True)
    close = [kind for kind in ranked if fits[kind][0] >= fits[ranked[0]][0] - _CLOSE][:_REFINED]
    best: tuple[float, _Kind, float, float] = (-1.0, ranked[0], 0.0, 0.0)
    for kind in close:
        _, row, column = fits[kind]
        for zoom, right, down in product(*_FINER):
            shape = _moved(_template(kind, zoom, right, down), row - _MIDDLE, column - _MIDDLE)
            score = float(np.minimum(shape, inside).sum() / (np.maximum(shape, inside).sum() + 1))
            best = max(best, (score, kind, column + right, row + down))
    _, (body, pose, _), x, y = best
    return body, pose, 32.0 + x - _MIDDLE, monster_art.FEET_Y + y - _MIDDLE


def _fit(inside: NDArray[np.float32], shape: NDArray[np.float32]) -> tuple[float, int, int]:
    """The best intersection over union of a silhouette with the figure, and the shift (row, column) that gives it."""
    turned = shape[::-1, ::-1]
    common = fftconvolve(inside, turned, mode="same")
    # What of the silhouette lies within the picture, at every shift.
    within = fftconvolve(np.ones_like(inside), turned, mode="same")
    score = common / (within + inside.sum() - common + 1)
    row, column = np.unravel_index(int(score.argmax()), score.shape)
    return float(score[row, column]), int(row), int(column)


def _moved(shape: NDArray[np.float32], down: int, right: int) -> NDArray[np.float32]:
    """Shifted by whole pixels; what leaves the picture is gone."""
    found = np.zeros_like(shape)
    rows, columns = (slice(max(0, by), SIDE + min(0, by)) for by in (down, right))
    from_rows, from_columns = (slice(max(0, -by), SIDE + min(0, -by)) for by in (down, right))
    found[rows, columns] = shape[from_rows, from_columns]
    return found
