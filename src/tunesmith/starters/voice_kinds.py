"""What the words of a creature voice mean in numbers: kinds, sizes, pitches, roughness, emotions, tempos. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Curve = tuple[tuple[float, float], ...]  # (share of the call or clip gone by, value), straight lines between
Mouth = tuple[tuple[float, ...], tuple[float, ...]]  # five formants: share of the open tube's own, amplitude

PITCHES = ("low", "middle", "high")
TEMPOS = ("slow", "fast")
# Vocal tracts in metres: a uniform tube, closed at one end, resonates at (2 n - 1) c / 4 L (Fant, 1960).
SIZES: Mapping[str, float] = {"tiny": 0.055, "small": 0.095, "large": 0.165, "huge": 0.29}
# Above this a creature of the size gives off next to nothing, Hz.
BAND_LIMITS_HZ: Mapping[str, float] = {"tiny": 9000.0, "small": 7500.0, "large": 5500.0, "huge": 4000.0}

_CLOSED = (1.0, 0.3, 0.1, 0.05, 0.03)
_HALF = (1.0, 0.7, 0.45, 0.3, 0.2)
_OPEN = (0.8, 1.0, 0.9, 0.7, 0.5)
_HUM: Mouth = ((0.6, 0.62, 0.85, 0.9, 1.0), _CLOSED)
_OO: Mouth = ((0.75, 0.5, 0.9, 1.0, 1.0), _CLOSED)
_OH: Mouth = ((1.05, 0.62, 0.95, 1.0, 1.0), _HALF)
_AH: Mouth = ((1.4, 0.82, 1.0, 1.0, 1.0), _OPEN)
_EE: Mouth = ((0.6, 1.4, 1.15, 1.05, 1.0), (0.5, 1.0, 1.0, 0.8, 0.5))


@dataclass(frozen=True)
class Kind:
    """How one vocalisation is made.

    `register_hz` has a frequency per pitch: of the glottis, or where `noise` is 1 or `ringing` true, of the noise's
    middle and the clicks' ring. `calls_hz` is calls a second, slow and fast; `fill` the share of a call that sounds.
    `edge` is where the source's spectrum begins to fall, in multiples of the register; `direct` how much of it
    passes by the formants, which would else swallow a high pitch. `flutter` is (Hz, depth) of the muscles' own beat.
    """

    register_hz: tuple[float, float, float]
    calls_hz: tuple[float, float]
    fill: float
    loudness: Curve
    glide: Curve  # octaves, within a call
    opening: Curve  # 0 the first mouth, 1 the second
    mouths: tuple[Mouth, Mouth]
    edge: float
    direct: float = 0.2
    noise: float = 0.06
    flutter: tuple[float, float] = (0.0, 0.0)
    vibrato: tuple[float, float] = (0.0, 0.0)  # Hz, octaves
    wobble: float = 0.01  # octaves of slow, random drift
    ringing: bool = False
    pure: bool = False  # the source has few overtones
    level_db: float = 0.0


@dataclass(frozen=True)
class Emotion:
    """How a voice is delivered: `rise` octaves over the clip, `bend` within a call, `hop` from call to call."""

    rise: Curve
    bend: Curve
    swell: Curve  # loudness over the clip
    tempo: float
    fill: float
    attack: float  # 1 as the kind has it, less is more sudden
    effort: float  # moves the source's edge
    level_db: float
    hop: float = 0.0
    tremble: tuple[float, float, float] = (0.0, 0.0, 0.0)  # Hz, octaves, depth in loudness


@dataclass(frozen=True)
class Roughness:
    """What the voice's surface is like: irregular periods, a beat too fast to count, breath in the voice."""

    jitter: float  # share of a period, standard deviation
    shimmer: float  # share of a pulse's strength
    beat_depth: float
    breath: float  # share of noise added to the kind's own
    crackle: float  # how heavy the noise's tails are


ROUGHNESS: Mapping[str, Roughness] = {
    "smooth": Roughness(jitter=0.003, shimmer=0.02, beat_depth=0.0, breath=0.0, crackle=0.0),
    "rough": Roughness(jitter=0.012, shimmer=0.15, beat_depth=0.92, breath=0.05, crackle=0.0),
    "raspy": Roughness(jitter=0.012, shimmer=0.12, beat_depth=0.0, breath=0.35, crackle=1.0),
}
BEAT_HZ = 46.0

_FLAT: Curve = ((0.0, 0.0),)
_EVEN: Curve = ((0.0, 1.0),)
EMOTIONS: Mapping[str, Emotion] = {
    "calm": Emotion(
        rise=((0.0, 0.04), (1.0, -0.12)), bend=_FLAT, swell=((0.0, 0.8), (0.4, 1.0), (1.0, 0.45)),
        tempo=0.85, fill=1.0, attack=2.0, effort=0.6, level_db=-6.0,
    ),
    "angry": Emotion(
        rise=((0.0, 0.0), (1.0, 0.1)), bend=((0.0, -0.1), (0.12, 0.35), (0.5, 0.1), (1.0, -0.2)),
        swell=((0.0, 0.75), (1.0, 1.0)), tempo=1.1, fill=1.05, attack=0.3, effort=2.0, level_db=0.0,
    ),
    "scared": Emotion(
        rise=((0.0, -0.25), (1.0, 0.4)), bend=_FLAT, swell=((0.0, 1.0), (1.0, 0.5)),
        tempo=1.15, fill=0.95, attack=0.7, effort=1.0, level_db=-3.0, tremble=(9.0, 0.07, 0.6),
    ),
    "playful": Emotion(
        rise=_FLAT, bend=((0.0, -0.2), (0.3, 0.25), (0.65, -0.15), (1.0, 0.25)), swell=_EVEN,
        tempo=1.05, fill=0.8, attack=0.6, effort=1.15, level_db=-1.5, hop=0.16,
    ),
}  # fmt: skip

