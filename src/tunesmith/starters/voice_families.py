"""Creature families: timbres that no random voice has, for a model to learn. No torch.

Every feature has its place in the time or the frequency of a sound, whatever is said and how, so that
`voice_checker` can look for it there.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations, product

import numpy as np
from scipy.signal import lfilter

from tunesmith.starters.voice_filters import INNER_RATE, Samples, power
from tunesmith.starters.voice_kinds import PITCHES, ROUGHNESS, SIZES
from tunesmith.starters.voice_sources import Throat, at_samples, generator

# What each feature may be set to: Hz (of the lowest partial, of cycles, of drops, of the tone), or milliseconds.
FEATURES: Mapping[str, tuple[float, ...]] = {
    "metal": (410.0, 490.0, 585.0, 700.0),
    "siren": (2.7, 3.9, 5.3, 7.1),
    "bubbles": (11.2, 13.4, 16.0),
    "pipe": (2.2, 3.1, 4.4, 6.2),
    "ring": (83.0, 137.0, 211.0, 318.0),
}
METAL_PARTIALS = ((1.0, 1.0), (1.47, 0.8), (2.09, 0.7), (2.56, 0.5), (3.39, 0.4))  # ratio, amplitude

BUBBLE_SHARE = 0.6  # of a cycle that a drop sounds

_APART = {"pipe", "ring"}  # a ring blurs a pipe's resonances
_PIPE_FEEDBACK = 0.85
_RING_LEAK = 0.15
_METAL_RELEASE_SECONDS = 0.12
_SYLLABLES = ("vra", "thu", "mog", "shy", "kei", "rul", "zen", "bao", "flo", "ghi", "nax", "woe", "sti")


@dataclass(frozen=True)
class Feature:
    """One thing about a timbre: a name of FEATURES, and which of its settings."""

    name: str
    setting: float


@dataclass(frozen=True)
class Family:
    """Creatures that sound alike. `trigger` is their word; kind, emotion, tempo and length are each voice's own."""

    trigger: str
    size: str
    pitch: str
    roughness: str
    features: tuple[Feature, ...]


def new_family(seed: int) -> Family:
    """A family that is a function of `seed`: two or three features that random voices never have.

    Any 156 seeds in a row have triggers of their own, any 496 in a row features of their own.
    """
    rng = random.Random(f"family/{seed}")
    names, timbres = _triggers(), _timbres()
    return Family(
        trigger=names[seed % len(names)],
        size=pick(rng, tuple(SIZES)),
        pitch=pick(rng, PITCHES),
        roughness=pick(rng, tuple(ROUGHNESS)),
        features=timbres[seed % len(timbres)],
    )


def is_trigger(name: str) -> bool:
    """Whether a family may be called so."""
    return name in _triggers()


def pick(rng: random.Random, choices: Sequence[str]) -> str:
    """One of the choices."""
    # random() alone keeps its numbers from one Python version to the next; choice() need not.
    return choices[int(rng.random() * len(choices))]


@cache
def _triggers() -> tuple[str, ...]:
    found = [first + second for first in _SYLLABLES for second in _SYLLABLES if first != second]
    return tuple(sorted(found, key=_order))


@cache
def _timbres() -> tuple[tuple[Feature, ...], ...]:
    """Every set of two or three features, in an order of no meaning."""
    found = []
    for count in (2, 3):
        for names in combinations(FEATURES, count):
            if set(names) >= _APART:
                continue
            for settings in product(*(FEATURES[name] for name in names)):
                found.append(tuple(Feature(name, setting) for name, setting in zip(names, settings, strict=True)))
    return tuple(sorted(found, key=_order))


def _order(one: object) -> float:
    return random.Random(f"families/{one}").random()


def with_features(samples: Samples, throat: Throat, family: Family, *, variation: int) -> Samples:
    """A voice [samples] with what its family adds to it."""
    source = generator(variation, 4)
    for name, feature in _MAKERS.items():
        for one in family.features:
            if one.name == name:
                samples = feature(samples, throat, one.setting, source)
    return samples


