"""What post-processing of a sound can be asked for: one knob a wish, in 17 steps. No numpy."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from tunesmith.errors import RecipeError
from tunesmith.recipe.document import from_plain
from tunesmith.recipe.knobs import Knob, knob, knobs_of
from tunesmith.recipe.values import value_of

SECTION = "post"
TEXTURE_KINDS = ("off", "chitter", "rasp", "buzz", "screech")
ROOM_NAMES = ("off", "room", "forest", "nether", "cave")


@dataclass(frozen=True)
class PostSettings:
    """Post-processing of a generated sound. The defaults trim, filter, fade, normalise and clip; the rest is off."""

    stack: tuple[str, ...] = knob(
        (), help="the steps in the order they are to run, others left out; empty: the usual order"
    )
    trim: bool = knob(True, help="cut silence off both ends")
    trim_threshold_db: float = knob(-40.0, low=-90, high=-6, unit="dBFS", help="samples above this are no silence")
    trim_padding_ms: float = knob(30.0, low=0, high=2000, unit="ms", help="silence kept at both ends")
    denoise: float = knob(0.0, low=0, high=1, help="share of the noise floor taken away; 0: off")
    highpass_hz: float = knob(40.0, low=0, high=20_000, unit="Hz", help="take away what is below; 0: off")
    lowpass_hz: float = knob(16_000.0, low=0, high=96_000, unit="Hz", help="take away what is above; 0: off")
    multiband: bool = knob(False, help="compress low, middle and high each on its own")
    multiband_low_hz: float = knob(250.0, low=20, high=20_000, unit="Hz", help="where low ends and middle begins")
    multiband_high_hz: float = knob(3000.0, low=20, high=40_000, unit="Hz", help="where middle ends and high begins")
    multiband_low_gain_db: float = knob(0.0, low=-40, high=40, unit="dB", help="gain of the low band")
    multiband_middle_gain_db: float = knob(0.0, low=-40, high=40, unit="dB", help="gain of the middle band")
    multiband_high_gain_db: float = knob(0.0, low=-40, high=40, unit="dB", help="gain of the high band")
    multiband_threshold_db: float = knob(-24.0, low=-80, high=0, unit="dBFS", help="each band is compressed above this")
    multiband_ratio: float = knob(2.0, low=1, high=100, help="dB of input for a dB of output above the threshold")
    multiband_attack_ms: float = knob(4.0, low=0, high=1000, unit="ms", help="time constant of falling gain")
    multiband_release_ms: float = knob(120.0, low=0, high=5000, unit="ms", help="time constant of rising gain")
    formant_size: float = knob(
        0.0, low=-3, high=3, help="size of the creature: formants move by 2^(-0.35 size), within 0.5 to 2; 0: off"
    )
    texture: str = knob("off", choices=TEXTURE_KINDS, help="layer of noise grains that follows the sound")
    texture_amount: float = knob(0.2, above=0, high=2, help="level of the texture; 1: as loud as the sound")
    texture_grain_ms: float = knob(22.0, low=2, high=200, unit="ms", help="length of a grain")
    texture_spray: float = knob(0.55, low=0, high=1, help="how irregular the grains are in time and level")
    noise_bed_db: float = knob(
        0.0, low=-90, high=0, unit="dB", help="level of steady noise beneath the sound, against its RMS; 0: off"
    )
    noise_bed_colour: str = knob("pink", choices=("pink", "white"), help="spectrum of the noise bed")
    transient: float = knob(0.0, low=-1, high=1, help="make attacks harder (above 0) or softer (below 0); 0: off")
    transient_sustain: float = knob(0.0, low=-1, high=1, help="raise (above 0) or lower what rings on; 0: off")
    transient_split_hz: float = knob(1200.0, low=20, high=40_000, unit="Hz", help="transients are shaped above this")
    exciter: float = knob(0.0, low=0, high=1, help="amount of added overtones; 0: off")
    exciter_hz: float = knob(2500.0, low=20, high=30_000, unit="Hz", help="overtones are made of what is above this")
    duck_bed: float = knob(0.0, low=0, high=1, help="how far low sound gives way to loud high sound; 0: off")
    duck_bed_split_hz: float = knob(1800.0, low=20, high=40_000, unit="Hz", help="where low ends and high begins")
    fade_ms: float = knob(8.0, low=0, high=10_000, unit="ms", help="linear fade at both ends; 0: off")
    compressor: bool = knob(False, help="compress the whole sound")
    compressor_threshold_db: float = knob(-18.0, low=-80, high=0, unit="dBFS", help="levels above this are compressed")
    compressor_ratio: float = knob(4.0, low=1, high=100, help="dB of input for a dB of output above the threshold")
    compressor_attack_ms: float = knob(5.0, low=0, high=1000, unit="ms", help="time constant of falling gain")
    compressor_release_ms: float = knob(90.0, low=0, high=5000, unit="ms", help="time constant of rising gain")
    compressor_makeup_db: float = knob(0.0, low=-40, high=40, unit="dB", help="gain after compression")
    reverb: str = knob("off", choices=ROOM_NAMES, help="the room the sound is put into")
    reverb_mix: float = knob(0.2, above=0, high=1, help="share of the room; 1: the room alone")
    reverb_seconds: float = knob(
        0.0, low=0, high=10, unit="seconds", help="time until the room has fallen by 60 dB; 0: the room's own"
    )
    reverb_tail: bool = knob(True, help="let the room ring out after the sound; else it is cut where the sound ends")
    loop_clean: bool = knob(False, help="make a seamless loop: the end is laid over the start")
    loop_crossfade_ms: float = knob(100.0, above=0, high=60_000, unit="ms", help="length of that overlap")
    normalise: str = knob("rms", choices=("rms", "lufs", "off"), help="bring the level to an RMS or a loudness")
    normalise_rms_db: float = knob(-18.0, low=-60, high=0, unit="dBFS", help="the RMS; 0: only the ceiling acts")
    normalise_lufs: float = knob(-18.0, low=-60, high=0, unit="LUFS", help="the integrated loudness")
    normalise_ceiling_db: float = knob(
        -1.0,
        low=-40,
        high=40,
        unit="dBFS",
        help="highest peak (rms) or true peak (lufs); above 0 leaves it to a limiter",
    )
    limiter: bool = knob(False, help="hold peaks under a ceiling, leaving the rest alone")
    limiter_db: float = knob(-1.0, low=-40, high=0, unit="dBFS", help="the limiter's ceiling")
    clip: bool = knob(True, help="hold every sample within full scale")

    def __post_init__(self) -> None:
        for name, entry in post_knobs().items():
            value_of(entry, from_plain(getattr(self, name), "post-processing"))
        for name in self.stack:
            if name not in STEPS:
                raise RecipeError(
                    f"{SECTION}.stack names a step {name!r}",
                    expected=f"steps among {', '.join(STEPS)}",
                    do=near(name, STEPS),
                )
        self._check_order("highpass_hz", "lowpass_hz")
        self._check_order("multiband_low_hz", "multiband_high_hz")

    def _check_order(self, low: str, high: str) -> None:
        if getattr(self, low) and getattr(self, high) and getattr(self, low) >= getattr(self, high):
            raise RecipeError(
                f"{SECTION}.{low} is {getattr(self, low):g}", expected=f"less than {high}, {getattr(self, high):g}"
            )

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps that will run, in order."""
        return tuple(name for name in self.stack or STEPS if STEPS[name](self))


