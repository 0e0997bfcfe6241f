"""A creature's throat and mouth: from what a voice is to be, to its sound. Source and filter (Fant, 1960). No torch."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from tunesmith.starters.voice_filters import (
    INNER_RATE,
    Samples,
    falling,
    formants,
    power,
    resonances_hz,
    resonator,
    slope,
)
from tunesmith.starters.voice_kinds import BEAT_HZ, SIZES, Curve, Emotion, Kind, Mouth, Roughness
from tunesmith.starters.voice_sources import (
    CONTROL_RATE,
    Throat,
    at_samples,
    beating,
    breath,
    control_seconds,
    generator,
    on_curve,
    phase,
    pulse_times,
    pulses,
    wandering,
)

_LEAD_SECONDS = 0.01
_CLICK_SECONDS = 0.04
_HISS_REACH = 0.5  # octaves either way that a hiss's middle moves


@dataclass(frozen=True)
class Score:
    """What is to be sung. `pitch` and `tempo` are places in the kind's tables; `variation` is all that is random."""

    kind: Kind
    emotion: Emotion
    roughness: Roughness
    size: str
    pitch: int
    tempo: int
    seconds: float
    variation: int


@dataclass(frozen=True)
class _Calls:
    """At control points, which call it is and the share of it gone by; outside 0 to 1 it is silent."""

    number: Samples
    share: Samples
    starts: Samples  # seconds [call]


def sing(score: Score) -> tuple[Samples, Throat]:
    """The sound [samples] at the inner rate, not yet levelled, and the slow curves it was made from."""
    rng = random.Random(f"voice/{score.variation}")
    chance = [rng.random() for _ in range(8)]
    calls = _calls(score, chance)
    throat = _throat(score, calls, chance)
    source = generator(score.variation, 1)
    if score.kind.ringing:
        moved = straight = _clicks(score, throat, calls, source)
    elif score.kind.noise >= 1:
        moved = straight = _hiss(score, throat, source)
    else:
        moved, straight = _voice(score, throat, source)
    formed = _mouth(score, throat, moved, 2 ** (0.1 * (chance[0] - 0.5)))
    return formed + score.kind.direct * straight / power(straight), throat


def _calls(score: Score, chance: list[float]) -> _Calls:
    hertz = score.kind.calls_hz[score.tempo] * score.emotion.tempo * (0.93 + 0.14 * chance[1])
    count = max(1 + score.tempo, round(hertz * score.seconds))
    times = control_seconds(round(score.seconds * INNER_RATE)) - _LEAD_SECONDS
    period = (score.seconds - 1.5 * _LEAD_SECONDS) / count
    number = np.clip(np.floor(times / period), 0, count - 1)
    source = generator(score.variation, 2)
    fill = min(0.96, score.kind.fill * score.emotion.fill) * (0.9 + 0.1 * source.random(64)[:count])
    starts = (np.arange(count) + 0.7 * (0.98 - fill) * source.random(64)[:count]) * period
    which = number.astype(np.int64)
    return _Calls(number, (times - starts[which]) / (fill[which] * period), starts + _LEAD_SECONDS)


def _throat(score: Score, calls: _Calls, chance: list[float]) -> Throat:
    kind, emotion = score.kind, score.emotion
    samples = round(score.seconds * INNER_RATE)
    times = control_seconds(samples)
    points, gone, share = len(times), np.clip(times / score.seconds, 0, 1), calls.share
    source = generator(score.variation, 3)
    drift = wandering(points, 8.0, source) * kind.wobble
    octaves = on_curve(kind.glide, share) + on_curve(emotion.bend, share) + on_curve(emotion.rise, gone) + drift
    octaves += emotion.hop * np.where(calls.number % 2 == 0, -1, 1) + 0.16 * (chance[2] - 0.5)
    octaves += kind.vibrato[1] * np.sin(2 * np.pi * (kind.vibrato[0] * times + chance[3]))
    octaves += emotion.tremble[1] * np.sin(2 * np.pi * (emotion.tremble[0] * times + chance[4]))
    loudness = on_curve(_attacked(kind.loudness, emotion.attack), share) * on_curve(emotion.swell, gone)
    loudness *= np.where((share >= 0) & (share <= 1), 1.0, 0.0)
    loudness *= (0.8 + 0.2 * source.random(64))[calls.number.astype(np.int64)]
    loudness *= 1 - emotion.tremble[2] * (0.5 + 0.5 * np.sin(2 * np.pi * (emotion.tremble[0] * times + chance[5])))
    if kind.flutter[1] > 0:
        rate = kind.flutter[0] * (0.88, 1.12)[score.tempo]
        loudness *= beating(points, rate, kind.flutter[1], source)
    if score.roughness.beat_depth > 0 and not kind.ringing:
        loudness *= beating(points, BEAT_HZ, score.roughness.beat_depth, source)
    return Throat(kind.register_hz[score.pitch] * 2**octaves, loudness, on_curve(kind.opening, share), samples)


