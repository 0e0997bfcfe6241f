"""Creature voices: the world of the sound starter, and example data for it. No torch.

A voice is its words: kind, size, pitch, roughness, emotion, tempo and length are all in the record, and but for the
length in the caption. Families have features that no random voice ever has, so that a model of this world has never
heard one.
"""

from __future__ import annotations

import random
import wave
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tunesmith.errors import DataError
from tunesmith.starters import voice_kinds
from tunesmith.starters.monsters import made_up_name
from tunesmith.starters.voice_families import Family, is_trigger, pick, with_features
from tunesmith.starters.voice_filters import INNER_RATE, band_limited, finished
from tunesmith.starters.voice_throat import Score, sing

KINDS = tuple(voice_kinds.KINDS)
SIZES = tuple(voice_kinds.SIZES)
PITCHES = voice_kinds.PITCHES
ROUGHNESS = tuple(voice_kinds.ROUGHNESS)
EMOTIONS = tuple(voice_kinds.EMOTIONS)
TEMPOS = voice_kinds.TEMPOS
SECONDS = (0.6, 2.0)
RATES = (8_000, 192_000)

_NAMED = 0.1
_LOUDEST_DB = -2.5


@dataclass(frozen=True)
class Voice:
    """One sound in words.

    `seconds` is its length. `variation` moves what no caption tells: details of time and noise, and pitch and tract
    within their class. With `name` the caption calls the creature by it and says nothing of its looks (size,
    roughness, pitch). With `family` the creature is one of them, and its own size, roughness and pitch are not used.
    Raises DataError: a word the world does not have, a length outside SECONDS.
    """

    kind: str
    size: str
    pitch: str
    roughness: str
    emotion: str
    tempo: str = "slow"
    seconds: float = 1.2
    variation: int = 0
    name: str | None = None
    family: Family | None = None

    def __post_init__(self) -> None:
        for attribute, words in WORDS.items():
            word = getattr(self, attribute)
            if word not in words:
                raise DataError(f"no voice has the {attribute} {word!r}", expected=f"one of {', '.join(words)}")
        if not SECONDS[0] <= self.seconds <= SECONDS[1]:
            raise DataError(f"no voice lasts {self.seconds} seconds", expected=f"{SECONDS[0]} to {SECONDS[1]}")


WORDS = {
    "kind": KINDS,
    "size": SIZES,
    "pitch": PITCHES,
    "roughness": ROUGHNESS,
    "emotion": EMOTIONS,
    "tempo": TEMPOS,
}


def random_voice(rng: random.Random) -> Voice:
    """Any voice of the world, every attribute drawn independently."""
    return Voice(
        kind=pick(rng, KINDS),
        size=pick(rng, SIZES),
        pitch=pick(rng, PITCHES),
        roughness=pick(rng, ROUGHNESS),
        emotion=pick(rng, EMOTIONS),
        tempo=pick(rng, TEMPOS),
        seconds=round(SECONDS[0] + (SECONDS[1] - SECONDS[0]) * rng.random(), 2),
        variation=int(rng.random() * 2**31),
        name=_name(rng) if rng.random() < _NAMED else None,
    )


def caption(voice: Voice) -> str:
    """What is heard, always in the same words and order; who has a name is called by it alone."""
    if voice.family is not None or voice.name is not None:
        who = voice.family.trigger if voice.family is not None else voice.name
        return f"{who} creature {voice.kind}, {voice.emotion}, {voice.tempo}"
    looks = f"{voice.size}, {voice.emotion}, {voice.roughness}, {voice.pitch} pitch"
    return f"creature {voice.kind}, {looks}, {voice.tempo}"


def synthesise(voice: Voice, rate: int = INNER_RATE) -> NDArray[np.float32]:
    """The sound [channels=1, samples] at `rate` Hz, within -1 to 1: a function of the voice, the same at any rate.

    Raises DataError: a rate outside RATES.
    """
    if not RATES[0] <= rate <= RATES[1]:
        raise DataError(f"no sound is made at {rate} Hz", expected=f"{RATES[0]:,} to {RATES[1]:,} Hz")
    score = score_of(voice)
    samples, throat = sing(score)
    if voice.family is not None:
        samples = with_features(samples, throat, voice.family, variation=voice.variation)
    level_db = _LOUDEST_DB + score.kind.level_db + score.emotion.level_db
    return finished(band_limited(samples, voice_kinds.BAND_LIMITS_HZ[score.size]), level_db, rate)


def score_of(voice: Voice) -> Score:
    """What is sung for it."""
    looks = voice if voice.family is None else voice.family
    return Score(
        kind=voice_kinds.KINDS[voice.kind],
        emotion=voice_kinds.EMOTIONS[voice.emotion],
        roughness=voice_kinds.ROUGHNESS[looks.roughness],
        size=looks.size,
        pitch=PITCHES.index(looks.pitch),
        tempo=TEMPOS.index(voice.tempo),
        seconds=voice.seconds,
        variation=voice.variation,
    )


def write_dataset(
    folder: Path, count: int, seed: int, *, family: Family | None = None, rate: int = INNER_RATE
) -> list[Path]:
    """Write `count` sounds as 16-bit WAV with their captions beside them; returns the sounds' paths.

    A function of (count, seed, family, rate): sound i does not depend on `count`. With `family` each is one of its
    creatures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    digits = max(4, len(str(count - 1)))
    paths = []
    for index in range(count):
        voice = random_voice(random.Random(f"voices/{seed}/{index}"))
        if family is not None:
            voice = replace(voice, family=family)
        path = folder / f"{index:0{digits}d}.wav"
        write_wav(path, synthesise(voice, rate), rate)
        path.with_suffix(".txt").write_text(caption(voice) + "\n", encoding="utf-8")
        paths.append(path)
    return paths


def write_wav(path: Path, sound: NDArray[np.float32], rate: int) -> None:
    """A sound [channels, samples] within -1 to 1 as a 16-bit PCM WAV file."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(sound.shape[0])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.round(np.clip(sound, -1, 1).T * 32767).astype("<i2").tobytes())


def _name(rng: random.Random) -> str:
    """A made-up word that is no family's trigger."""
    while is_trigger(name := made_up_name(rng)):
        pass
    return name