# Every step in the usual order, and whether settings turn it on.
STEPS: Mapping[str, Callable[[PostSettings], bool]] = {
    "trim": lambda asked: asked.trim,
    "denoise": lambda asked: asked.denoise > 0,
    "filters": lambda asked: asked.highpass_hz > 0 or asked.lowpass_hz > 0,
    "multiband": lambda asked: asked.multiband,
    "formant": lambda asked: asked.formant_size != 0,
    "texture": lambda asked: asked.texture != "off",
    "noise_bed": lambda asked: asked.noise_bed_db < 0,
    "transient": lambda asked: asked.transient != 0 or asked.transient_sustain != 0,
    "exciter": lambda asked: asked.exciter > 0,
    "duck_bed": lambda asked: asked.duck_bed > 0,
    "fade": lambda asked: asked.fade_ms > 0,
    "compressor": lambda asked: asked.compressor,
    "reverb": lambda asked: asked.reverb != "off",
    "loop_clean": lambda asked: asked.loop_clean,
    "normalise": lambda asked: asked.normalise != "off",
    "limiter": lambda asked: asked.limiter,
    "clip": lambda asked: asked.clip,
}

POLISH: Mapping[str, Any] = {
    "denoise": 0.25,
    "transient": 0.25,
    "compressor": True,
    "compressor_threshold_db": -18.0,
    "compressor_ratio": 4.0,
    "compressor_attack_ms": 5.0,
    "compressor_release_ms": 90.0,
    "compressor_makeup_db": 3.0,
    "limiter": True,
    "limiter_db": -1.0,
}


@cache
def post_knobs() -> Mapping[str, Knob]:
    """Name -> knob of PostSettings."""
    return {entry.name: entry for entry in knobs_of(PostSettings, SECTION)}


def polished(settings: PostSettings, given: Collection[str] = ()) -> PostSettings:
    """`settings` with the values of `POLISH`, except where a knob is named in `given` or is not at its default.

    `given` holds the names of the knobs that the user set, so that one set to its default stays too. Raises
    RecipeError for a name that is no knob.
    """
    for name in given:
        check_knob(name)
    left = {
        name: value
        for name, value in POLISH.items()
        if name not in given and getattr(settings, name) == post_knobs()[name].default
    }
    return replace(settings, **left)


def check_knob(name: str) -> Knob:
    """The knob called `name`; RecipeError with a near one where there is none."""
    found = post_knobs().get(name)
    if found is None:
        raise RecipeError(f"post-processing has no knob {name!r}", do=near(name, post_knobs()))
    return found


def near(name: str, known: Collection[str]) -> str:
    """A question that names what may have been meant; empty where nothing is near."""
    found = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(repr(entry) for entry in found)}?" if found else ""