def _attacked(curve: Curve, attack: float) -> Curve:
    """A call's loudness with the first points earlier (sudden) or later."""
    return tuple((min(place * attack, 0.55) if place <= 0.3 else place, value) for place, value in curve)


def _voice(score: Score, throat: Throat, source: np.random.Generator) -> tuple[Samples, Samples]:
    """Pulses of the glottis with the breath that comes with them, and the pulses alone."""
    kind, surface, samples = score.kind, score.roughness, throat.samples
    turns = phase(throat.frequency, samples)
    loudness = at_samples(throat.loudness, samples)
    at = pulse_times(turns, surface.jitter, source)
    strengths = 1 + surface.shimmer * source.standard_normal(len(at))
    strengths *= np.interp(at, np.arange(samples), loudness)
    edge = kind.edge * kind.register_hz[score.pitch] * score.emotion.effort
    tone = slope(falling(pulses(at, strengths, samples), edge))
    if kind.pure:
        tone = falling(tone, edge)
    # Air passes the glottis when it is open: breath comes in the rhythm of the pulses.
    noise = breath(samples, surface.crackle, source) * loudness * (1.1 - turns % 1.0)
    noise = falling(noise, max(2.5 * kind.register_hz[score.pitch], 900.0) * score.emotion.effort)
    share = 1 - (1 - kind.noise) * (1 - surface.breath)
    return tone / power(tone) * (1 - share) + noise / power(noise) * share, tone


def _hiss(score: Score, throat: Throat, source: np.random.Generator) -> Samples:
    """Breath through a narrow gap, whose middle moves."""
    middle = score.kind.register_hz[score.pitch]
    noise = breath(throat.samples, 1.6 * score.roughness.crackle, source) * at_samples(throat.loudness, throat.samples)
    octaves = np.log2(at_samples(throat.frequency, throat.samples) / middle)
    up = np.clip((octaves + _HISS_REACH) / (2 * _HISS_REACH), 0, 1)
    low, high = (min(middle * 2**octave, 9000.0) for octave in (-_HISS_REACH, _HISS_REACH))
    width = 0.3 * score.emotion.effort
    return resonator(noise * (1 - up), low, width * low) + resonator(noise * up, high, width * high)


def _clicks(score: Score, throat: Throat, calls: _Calls, source: np.random.Generator) -> Samples:
    """Short rings, one a call; rough ones are rattles of three, raspy ones knocks of noise."""
    if score.roughness.beat_depth > 0:
        starts = (calls.starts[:, None] + np.arange(3)[None] * 0.8 / BEAT_HZ).ravel()
    else:
        starts = calls.starts
    starts = starts[starts < score.seconds - 0.02]
    heard = np.minimum((starts * CONTROL_RATE).astype(np.int64) + 3, len(throat.loudness) - 1)
    hertz, strengths = throat.frequency[heard], throat.loudness[heard]
    seconds = np.arange(round(_CLICK_SECONDS * INNER_RATE)) / INNER_RATE
    decay = np.exp(-seconds[None] * (60.0 + 0.05 * hertz[:, None]))
    rings = np.sin(2 * np.pi * hertz[:, None] * seconds[None])
    breathy = min(1.0, score.kind.noise + 2.2 * score.roughness.breath)
    knocks = 0.8 * source.standard_normal(rings.shape)
    rings = (rings * (1 - breathy) + knocks * breathy) * decay * strengths[:, None]
    where = np.round(starts * INNER_RATE).astype(np.int64)[:, None] + np.arange(len(seconds))[None]
    return np.asarray(np.bincount(where.ravel(), rings.ravel(), throat.samples)[: throat.samples], dtype=np.float64)


def _mouth(score: Score, throat: Throat, moved: Samples, build: float) -> Samples:
    """Through the formants of a closing and opening mouth; `build` is how this one's tract differs from its size's."""
    centres = resonances_hz(SIZES[score.size] * build)
    first, last = score.kind.mouths
    formed = _shaped(moved, centres, first)
    if last != first:
        opening = at_samples(throat.mouth, throat.samples)
        formed = formed * (1 - opening) + _shaped(moved, centres, last) * opening
    return formed / power(formed)


def _shaped(samples: Samples, centres: list[float], mouth: Mouth) -> Samples:
    shares, amplitudes = mouth
    formed = formants(samples, [centre * share for centre, share in zip(centres, shares, strict=True)], amplitudes)
    return formed / power(formed)
