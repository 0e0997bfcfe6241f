"""The image starter: monsters and textures, a tokenizer, the autoencoder in two halves, the denoiser."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tunesmith.engines.index import engine_named
from tunesmith.engines.stable_diffusion.vocabulary import learn_tokenizer
from tunesmith.recipe.schema import BaseSection
from tunesmith.starters.building import DATA_SEED, Work, numbered_random, write_card
from tunesmith.starters.figures import PROMPTS, UNSEEN_PICTURES, measure_image_starter
from tunesmith.starters.monsters import write_dataset
from tunesmith.starters.running import RECIPES
from tunesmith.starters.textures import random_texture

ENGINE = "stable_diffusion"
WORLD_PICTURES, TEXTURES, TOKENS = 20_000, 12_000, 896


def build_image(work: Work, out: Path) -> None:
    """Write the starter into `out`: a diffusers folder with its card."""
    work.say("1/4  example data and tokenizer")
    data = work.data(lambda folder: _write_data(folder, work))
    world, textures, tokenizer = data / "world", data / "textures", data / "tokenizer"
    architecture = {"base.architecture": RECIPES / "image.json"}
    everything = {"data.paths": [world, textures]}
    work.say("2/4  the autoencoder")
    begun = work.train("image_autoencoder", {**architecture, **everything, "base.parts": {"tokenizer": tokenizer}})
    autoencoder = work.train("image_autoencoder_fine", {**everything, "base.path": begun.weights})
    work.say("3/4  the denoiser and its text encoder")
    parts = {"tokenizer": tokenizer, "autoencoder": autoencoder.weights}
    coarse = work.train("image_denoiser", {**architecture, "data.paths": [world], "base.parts": parts})
    denoiser = work.train("image_denoiser_fine", {"data.paths": [world], "base.path": coarse.weights})
    work.say("4/4  the folder and its figures")
    engine = engine_named(ENGINE)
    engine.write_base(engine.open(BaseSection(path=str(denoiser.weights))), {}, out, "diffusers", "fp16")
    figures, pictures = measure_image_starter(
        out, prompts=work.count(PROMPTS, 2), unseen=work.count(UNSEEN_PICTURES, 8)
    )
    for index, picture in enumerate(pictures):
        (work.folder / "sheet").mkdir(exist_ok=True)
        picture.save(work.folder / "sheet" / f"{index:03d}.png")
    write_card(out, ENGINE, work.stages, dataclasses.asdict(figures))


def _write_data(folder: Path, work: Work) -> None:
    pictures = write_dataset(folder / "world", work.count(WORLD_PICTURES, 8), DATA_SEED)
    (folder / "textures").mkdir()
    for index in range(work.count(TEXTURES, 4)):
        picture = random_texture(numbered_random("textures", index))
        picture.save(folder / "textures" / f"{index:05d}.png", compress_level=1)
    texts = [path.with_suffix(".txt").read_text(encoding="utf-8") for path in pictures]
    learn_tokenizer(texts, folder / "tokenizer", tokens=TOKENS)