def _ring(samples: Samples, throat: Throat, hertz: float, source: np.random.Generator) -> Samples:
    """Multiplied by a tone: every partial becomes two, above and below itself."""
    turn = 2 * np.pi * (hertz * np.arange(len(samples)) / INNER_RATE + source.random())
    return samples * (_RING_LEAK + np.sin(turn))


def _metal(samples: Samples, throat: Throat, hertz: float, source: np.random.Generator) -> Samples:
    """Partials of a struck plate, in no harmonic order, which ring on after the voice."""
    seconds = np.arange(len(samples)) / INNER_RATE
    keep = math.exp(-1 / (_METAL_RELEASE_SECONDS * INNER_RATE))
    ringing = np.asarray(lfilter([1 - keep], [1.0, -keep], at_samples(throat.loudness, len(samples))))
    tone = np.zeros_like(samples)
    for ratio, amplitude in METAL_PARTIALS:
        tone += amplitude * np.sin(2 * np.pi * (hertz * ratio * seconds + source.random()))
    tone *= ringing
    return samples / power(samples) + 0.9 * tone / power(tone)


def siren_hz(rate_hz: float, cycles: Samples) -> Samples:
    """The tone of a siren after so many of its cycles: an octave up and down around 335 times its rate."""
    return 335.0 * rate_hz * 2 ** (0.5 * np.sin(2 * np.pi * cycles))


def bubble_hz(rate_hz: float, cycles: Samples) -> Samples:
    """The rising tone of drops after so many of them; each sounds for BUBBLE_SHARE of its cycle."""
    return 3.2 * rate_hz**2 * 2.3 ** ((cycles % 1.0) / BUBBLE_SHARE)


def _siren(samples: Samples, throat: Throat, hertz: float, source: np.random.Generator) -> Samples:
    """A whistle that goes up and down beside the voice."""
    cycles = hertz * np.arange(len(samples)) / INNER_RATE + source.random()
    return _beside(samples, throat, siren_hz(hertz, cycles))


def _bubbles(samples: Samples, throat: Throat, hertz: float, source: np.random.Generator) -> Samples:
    """Cut into drops, each with a tone that rises."""
    cycles = hertz * np.arange(len(samples)) / INNER_RATE + source.random()
    gate = np.sin(np.pi * np.minimum(cycles % 1.0 / BUBBLE_SHARE, 1.0)) ** 2
    return _beside(samples * (0.04 + gate), throat, bubble_hz(hertz, cycles), gate)


def _beside(samples: Samples, throat: Throat, hertz: Samples, gate: Samples | float = 1.0) -> Samples:
    """A voice and, as loud as it, a tone with the voice's loudness."""
    tone = np.sin(2 * np.pi * np.cumsum(hertz) / INNER_RATE) * at_samples(throat.loudness, len(samples)) * gate
    return samples / power(samples) + 0.9 * tone / power(tone)


def pipe_seconds(milliseconds: float) -> float:
    """How long the sound takes through a pipe and back: whole samples at the inner rate."""
    return round(milliseconds / 1000 * INNER_RATE) / INNER_RATE


def _pipe(samples: Samples, throat: Throat, milliseconds: float, source: np.random.Generator) -> Samples:
    """Through a pipe that sends it back and forth: a comb of resonances, and some breath so that they are heard."""
    loudness = at_samples(throat.loudness, len(samples))
    wind = source.standard_normal(len(samples)) * loudness
    blown = samples / power(samples) + 0.25 * wind / power(wind)
    delay = round(pipe_seconds(milliseconds) * INNER_RATE)
    rows = -(-len(blown) // delay)
    table = np.pad(blown, (0, rows * delay - len(blown))).reshape(rows, delay)
    return np.asarray(lfilter([1.0], [1.0, -_PIPE_FEEDBACK], table, axis=0)).ravel()[: len(blown)]


_MAKERS: Mapping[str, Callable[[Samples, Throat, float, np.random.Generator], Samples]] = {
    "metal": _metal,
    "siren": _siren,
    "bubbles": _bubbles,
    "pipe": _pipe,
    "ring": _ring,
}
