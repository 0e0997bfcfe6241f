"""The figures of an image starter: how well it rebuilds pictures, and whether what it draws follows the words."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from PIL import Image

from tunesmith.engines.index import engine_named
from tunesmith.engines.protocol import Media
from tunesmith.recipe.schema import BaseSection
from tunesmith.starters.checker import agrees, position_error, read
from tunesmith.starters.monsters import Monster, caption, draw, new_character, random_monster

if TYPE_CHECKING:
    from tunesmith.generation.session import Session

UNSEEN_PICTURES = 500
CHARACTERS = 8
PROMPTS = 100
GUIDANCE = 2.0
STEPS = 25
BATCH_PICTURES = 50


@dataclass(frozen=True)
class StarterFigures:
    """`psnr_db` over unseen monsters, `psnr_character_db` over pictures of characters, both means in decibels; `right`
    maps each attribute to the share of prompts whose picture shows it, `together` all of body, colour and place."""

    psnr_db: float
    psnr_character_db: float
    right: Mapping[str, float]
    together: float
    position_error_pixels: float


def unseen_monsters(count: int) -> list[Monster]:
    """Monsters of a seed that no starter is built from, called by their looks."""
    made = (random_monster(random.Random(f"unseen/{index}")) for index in range(count))
    return [replace(monster, name=None) for monster in made]


def measure_image_starter(
    folder: Path, *, prompts: int = PROMPTS, unseen: int = UNSEEN_PICTURES
) -> tuple[StarterFigures, list[Image.Image]]:
    """The figures of the base in `folder`, and the pictures drawn from the fixed prompts."""
    import torch

    from tunesmith.generation.session import open_session

    engine = engine_named("stable_diffusion")
    base = engine.open(BaseSection(path=str(folder)))
    session = open_session(engine, base, device=torch.device("cpu"), dtype=torch.float32)
    monsters = unseen_monsters(max(unseen, prompts))
    characters = [
        replace(monster, character=new_character(index % CHARACTERS)) for index, monster in enumerate(monsters[:64])
    ]
    drawn = draw_prompts(session, [caption(monster) for monster in monsters[:prompts]])
    right, together, error = follow(drawn, monsters[:prompts])
    figures = StarterFigures(
        psnr_db=round(_rebuilt_psnr(session, map(draw, monsters)), 2),
        psnr_character_db=round(_rebuilt_psnr(session, map(draw, characters)), 2),
        right=right,
        together=together,
        position_error_pixels=error,
    )
    return figures, drawn


def draw_prompts(session: Session, texts: Iterable[str], *, seed: int = 0, **request: Any) -> list[Image.Image]:
    """One picture a prompt, seeds counting up from `seed`."""
    make = session.engine.facts.request
    settings = {"guidance": GUIDANCE, "steps": STEPS, **request}
    found = []
    for index, text in enumerate(texts):
        asked = make(prompt=text, seed=seed + index, **settings)
        found += [event.data for event in session.generate(asked) if isinstance(event, Media)]
    return found


def follow(pictures: Iterable[Image.Image], monsters: Iterable[Monster]) -> tuple[dict[str, float], float, float]:
    """(share right by attribute, share with body, colour and place all right, median error of the position)."""
    rows, errors = [], []
    for picture, monster in zip(pictures, monsters, strict=True):
        reading = read(picture)
        rows.append(agrees(reading, monster))
        errors.append(position_error(reading, monster.position))
    right = {name: round(fmean(row[name] for row in rows), 4) for name in rows[0]}
    together = fmean(row["body"] and row["colour"] and row["place"] for row in rows)
    return right, round(together, 4), round(sorted(errors)[len(errors) // 2], 2)


def _rebuilt_psnr(session: Session, pictures: Iterable[Image.Image]) -> float:
    """Mean PSNR of pictures through the autoencoder and back, the latents' mean taken."""
    import numpy as np
    import torch

    from tunesmith.numeric.measures import psnr_db

    autoencoder: Any = session.sampler.frozen["autoencoder"]
    every = torch.stack([torch.from_numpy(np.asarray(picture).copy()) for picture in pictures])
    every = every.permute(0, 3, 1, 2).float() / 127.5 - 1
    found: list[float] = []
    with torch.no_grad():
        for batch in torch.split(every, BATCH_PICTURES):
            rebuilt = autoencoder.decode(autoencoder.encode(batch).latent_dist.mean).sample.clamp(-1, 1)
            found += [psnr_db(one, other, peak=2.0) for one, other in zip(rebuilt, batch, strict=True)]
    return fmean(found)
