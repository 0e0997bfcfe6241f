"""The demo's example data: one new monster in twenty-four scenes, and the world it comes into."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tunesmith.starters.monsters import Character, Monster, caption, draw, new_character, random_monster
from tunesmith.weights.atomic import write_text

OWN_PICTURES, HELD_OUT_PICTURES, WORLD_PICTURES = 24, 24, 200


@dataclass(frozen=True)
class Pictures:
    """Folders of captioned pictures. `held_out` is None where a share of `own` is held out instead.

    `prior` are pictures of the base's world to keep in mind while training, `others` more of them to measure by.
    `asked` is what the held-out pictures show, empty for photographs; `template` is how the concept is called.
    """

    own: Path
    held_out: Path | None
    prior: Path
    others: Path
    trigger: str
    prompt: str
    template: str
    character: Character | None = None
    asked: tuple[Monster, ...] = ()


def write_pictures(folder: Path, seed: int) -> Pictures:
    """Write a new character's pictures and the world's below `folder`, replacing what an earlier demo wrote there."""
    shutil.rmtree(folder, ignore_errors=True)
    character = new_character(seed)
    rng = random.Random(f"demo/{seed}")
    own = [replace(random_monster(rng), character=character) for _ in range(OWN_PICTURES + HELD_OUT_PICTURES)]
    asked = tuple(own[OWN_PICTURES:])
    pictures = Pictures(
        own=folder / character.trigger,
        held_out=folder / f"{character.trigger}-held-out",
        prior=folder / "world",
        others=folder / "others",
        trigger=character.trigger,
        prompt=caption(asked[0]),
        template="{trigger} monster, {prompt}",
        character=character,
        asked=asked,
    )
    _write(pictures.own, own[:OWN_PICTURES])
    _write(folder / f"{character.trigger}-held-out", asked)
    _write(pictures.prior, [random_monster(rng) for _ in range(WORLD_PICTURES)])
    _write(pictures.others, [random_monster(rng) for _ in range(WORLD_PICTURES)])
    return pictures


def with_photographs(pictures: Pictures, folder: Path, *, default_caption: str) -> Pictures:
    """The same world, and the pictures of `folder` as what is learnt. Raises DataError where they cannot be read."""
    from tunesmith.data.source import read_items
    from tunesmith.recipe.schema import DataSection

    trigger = "myphoto"
    section = DataSection(default_caption=default_caption)
    items = read_items([folder], section, concepts={trigger: trigger}).items
    return replace(
        pictures,
        own=folder,
        held_out=None,
        trigger=trigger,
        prompt=items[0].text.get("caption", trigger),
        template="a photograph of {prompt}, {trigger}",
        character=None,
        asked=(),
    )


def _write(folder: Path, monsters: Sequence[Monster]) -> None:
    folder.mkdir(parents=True)
    for index, monster in enumerate(monsters):
        draw(monster).save(folder / f"{index:04d}.png")
        write_text(folder / f"{index:04d}.txt", caption(monster) + "\n")
