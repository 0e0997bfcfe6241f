"""The image demo's examples: one new monster in twenty-four scenes, and the world it comes into."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from PIL import Image

from tunesmith.starters.checker import agrees, read
from tunesmith.starters.examples import Examples, Shares, nothing_shown
from tunesmith.starters.figures import GUIDANCE
from tunesmith.starters.marked import emptied
from tunesmith.starters.monsters import Character, Monster, caption, draw, new_character, random_monster
from tunesmith.weights.atomic import write_text

OWN_PICTURES, HELD_OUT_PICTURES, PRIOR_PICTURES, OTHER_PICTURES = 24, 24, 800, 200
# Fewer than where the starter is measured: what is evaluated here is the adapter.
DENOISING_STEPS = 16
PHOTOGRAPH_TRIGGER = "myphoto"
PHOTOGRAPH_CAPTION = "a photograph, {trigger}"


def write_pictures(folder: Path, seed: int) -> Examples:
    """Write a new character's pictures and the world's below `folder`, replacing what an earlier demo wrote there."""
    emptied(folder)
    character = new_character(seed)
    rng = random.Random(f"demo/{seed}")
    own = [replace(random_monster(rng), character=character) for _ in range(OWN_PICTURES + HELD_OUT_PICTURES)]
    asked = tuple(own[OWN_PICTURES:])
    examples = Examples(
        kind="monster",
        recipe="demo_character",
        own=folder / character.trigger,
        held_out=folder / f"{character.trigger}-held-out",
        prior=folder / "world",
        others=folder / "others",
        trigger=character.trigger,
        prompt=caption(asked[0]),
        template="{trigger} monster, {prompt}",
        evaluated=HELD_OUT_PICTURES,
        request={"guidance": GUIDANCE, "steps": DENOISING_STEPS},
        shown=lambda results: shown_in(results, character, asked),
    )
    _write(examples.own, own[:OWN_PICTURES])
    _write(folder / f"{character.trigger}-held-out", asked)
    # Half of the world is called a monster and no more, so that the class word does not come to mean the character.
    world = [random_monster(rng) for _ in range(PRIOR_PICTURES)]
    _write(examples.prior, [replace(one, name="") if index % 2 else one for index, one in enumerate(world)])
    _write(examples.others, [random_monster(rng) for _ in range(OTHER_PICTURES)])
    return examples


def shown_in(results: Path, character: Character, asked: Sequence[Monster]) -> Shares:
    """What the checker sees: the character with and without adapter and trigger, and pose and place as asked."""

    def shares(name: str) -> dict[str, float]:
        drawn = [Image.open(path) for path in sorted((results / name).glob("*.png"))]
        readings = [read(picture, character) for picture in drawn]
        right = [agrees(one, monster) for one, monster in zip(readings, asked, strict=False)]
        found = {"character": fmean(bool(one.character) for one in readings)}
        return {**found, **{part: fmean(row[part] for row in right) for part in ("pose", "place", "position")}}

    adapter = shares("checkpoint")
    return {
        "adapter": adapter["character"],
        "base": shares("base")["character"],
        "without_trigger": shares("without_trigger")["character"],
        "pose": adapter["pose"],
        "place": adapter["place"],
        "position": adapter["position"],
    }


def with_photographs(examples: Examples, folder: Path) -> Examples:
    """The same world, and the pictures of `folder` as what is learnt. Raises DataError where they cannot be read."""
    from tunesmith.data.source import read_items
    from tunesmith.recipe.schema import DataSection

    section = DataSection(default_caption=PHOTOGRAPH_CAPTION)
    items = read_items([folder], section, concepts={PHOTOGRAPH_TRIGGER: PHOTOGRAPH_TRIGGER}).items
    return replace(
        examples,
        kind="photograph",
        own=folder,
        held_out=None,
        trigger=PHOTOGRAPH_TRIGGER,
        prompt=items[0].text.get("caption", PHOTOGRAPH_TRIGGER),
        template="a photograph of {prompt}, {trigger}",
        shown=nothing_shown,
    )


def _write(folder: Path, monsters: Sequence[Monster]) -> None:
    folder.mkdir(parents=True)
    for index, monster in enumerate(monsters):
        draw(monster).save(folder / f"{index:04d}.png")
        write_text(folder / f"{index:04d}.txt", caption(monster) + "\n")
