"""Post-processing of a generated sound: the steps that the settings turn on, in their order, and what each did."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tunesmith.errors import RecipeError
from tunesmith.generation.sound.dynamics import Bands, Curve, compress, limit, multiband
from tunesmith.generation.sound.ends import fade, trim
from tunesmith.generation.sound.filters import band_limit
from tunesmith.generation.sound.harmonics import excite
from tunesmith.generation.sound.layers import Grains, add_noise_bed, add_texture
from tunesmith.generation.sound.levels import clip, measure, normalise_lufs, normalise_rms
from tunesmith.generation.sound.loops import loop_click, make_loop
from tunesmith.generation.sound.reverb import ROOMS, Room, add_reverb
from tunesmith.generation.sound.samples import Facts, Samples, check_sound, decibels, mean_square
from tunesmith.generation.sound.settings import PostSettings
from tunesmith.generation.sound.spectral import denoise, shift_formants
from tunesmith.generation.sound.transients import duck_bed, shape_transients


@dataclass(frozen=True)
class PostResult:
    """The sound [channels, samples] at the rate it came with, and a JSON-ready report.

    `report`: rate, channels, seconds_before, seconds_after, seed; `before` and `after` (see `levels.measure`);
    `steps`, one map a step in the order they ran: step, its own figures, and rms_db, the RMS after it. A step that
    had nothing to do says why under `skipped`.
    """

    samples: Samples
    report: dict[str, Any]


@dataclass(frozen=True)
class _Task:
    rate: int
    settings: PostSettings
    seed: int


def post_process(
    samples: npt.NDArray[Any], rate: int, settings: PostSettings | None = None, *, seed: int = 0
) -> PostResult:
    """The steps of `settings` (None: the defaults) on `samples` [1 or 2 channels, samples], floats, full scale 1.

    `seed` (0 or more) decides texture, noise bed and reverb; the same input, settings and seed give the same output.
    `samples` itself is not changed. Raises DataError or NonFinite for what is no sound.
    """
    settings = settings or PostSettings()
    if seed < 0:
        raise RecipeError(f"the seed is {seed}", expected="0 or more")
    sound = check_sound(samples, rate)
    task = _Task(rate, settings, seed)
    report: dict[str, Any] = {
        "rate": rate,
        "channels": len(sound),
        "seed": seed,
        "seconds_before": round(sound.shape[1] / rate, 6),
        "before": measure(sound, rate),
        "steps": [],
    }
    for step in settings.steps:
        sound, facts = _RUN[step](sound, task)
        report["steps"].append({"step": step, **facts, "rms_db": decibels(math.sqrt(mean_square(sound)))})
    report["seconds_after"] = round(sound.shape[1] / rate, 6)
    report["after"] = measure(sound, rate)
    return PostResult(np.array(sound, dtype=np.float32, order="C"), report)


def _trim(sound: Samples, task: _Task) -> tuple[Samples, Facts]:
    asked = task.settings
    return trim(sound, task.rate, threshold_db=asked.trim_threshold_db, padding_seconds=asked.trim_padding_ms / 1000)


def _denoise(sound: Samples, task: _Task) -> tuple[Samples, Facts]:
    return denoise(sound, task.rate, strength=task.settings.denoise)


def _filters(sound: Samples, task: _Task) -> tuple[Samples, Facts]:
    asked = task.settings
    return band_limit(sound, task.rate, highpass_hz=asked.highpass_hz, lowpass_hz=asked.lowpass_hz)


def _multiband(sound: Samples, task: _Task) -> tuple[Samples, Facts]:
    asked = task.settings
    bands = Bands(
        asked.multiband_low_hz,
        asked.multiband_high_hz,
        asked.multiband_low_gain_db,
        asked.multiband_middle_gain_db,
        asked.multiband_high_gain_db,
    )
    curve = Curve(
        asked.multiband_threshold_db,
        asked.multiband_ratio,
        asked.multiband_attack_ms / 1000,
        asked.multiband_release_ms / 1000,
    )
    return multiband(sound, task.rate, bands=bands, curve=curve)


def _formant(sound: Samples, task: _Task) -> tuple[Samples, Facts]:
    return shift_formants(sound, task.rate, size=task.settings.formant_size)


def _texture(sound: Samples, task: _Task) -> tuple[Samples, Facts]:
    asked = task.settings
    grains = Grains(asked.texture, asked.texture_amount, asked.texture_grain_ms / 1000, asked.texture_spray)
    return add_texture(sound, task.rate, grains=grains, seed=task.seed)


def _noise_bed(sound: Samples, task: _Task) -> tuple[Samples, Facts]:
    asked = task.settings
    return add_noise_bed(sound, level_db=asked.noise_bed_db, colour=asked.noise_bed_colour, seed=task.seed)


def _transient(sound: Samples, task: _Task) -> tuple[Samples, Facts]:
    asked = task.settings
    return shape_transients(
        sound,
        task.rate,
        attack=asked.transient,
        sustain=asked.transient_sustain,
        split_hz=asked.transient_split_hz,
    )


def _exciter(sound: Samples, task: _Task) -> tuple[Samples, Facts]:
    return excite(sound, task.rate, amount=task.settings.exciter, hz=task.settings.exciter_hz)


def _duck_bed(sound: Samples, task: _Task) -> tuple[Samples, Facts]:
    asked = task.settings
    return duck_bed(sound, task.rate, amount=asked.duck_bed, split_hz=asked.duck_bed_split_hz)


def _fade(sound: Samples, task: _Task) -> tuple[Samples, Facts]:
    if "loop_clean" in task.settings.steps:
        return sound, {"skipped": "a loop has no ends"}
    return fade(sound, task.rate, seconds=task.settings.fade_ms / 1000)


def _compressor(sound: Samples, task: _Task) -> tuple[Samples, Facts]:
    asked = task.settings
    curve = Curve(
        asked.compressor_threshold_db,
        asked.compressor_ratio,
        asked.compressor_attack_ms / 1000,
        asked.compressor_release_ms / 1000,
        asked.compressor_makeup_db,
    )
    return compress(sound, task.rate, curve=curve)


def _reverb(sound: Samples, task: _Task) -> tuple[Samples, Facts]:
    asked = task.settings
    own = ROOMS[asked.reverb]
    room = Room(asked.reverb_seconds or own.seconds, own.early_seconds, own.lowpass_hz)
    mixed, facts = add_reverb(
        sound, task.rate, room=room, mix=asked.reverb_mix, keep_tail=asked.reverb_tail, seed=task.seed
    )
    return mixed, {"room": asked.reverb, **facts}


def _loop_clean(sound: Samples, task: _Task) -> tuple[Samples, Facts]:
    loop = make_loop(sound, task.rate, crossfade_seconds=task.settings.loop_crossfade_ms / 1000)
    return loop.samples, {
        "crossfade_samples": loop.crossfade_samples,
        "curve": loop.curve,
        "correlation": round(loop.correlation, 4),
        "click_before": round(loop_click(sound), 4),
        "click_after": round(loop_click(loop.samples), 4),
    }


def _normalise(sound: Samples, task: _Task) -> tuple[Samples, Facts]:
    asked = task.settings
    if asked.normalise == "lufs":
        return normalise_lufs(sound, task.rate, target_lufs=asked.normalise_lufs, ceiling_db=asked.normalise_ceiling_db)
    return normalise_rms(sound, target_db=asked.normalise_rms_db, ceiling_db=asked.normalise_ceiling_db)


def _limiter(sound: Samples, task: _Task) -> tuple[Samples, Facts]:
    return limit(sound, task.rate, ceiling_db=task.settings.limiter_db)


def _clip(sound: Samples, task: _Task) -> tuple[Samples, Facts]:
    return clip(sound)


_RUN: Mapping[str, Callable[[Samples, _Task], tuple[Samples, Facts]]] = {
    "trim": _trim,
    "denoise": _denoise,
    "filters": _filters,
    "multiband": _multiband,
    "formant": _formant,
    "texture": _texture,
    "noise_bed": _noise_bed,
    "transient": _transient,
    "exciter": _exciter,
    "duck_bed": _duck_bed,
    "fade": _fade,
    "compressor": _compressor,
    "reverb": _reverb,
    "loop_clean": _loop_clean,
    "normalise": _normalise,
    "limiter": _limiter,
    "clip": _clip,
}
