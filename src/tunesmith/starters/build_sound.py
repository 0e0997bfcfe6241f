"""The sound starter: creature voices and other noises, a tokenizer, the autoencoder, the denoiser."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tunesmith.engines.index import engine_named
from tunesmith.engines.stable_audio.tokenizer import learn_tokenizer
from tunesmith.recipe.schema import BaseSection
from tunesmith.starters.building import DATA_SEED, Work, numbered_random, write_card
from tunesmith.starters.noise_sounds import random_noise_sound
from tunesmith.starters.running import RECIPES
from tunesmith.starters.sound_figures import PROMPTS, UNSEEN_SOUNDS, measure_sound_starter
from tunesmith.starters.voices import write_dataset, write_wav

ENGINE = "stable_audio"
RATE = 22_050
VOICES, NOISES, TOKENS, MOST_TOKENS = 12_000, 4_000, 640, 24
NOISE_SECONDS = 1.0


def build_sound(work: Work, out: Path) -> None:
    """Write the starter into `out`: a diffusers folder with its card."""
    work.say("1/4  example data and tokenizer")
    data = work.data(lambda folder: _write_data(folder, work))
    world, noises, tokenizer = data / "world", data / "noises", data / "tokenizer"
    architecture = {"base.architecture": RECIPES / "sound.json"}
    work.say("2/4  the autoencoder")
    sounds = {"data.paths": [world, noises], "base.parts": {"tokenizer": tokenizer}}
    autoencoder = work.train("sound_autoencoder", {**architecture, **sounds})
    work.say("3/4  the denoiser and its text encoder")
    parts = {"tokenizer": tokenizer, "autoencoder": autoencoder.weights}
    denoiser = work.train("sound_denoiser", {**architecture, "data.paths": [world], "base.parts": parts})
    work.say("4/4  the folder and its figures")
    engine = engine_named(ENGINE)
    engine.write_base(engine.open(BaseSection(path=str(denoiser.weights))), {}, out, "diffusers", "fp16")
    figures, sheet = measure_sound_starter(out, prompts=work.count(PROMPTS, 4), unseen=work.count(UNSEEN_SOUNDS, 8))
    sheet.save(work.folder / "sheet.png")
    write_card(out, ENGINE, work.stages, dataclasses.asdict(figures))


def _write_data(folder: Path, work: Work) -> None:
    voices = write_dataset(folder / "world", work.count(VOICES, 8), DATA_SEED, rate=RATE)
    (folder / "noises").mkdir()
    for index in range(work.count(NOISES, 4)):
        sound = random_noise_sound(numbered_random("noises", index), NOISE_SECONDS, RATE)
        write_wav(folder / "noises" / f"{index:05d}.wav", sound, RATE)
    texts = [path.with_suffix(".txt").read_text(encoding="utf-8") for path in voices]
    learn_tokenizer(texts, folder / "tokenizer", tokens=TOKENS, max_tokens=MOST_TOKENS)
