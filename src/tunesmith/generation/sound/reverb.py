"""Rooms: convolution with a seeded impulse response of decaying noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import signal

from tunesmith.generation.sound.convolution import convolve
from tunesmith.generation.sound.filters import corners
from tunesmith.generation.sound.samples import Facts, Samples, random_stream

_EARLY_REFLECTIONS = 12
_EARLY_SHARE = 0.25  # of the response's energy
_FIRST_SECONDS = 0.005
_CUT_SECONDS = 0.01


@dataclass(frozen=True)
class Room:
    """Seconds until the sound has fallen by 60 dB, seconds of early reflections, and where the walls turn dull."""

    seconds: float
    early_seconds: float
    lowpass_hz: float


ROOMS: Mapping[str, Room] = {
    "room": Room(0.5, 0.060, 9000.0),
    "forest": Room(1.2, 0.075, 5000.0),
    "nether": Room(2.0, 0.090, 4200.0),
    "cave": Room(3.0, 0.110, 6000.0),
}


def add_reverb(
    samples: Samples, rate: int, *, room: Room, mix: float, keep_tail: bool, seed: int
) -> tuple[Samples, Facts]:
    """(1 - mix) of the sound and `mix` of the room, whose response has unit energy: noise keeps its level in it.

    The tail makes the sound longer by the room's seconds, or is cut where the sound ends, with 10 ms of linear fade.
    All channels get the same response, so that what is panned stays there.
    """
    length = samples.shape[1]
    kernel = impulse_response(room, rate, seed=seed)
    mixed = convolve(samples, kernel * np.float32(mix))
    mixed[:, :length] += samples * np.float32(1 - mix)
    if not keep_tail:
        mixed = mixed[:, :length].copy()
        count = min(round(_CUT_SECONDS * rate), length)
        mixed[:, length - count :] *= (np.arange(count, 0, -1) / (count + 1)).astype(np.float32)
    return mixed, {"seconds": room.seconds, "tail_samples": mixed.shape[1] - length}


def impulse_response(room: Room, rate: int, *, seed: int) -> npt.NDArray[np.float32]:
    """[samples], unit energy: early reflections and a noise tail that falls by 60 dB in `room.seconds`, low-passed.

    The last tenth also fades out linearly, so that the end is no step.
    """
    stream = random_stream(seed, "reverb")
    length = max(2, math.ceil(rate * room.seconds))
    seconds = np.arange(length) / rate
    decay = 10 ** (-3 * seconds / room.seconds)
    tail = stream.standard_normal(length) * decay * np.minimum(1, seconds / room.early_seconds)
    early = np.zeros(length)
    latest = min(room.early_seconds, room.seconds)
    places = (stream.uniform(min(_FIRST_SECONDS, latest), latest, _EARLY_REFLECTIONS) * rate).astype(np.int64)
    np.add.at(early, np.minimum(places, length - 1), stream.choice([-1.0, 1.0], _EARLY_REFLECTIONS))
    response = math.sqrt(1 - _EARLY_SHARE) * _unit(tail) + math.sqrt(_EARLY_SHARE) * _unit(early * decay)
    sections = corners(rate, lowpass_hz=room.lowpass_hz)
    if len(sections):
        response = signal.sosfilt(sections, response)
    last = max(1, length // 10)
    response[-last:] *= np.arange(last, 0, -1) / last
    return _unit(response).astype(np.float32)


def _unit(response: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    energy = float(np.sum(np.square(response)))
    return response / math.sqrt(energy) if energy > 0 else response
