"""Reads a creature voice off its samples: kind, size, pitch and the rest, and whether it is of a family. No torch.

Pitch is measured; the other words are those of the synthesised voices that the sound is most like.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from tunesmith.starters import voice_kinds
from tunesmith.starters.voice_detectors import feature_scores
from tunesmith.starters.voice_families import Family
from tunesmith.starters.voice_filters import INNER_RATE, Samples
from tunesmith.starters.voice_kinds import PITCHES
from tunesmith.starters.voice_measures import embedding, heard, pitch_track
from tunesmith.starters.voices import WORDS, Voice, random_voice, synthesise

_REFERENCES = 500
_NARROWNESS, _RIDGE = 0.3, 0.03
_LEVEL_WEIGHT = 2.2  # emotions differ in loudness more than in anything else
_CLASS_OCTAVES = 0.57  # half the distance between two pitches


@dataclass(frozen=True)
class VoiceReading:
    """What is heard. `pitch` and `pitch_hz` are None for kinds that have none (hisses, clicks).

    `emotion` is partly told by the level, so a sound must not be levelled first.
    """

    kind: str
    size: str
    pitch: str | None
    pitch_hz: float | None
    roughness: str
    emotion: str
    tempo: str


def read_voice(
    samples: NDArray[np.floating], rate: int = INNER_RATE, *, kind: str | None = None
) -> VoiceReading | None:
    """Read a sound [samples] or [channels, samples]; with `kind` its pitch is sought as that. None: it is silent.

    Raises DataError: no samples, or some that are not finite.
    """
    sound = heard(samples, rate)
    if sound is None:
        return None
    scores = (_described(sound) - _references().middle) / _references().spread
    words = {attribute: _nearest(scores, attribute) for attribute in ("kind", "size", "roughness", "emotion", "tempo")}
    pitch, pitch_hz = _pitch(sound, kind or words["kind"])
    return VoiceReading(**words, pitch=pitch, pitch_hz=pitch_hz)


def agrees(reading: VoiceReading | None, voice: Voice) -> dict[str, bool]:
    """Attribute by attribute, whether a sound has what a caption asks for; but what cannot be heard."""
    asked = {attribute: getattr(voice, attribute) for attribute in WORDS}
    if voice.family is not None:
        asked |= {attribute: getattr(voice.family, attribute) for attribute in ("size", "pitch", "roughness")}
    if not has_pitch(voice.kind):
        del asked["pitch"]
    return {attribute: reading is not None and getattr(reading, attribute) == word for attribute, word in asked.items()}


def has_pitch(kind: str) -> bool:
    """Whether a kind of voice has a pitch that can be measured."""
    made = voice_kinds.KINDS[kind]
    return not made.ringing and made.noise < 1


def sounds_like(samples: NDArray[np.floating], rate: int, family: Family) -> bool:
    """Whether a sound has all features of a family."""
    return likeness(samples, rate, family) >= 1.0


def likeness(samples: NDArray[np.floating], rate: int, family: Family) -> float:
    """How clearly a sound has the feature of a family that it has least; from 1 it sounds like the family, 0 silent.

    Raises DataError: no samples, or some that are not finite.
    """
    sound = heard(samples, rate)
    return 0.0 if sound is None else min(feature_scores(sound, family).values())


@dataclass(frozen=True)
class _References:
    """Synthesised voices: what they measure [voice, number], standardised, and a weight per voice for every word."""

    middle: Samples
    spread: Samples
    standard: Samples
    weights: Mapping[str, Samples]  # attribute: [voice, word]


@cache
def _references() -> _References:
    voices = [random_voice(random.Random(f"voice references/{index}")) for index in range(_REFERENCES)]
    measured = np.array([_described(synthesise(voice)[0].astype(np.float64)) for voice in voices])
    middle, spread = measured.mean(axis=0), measured.std(axis=0) + 1e-9
    spread[-1] /= _LEVEL_WEIGHT
    standard = (measured - middle) / spread
    alike = _alike(standard, standard) + _RIDGE * np.eye(len(voices))
    weights = {}
    for attribute, words in WORDS.items():
        wanted = [[1.0 if getattr(voice, attribute) == word else -1.0 for word in words] for voice in voices]
        weights[attribute] = np.linalg.solve(alike, np.array(wanted))
    return _References(middle, spread, standard, weights)


def _described(sound: Samples) -> Samples:
    return np.append(embedding(sound), 20 * np.log10(np.abs(sound).max()))


def _alike(one: Samples, other: Samples) -> Samples:
    """A Gaussian kernel [one, other] of the mean squared difference."""
    squares = (one**2).mean(axis=1)[:, None] + (other**2).mean(axis=1)[None] - 2 * one @ other.T / one.shape[1]
    found: Samples = np.exp(-_NARROWNESS * squares)
    return found


def _nearest(standard: Samples, attribute: str) -> str:
    """The word of an attribute, by kernel ridge regression on the references."""
    references = _references()
    scores = _alike(standard[None], references.standard) @ references.weights[attribute]
    return str(WORDS[attribute][int(np.argmax(scores))])


def _pitch(sound: Samples, kind: str) -> tuple[str | None, float | None]:
    """The class of the kind's register that most of the sound is in, and the middle of what is in it."""
    if not has_pitch(kind):
        return None, None
    register = voice_kinds.KINDS[kind].register_hz
    track = pitch_track(sound, 0.6 * register[0], 1.7 * register[-1])
    weight = np.where(track.power > 0.03 * track.power.max(), track.periodic, 0.0)
    near = np.abs(np.log2(track.hertz[None] / np.array(register)[:, None])) < _CLASS_OCTAVES
    best = int(np.argmax((near * weight).sum(axis=1)))
    inside = near[best] & (weight > 0)
    return PITCHES[best], float(np.median(track.hertz[inside])) if inside.any() else register[best]
