"""The demo's example data: a small corner of the monsters' world, and one character that it never shows."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tunesmith.starters.monster_art import FEET_Y
from tunesmith.starters.monsters import (
    BODIES,
    COLOURS,
    EYES,
    PLACES,
    POSES,
    Character,
    Monster,
    caption,
    draw,
    new_character,
)
from tunesmith.weights.atomic import write_text

# A base trained for two minutes learns four places and one position, not eight and three.
DEMO_PLACES = PLACES[:4]
POSITION = "in the middle"


@dataclass(frozen=True)
class Pictures:
    """Folders of captioned pictures. `held_out` is None where a share of `own` is held out instead.

    `others` shows other characters: only the autoencoder sees them, so that it can say colours the world lacks.
    `prompts` ask for what is learnt, in the words of its captions; `template` is how the concept is called.
    """

    world: Path
    others: Path
    own: Path
    held_out: Path | None
    trigger: str
    prompts: tuple[str, ...]
    template: str


def write_pictures(
    folder: Path, seed: int, *, size: int, world_count: int, own_count: int, held_out_count: int
) -> Pictures:
    """Write the world and a character's pictures below `folder`, replacing what an earlier demo wrote there."""
    shutil.rmtree(folder, ignore_errors=True)
    character = new_character(seed)
    rng = random.Random(f"demo/{seed}")
    world = [_scene(rng) for _ in range(world_count)]
    own = [_scene(rng, character) for _ in range(own_count + held_out_count)]
    others = [_scene(rng, new_character(seed + index)) for index in range(1, 1 + world_count // 2)]
    pictures = Pictures(
        world=folder / "world",
        others=folder / "others",
        own=folder / character.trigger,
        held_out=folder / f"{character.trigger}-held-out",
        trigger=character.trigger,
        prompts=prompts(character.trigger),
        template="{trigger} monster, {prompt}",
    )
    _write(pictures.world, world, size)
    _write(pictures.others, [other for other in others if other.character != character], size)
    _write(pictures.own, own[:own_count], size)
    _write(folder / f"{character.trigger}-held-out", own[own_count:], size)
    return pictures


def with_photographs(pictures: Pictures, folder: Path, *, default_caption: str) -> Pictures:
    """The same world, and the pictures of `folder` as what is learnt. Raises DataError where they cannot be read."""
    from tunesmith.data.source import read_items
    from tunesmith.recipe.schema import DataSection

    trigger = "myphoto"
    section = DataSection(default_caption=default_caption)
    items = read_items([folder], section, concepts={trigger: trigger}).items
    asked = tuple(item.text.get("caption", trigger) for item in items[: len(DEMO_PLACES)])
    return replace(
        pictures,
        own=folder,
        held_out=None,
        trigger=trigger,
        prompts=asked,
        template="a photograph of {prompt}, {trigger}",
    )


def prompts(trigger: str) -> tuple[str, ...]:
    """One prompt for each place, in the words of the captions."""
    return tuple(
        caption(
            Monster(
                "", "", (), "", "arms down", place, POSITION, character=Character(trigger, "", ("", "", ""), "", "", "")
            )
        )
        for place in DEMO_PLACES
    )


def world_prompts(seed: int, count: int) -> tuple[str, ...]:
    """Prompts about ordinary monsters, to see that the adapter left them alone."""
    rng = random.Random(f"demo/prompts/{seed}")
    return tuple(caption(_scene(rng)) for _ in range(count))


def _scene(rng: random.Random, character: Character | None = None) -> Monster:
    return Monster(
        body=rng.choice(BODIES),
        colour=rng.choice(COLOURS),
        parts=(),
        eyes=rng.choice(EYES),
        pose=rng.choice(POSES),
        place=rng.choice(DEMO_PLACES),
        position=POSITION,
        scenery=rng.randrange(2**31),
        character=character,
    )


def _write(folder: Path, monsters: Sequence[Monster], size: int) -> None:
    folder.mkdir(parents=True)
    for index, monster in enumerate(monsters):
        rng = random.Random(f"demo/stand/{monster.scenery}")
        # Large and in the middle: a base trained for two minutes has no more to give.
        at = (32 + 3 * (rng.random() - 0.5), FEET_Y, 0.95 + 0.1 * rng.random())
        draw(monster, size, at=at).save(folder / f"{index:04d}.png")
        write_text(folder / f"{index:04d}.txt", caption(monster) + "\n")
