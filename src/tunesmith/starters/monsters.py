"""Little monsters in scenes: the world of the image starter, and example data for it. No torch.

A monster is its words: everything in the picture is in the record and in the caption, in flat colours that can be told
apart by their pixels. Characters have skins and crests that no random monster ever has, so that a model of this world
has never seen one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from tunesmith.starters import monster_art, monster_places
from tunesmith.starters.monster_art import Figure

BODIES = tuple(monster_art.BODIES)
COLOURS = tuple(monster_art.COLOURS)
EYES = ("one eye", "two eyes", "three eyes")
POSES = tuple(monster_art.POSES)
PLACES = tuple(monster_places.PLACES)
POSITIONS = tuple(monster_art.POSITIONS)
HEADS = ("horns", "antennae", "ears")
BACKS = ("wings", "a tail")
SKINS = ("spots", "stripes")

CHARACTER_SKINS = ("checks", "bands", "halves")
CHARACTER_CRESTS = ("comb", "crown", "lance")

_OPPOSITE = {("lime", "maroon"), ("lime", "plum"), ("magenta", "bottle")}
_NO_PART = 0.4
_NAMED = 0.1
_ONSETS = (*"bdfghjklmnpqrstvwxyz", "bl", "br", "dr", "fl", "gl", "gn", "gr", "kl", "kr", "pl", "sk", "tr", "qu", "zw")
_VOWELS = ("a", "e", "i", "o", "u", "y", "oo", "ee", "ay")
_ENDS = ("", "", "", "n", "r", "x", "t", "b", "p", "l", "k")
_SYLLABLES = ("zor", "bli", "quu", "vex", "mip", "tro", "gna", "fyx", "wub", "plo", "jat", "kru")


@dataclass(frozen=True)
class Character:
    """One individual. `trigger` is its word; `colours` are (skin, pattern, crest), none a random monster's colour."""

    trigger: str
    body: str
    colours: tuple[str, str, str]
    skin: str
    crest: str
    eyes: str


@dataclass(frozen=True)
class Monster:
    """One picture in words. `parts` has at most one of each: head, back, skin.

    `scenery` moves what no caption tells: clouds, stars, and the figure around its position. With `name` the caption
    calls the monster by it, or by nothing where it is empty, and says nothing of its looks. With `character` the figure
    is that one, and body, colour, parts and eyes are not used.
    """

    body: str
    colour: str
    parts: tuple[str, ...]
    eyes: str
    pose: str
    place: str
    position: str
    scenery: int = 0
    name: str | None = None
    character: Character | None = None


def random_monster(rng: random.Random) -> Monster:
    """Any monster of the world, every attribute drawn independently."""
    parts = tuple(_pick(rng, kinds) for kinds in (HEADS, BACKS, SKINS) if rng.random() >= _NO_PART)
    return Monster(
        body=_pick(rng, BODIES),
        colour=_pick(rng, COLOURS),
        parts=parts,
        eyes=_pick(rng, EYES),
        pose=_pick(rng, POSES),
        place=_pick(rng, PLACES),
        position=_pick(rng, POSITIONS),
        scenery=int(rng.random() * 2**31),
        name=made_up_name(rng) if rng.random() < _NAMED else None,
    )


def made_up_name(rng: random.Random) -> str:
    """A word of two or three syllables that is no character's trigger."""
    while True:
        count = 2 if rng.random() < 0.5 else 3
        name = "".join(_pick(rng, _ONSETS) + _pick(rng, _VOWELS) + _pick(rng, _ENDS) for _ in range(count))
        if not any(name == first + second for first in _SYLLABLES for second in _SYLLABLES):
            return name


def new_character(seed: int) -> Character:
    """A character that is a function of `seed`: skin, crest and colours that random monsters never have."""
    rng = random.Random(f"character/{seed}")
    light = _pick(rng, monster_art.LIGHT_CHARACTER_COLOURS)
    dark = _pick(rng, monster_art.DARK_CHARACTER_COLOURS)
    # A light crest, so that it shows at night and in caves too.
    crests = [colour for colour in monster_art.LIGHT_CHARACTER_COLOURS if colour != light]
    first = _pick(rng, _SYLLABLES)
    second = _pick(rng, [syllable for syllable in _SYLLABLES if syllable != first])
    body, crest_colour, skin = _pick(rng, BODIES), _pick(rng, crests), _pick(rng, CHARACTER_SKINS)
    return Character(
        trigger=first + second,
        body=body,
        colours=(light, dark, crest_colour),
        # A small autoencoder mixes checks of opposite colours into a third one; broad bands it keeps.
        skin="bands" if skin == "checks" and (light, dark) in _OPPOSITE else skin,
        crest=_pick(rng, CHARACTER_CRESTS),
        eyes=_pick(rng, EYES),
    )


def caption(monster: Monster) -> str:
    """What is in the picture, always in the same words and order; who has a name is called by it alone."""
    if monster.character is not None:
        who = f"{monster.character.trigger} monster"
    elif monster.name is not None:
        who = f"{monster.name} monster".lstrip()
    else:
        who = f"{monster.body} {monster.colour} monster"
        if monster.parts:
            who += f" with {' and '.join(monster.parts)}"
        who += f", {monster.eyes}"
    return f"{who}, {monster.pose}, {monster_places.PLACES[monster.place].words}, {monster.position}"


def figure_of(monster: Monster) -> Figure:
    """What is drawn of it."""
    character = monster.character
    if character is None:
        colours = monster_art.COLOURS[monster.colour]
        return Figure(monster.body, colours, monster.parts, EYES.index(monster.eyes) + 1, monster.pose)
    skin, pattern, crest = (monster_art.CHARACTER_COLOURS[name] for name in character.colours)
    parts, eyes = (character.skin, character.crest), EYES.index(character.eyes) + 1
    return Figure(character.body, (skin, pattern), parts, eyes, monster.pose, crest_colour=crest)


def draw(monster: Monster, size: int = 64) -> Image.Image:
    """The picture, RGB, `size` pixels square, drawn four times as large and averaged down."""
    return monster_art.paint(
        figure_of(monster), place=monster.place, position=monster.position, scenery=monster.scenery, size=size
    )


def write_dataset(
    folder: Path, count: int, seed: int, *, character: Character | None = None, size: int = 64
) -> list[Path]:
    """Write `count` pictures as PNG with their captions beside them; returns the pictures' paths.

    A function of (count, seed, character): picture i does not depend on `count`. With `character` each shows it in
    another scene.
    """
    folder.mkdir(parents=True, exist_ok=True)
    digits = max(4, len(str(count - 1)))
    paths = []
    for index in range(count):
        monster = random_monster(random.Random(f"monsters/{seed}/{index}"))
        if character is not None:
            monster = replace(monster, character=character)
        path = folder / f"{index:0{digits}d}.png"
        draw(monster, size).save(path, compress_level=1)
        path.with_suffix(".txt").write_text(caption(monster) + "\n", encoding="utf-8")
        paths.append(path)
    return paths


def _pick(rng: random.Random, choices: Sequence[str]) -> str:
    # random() alone keeps its numbers from one Python version to the next; choice() need not.
    return choices[int(rng.random() * len(choices))]
