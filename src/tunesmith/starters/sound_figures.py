"""The figures of a sound starter: how well it rebuilds voices, and whether what it makes follows the words."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tunesmith.engines.index import engine_named
from tunesmith.engines.protocol import Media
from tunesmith.evaluation.families import mmd, scale_of
from tunesmith.evaluation.sounds import embeddings
from tunesmith.generation.sheet import contact_sheet
from tunesmith.generation.spectrogram import spectrogram_picture
from tunesmith.numeric.timbre import log_mel_distance, multi_resolution_stft_distance
from tunesmith.recipe.schema import BaseSection
from tunesmith.starters.voice_checker import agrees, read_voice
from tunesmith.starters.voice_families import new_family
from tunesmith.starters.voices import Voice, caption, random_voice, synthesise

if TYPE_CHECKING:
    from tunesmith.generation.session import Session

UNSEEN_SOUNDS = 200
FAMILY_SOUNDS = 40
PROMPTS = 60
GUIDANCE = 4.0
STEPS = 40
_SHEET_COLUMNS = 8

Sound = NDArray[np.float32]


@dataclass(frozen=True)
class SoundFigures:
    """Distances of sounds from themselves through the autoencoder and back, means: `log_mel_db`, `stft_distance`.

    `round_trip_mmd` is the set's distance from the originals, `families_mmd` that between two families, for scale;
    `right` maps each attribute to the share of prompts whose sound has it.
    """

    log_mel_db: float
    stft_distance: float
    round_trip_mmd: float
    families_mmd: float
    right: Mapping[str, float]


def unseen_voices(count: int) -> list[Voice]:
    """Voices of a seed that no starter is built from, called by their looks."""
    made = (random_voice(random.Random(f"unseen/{index}")) for index in range(count))
    return [replace(voice, name=None) for voice in made]


def measure_sound_starter(
    folder: Path, *, prompts: int = PROMPTS, unseen: int = UNSEEN_SOUNDS
) -> tuple[SoundFigures, Image.Image]:
    """The figures of the base in `folder`, and a sheet: real voices, rebuilt ones, and what the same words make."""
    import torch

    from tunesmith.generation.session import open_session

    engine = engine_named("stable_audio")
    base = engine.open(BaseSection(path=str(folder)))
    rate = int(base.architecture["autoencoder"]["sampling_rate"])
    session = open_session(engine, base, device=torch.device("cpu"), dtype=torch.float32)
    voices = unseen_voices(max(unseen, prompts))
    real = [synthesise(voice, rate) for voice in voices[:unseen]]
    rebuilt = [rebuild(session, sound) for sound in real]
    drawn = draw_voices(session, voices[:prompts])
    known = embeddings(real, rate)
    scale = scale_of(known)
    one, other = (_family_embeddings(seed, rate) for seed in (1, 2))
    figures = SoundFigures(
        log_mel_db=_mean(log_mel_distance, rebuilt, real, rate),
        stft_distance=_mean(multi_resolution_stft_distance, rebuilt, real, rate),
        round_trip_mmd=round(mmd(scale.apply(embeddings(rebuilt, rate)), scale.apply(known)), 4),
        families_mmd=round(mmd(scale.apply(one), scale.apply(other)), 4),
        right=_follow(drawn, voices[:prompts], rate),
    )
    rows = [
        [spectrogram_picture(sound, rate, seconds=2.0) for sound in row[:_SHEET_COLUMNS]]
        for row in (real, rebuilt, drawn)
    ]
    labels = [caption(voice) for voice in voices[:_SHEET_COLUMNS]]
    return figures, contact_sheet(rows, ("synthesised", "rebuilt", "from the words"), labels)


def draw_voices(session: Session, voices: Iterable[Voice], *, seed: int = 0, **request: Any) -> list[Sound]:
    """One sound a voice, from its caption and length, seeds counting up from `seed`."""
    make = session.engine.facts.request
    settings = {"guidance": GUIDANCE, "steps": STEPS, "sampler": "dpmpp_2m", **request}
    found: list[Sound] = []
    for index, voice in enumerate(voices):
        asked = make(prompt=caption(voice), seconds=voice.seconds, seed=seed + index, **settings)
        found += [event.data for event in session.generate(asked) if isinstance(event, Media)]
    return found


def rebuild(session: Session, sound: Sound) -> Sound:
    """A sound [1 or 2, samples] through the autoencoder and back, the latents' mean taken."""
    import torch

    autoencoder: Any = session.sampler.frozen["autoencoder"]
    channels, length = int(autoencoder.config.audio_channels), sound.shape[1]
    given = torch.from_numpy(np.repeat(sound, channels // sound.shape[0], axis=0))[None]
    padded = torch.nn.functional.pad(given, (0, -length % autoencoder.hop_length))
    with torch.no_grad():
        made = autoencoder.decode(autoencoder.encode(padded).latent_dist.mean).sample
    rebuilt: Sound = made[0, :, :length].clamp(-1, 1).numpy()
    return rebuilt


def _family_embeddings(seed: int, rate: int) -> NDArray[Any]:
    voices = unseen_voices(FAMILY_SOUNDS)
    return embeddings([synthesise(replace(voice, family=new_family(seed)), rate) for voice in voices], rate)


def _mean(distance: Any, rebuilt: Sequence[Sound], real: Sequence[Sound], rate: int) -> float:
    pairs = zip(rebuilt, real, strict=True)
    return round(fmean(float(distance(made.mean(0, keepdims=True), sound, rate)) for made, sound in pairs), 4)


def _follow(drawn: Sequence[Sound], voices: Sequence[Voice], rate: int) -> dict[str, float]:
    """Share right by attribute."""
    rows = [
        agrees(read_voice(sound.mean(0, keepdims=True), rate), voice)
        for sound, voice in zip(drawn, voices, strict=True)
    ]
    names = sorted({name for row in rows for name in row})
    return {name: round(fmean(row[name] for row in rows if name in row), 4) for name in names}