KINDS: Mapping[str, Kind] = {
    "growl": Kind(
        register_hz=(55.0, 120.0, 260.0), calls_hz=(0.75, 2.2), fill=0.88, edge=4.0, flutter=(21.0, 0.5),
        loudness=((0.0, 0.0), (0.15, 0.8), (0.6, 1.0), (1.0, 0.0)), glide=((0.0, 0.05), (1.0, -0.1)),
        opening=((0.0, 0.0), (0.5, 0.5), (1.0, 0.0)), mouths=(_OO, _OH), noise=0.12, wobble=0.04, level_db=-1.0,
    ),
    "roar": Kind(
        register_hz=(85.0, 190.0, 420.0), calls_hz=(0.6, 1.7), fill=0.92, edge=7.0, noise=0.25, wobble=0.05,
        loudness=((0.0, 0.0), (0.18, 0.9), (0.5, 1.0), (1.0, 0.0)),
        glide=((0.0, -0.35), (0.3, 0.12), (0.55, 0.05), (1.0, -0.45)),
        opening=((0.0, 0.0), (0.3, 1.0), (0.7, 0.9), (1.0, 0.1)), mouths=(_OO, _AH),
    ),
    "screech": Kind(
        register_hz=(420.0, 950.0, 2100.0), calls_hz=(0.85, 2.6), fill=0.82, edge=5.0, noise=0.12, wobble=0.05,
        loudness=((0.0, 0.0), (0.05, 1.0), (0.85, 0.9), (1.0, 0.0)), glide=((0.0, -0.15), (0.1, 0.08), (1.0, 0.02)),
        opening=_EVEN, mouths=(_EE, _EE), vibrato=(28.0, 0.035), direct=0.4,
    ),
    "chirp": Kind(
        register_hz=(750.0, 1650.0, 3600.0), calls_hz=(2.6, 6.5), fill=0.5, edge=1.2, noise=0.06, direct=0.8, pure=True,
        loudness=((0.0, 0.0), (0.3, 1.0), (0.7, 0.9), (1.0, 0.0)), glide=((0.0, -0.4), (1.0, 0.4)),
        opening=((0.0, 0.0), (1.0, 1.0)), mouths=(_OO, _OH), level_db=-1.5,
    ),
    "hiss": Kind(
        register_hz=(1500.0, 3100.0, 6200.0), calls_hz=(0.7, 2.4), fill=0.85, edge=1.0, noise=1.0, direct=0.5,
        loudness=((0.0, 0.0), (0.3, 0.8), (0.75, 1.0), (1.0, 0.0)), glide=_FLAT,
        opening=_EVEN, mouths=(_EE, _EE), level_db=-2.0,
    ),
    "purr": Kind(
        register_hz=(70.0, 150.0, 320.0), calls_hz=(0.9, 2.4), fill=0.92, edge=2.0, flutter=(25.0, 0.97),
        loudness=((0.0, 0.0), (0.12, 0.9), (0.8, 1.0), (1.0, 0.0)), glide=_FLAT,
        opening=_FLAT, mouths=(_HUM, _HUM), noise=0.12, direct=0.4, level_db=-2.5,
    ),
    "howl": Kind(
        register_hz=(210.0, 460.0, 1000.0), calls_hz=(0.55, 1.6), fill=0.94, edge=1.4, noise=0.06, direct=0.7,
        loudness=((0.0, 0.0), (0.25, 0.8), (0.75, 1.0), (1.0, 0.0)),
        glide=((0.0, -0.7), (0.3, 0.08), (0.7, 0.08), (1.0, -0.6)),
        opening=((0.0, 0.0), (0.4, 1.0), (1.0, 0.0)), mouths=(_OO, _OH), vibrato=(5.2, 0.03), pure=True,
    ),
    "croak": Kind(
        register_hz=(95.0, 210.0, 460.0), calls_hz=(1.7, 4.2), fill=0.55, edge=9.0, flutter=(33.0, 0.9), noise=0.05,
        loudness=((0.0, 0.0), (0.06, 1.0), (0.8, 0.9), (1.0, 0.0)), glide=((0.0, -0.1), (0.5, 0.0), (1.0, 0.2)),
        opening=((0.0, 0.0), (0.35, 0.1), (0.6, 1.0), (1.0, 1.0)), mouths=(_HUM, _AH), level_db=-0.5,
    ),
    "click": Kind(
        register_hz=(650.0, 1400.0, 3000.0), calls_hz=(4.5, 12.0), fill=0.3, edge=1.0, noise=0.14, direct=0.35,
        loudness=((0.0, 1.0), (0.3, 0.4), (1.0, 0.0)), glide=_FLAT,
        opening=_EVEN, mouths=(_AH, _AH), ringing=True, level_db=-0.5,
    ),
    "whimper": Kind(
        register_hz=(330.0, 720.0, 1600.0), calls_hz=(1.7, 4.2), fill=0.7, edge=2.0, noise=0.14, direct=0.7, pure=True,
        loudness=((0.0, 0.0), (0.15, 1.0), (1.0, 0.0)), glide=((0.0, 0.3), (0.25, 0.22), (1.0, -0.35)),
        opening=((0.0, 0.6), (1.0, 0.0)), mouths=(_HUM, _OH), vibrato=(11.0, 0.045), level_db=-2.5,
    ),
}  # fmt: skip
