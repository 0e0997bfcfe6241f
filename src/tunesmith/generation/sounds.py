"""Generated sounds become files: finished (channels, rate, post-processing, loop), written with their credits beside.

A sound's credits are `<file>.<ext>.credits.json`. They are on the disk before the sound has its name, so a sound
without them was not made here, and one beside them is whole.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import soxr  # type: ignore[import-untyped]
from numpy.typing import NDArray

from tunesmith.data.audio_writing import encode_audio
from tunesmith.engines.protocol import Media
from tunesmith.errors import DataError, NonFinite, RecipeError
from tunesmith.generation.sound.chain import post_process
from tunesmith.generation.sound.loops import loop_click, make_loop
from tunesmith.generation.sound.record import describe
from tunesmith.generation.sound.samples import RATES as POST_RATES
from tunesmith.generation.sound.settings import PostSettings
from tunesmith.numeric.clips import crest_db, loudness_lufs, peak, rms_dbfs, true_peak_dbfs
from tunesmith.weights.atomic import writing

CREDITS = ".credits.json"
FORMAT = 1

Samples = NDArray[Any]


@dataclass(frozen=True)
class Finish:
    """What happens to a generated sound until it is a file, in this order; None and False leave it as it is.

    `mono` is the mean of the channels, `rate` in Hz; `loop_seconds` is the crossfade of a loop. The last three are the
    coding's, as `data.audio.write_audio` takes them.
    """

    post: PostSettings | None = None
    loop_seconds: float | None = None
    mono: bool = False
    rate: int | None = None
    subtype: str | None = None
    bitrate_kbps: int | None = None
    quality: float | None = None

    def check(self, path: Path) -> None:
        """Raise what can be told before a sound is there: a coding that `path` cannot have, a rate post refuses."""
        if self.post is not None and self.rate is not None and not POST_RATES[0] <= self.rate <= POST_RATES[1]:
            raise RecipeError(
                f"the sound is asked for at {self.rate} Hz",
                expected=f"{POST_RATES[0]} to {POST_RATES[1]} Hz with post-processing",
            )
        stack = self.post.stack if self.post is not None else ()
        if self.loop_seconds is not None and stack and "loop_clean" not in stack:
            raise RecipeError("post.stack has no loop_clean, and a loop is asked for", do="add it to the stack")
        if self.rate is not None or self.bitrate_kbps is None:  # which bit rates there are depends on the rate
            silence = np.zeros((1 if self.mono else 2, 1), dtype=np.float32)
            encode_audio(path, silence, self.rate or 44_100, **self.coding)

    @property
    def coding(self) -> dict[str, Any]:
        """The keywords of `write_audio`."""
        return {"subtype": self.subtype, "bitrate_kbps": self.bitrate_kbps, "quality": self.quality}


@dataclass(frozen=True)
class Sound:
    """A finished sound [channels, samples] float32 and what is to be told about it, JSON-ready."""

    samples: Samples
    rate: int
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Its length."""
        return float(self.samples.shape[1] / self.rate)


def save_sound(media: Media, path: Path, *, finish: Finish | None = None, sidecar: Mapping[str, Any]) -> Path:
    """Finish a generated sound and write it with its credits: `sidecar` (see `sidecars`) and what the file itself is.

    Raises NonFinite, DataError and DiskFull as `finish_sound` and `write_sound` do; then neither file is there.
    """
    finish = finish or Finish()
    return write_sound(finish_sound(media, finish), path, finish=finish, sidecar=sidecar)


def finish_sound(media: Media, finish: Finish | None = None) -> Sound:
    """The sound that will be written. Raises DataError for media that are no sound, NonFinite for NaN and Inf."""
    finish = finish or Finish()
    samples, rate = _checked(media)
    if finish.mono and len(samples) > 1:
        samples = samples.mean(axis=0, keepdims=True, dtype=np.float32)
    if finish.rate is not None and finish.rate != rate:
        samples = np.ascontiguousarray(soxr.resample(np.ascontiguousarray(samples.T), rate, finish.rate, "HQ").T)
        rate = finish.rate
    facts: dict[str, Any] = {}
    if finish.post is not None:
        samples = _processed(samples, rate, finish, int(media.parameters.get("seed", 0)), facts)
    elif finish.loop_seconds is not None:
        loop = make_loop(samples, rate, crossfade_seconds=finish.loop_seconds)
        samples = loop.samples
        facts["loop"] = {
            "crossfade_samples": loop.crossfade_samples,
            "curve": loop.curve,
            "correlation": round(loop.correlation, 4),
            "click_after": round(loop_click(samples), 4),
        }
    if "loop" in facts:
        count = samples.shape[1]
        where = {"start_sample": 0, "end_sample": count, "start_seconds": 0.0, "end_seconds": round(count / rate, 6)}
        facts["loop"] = where | facts["loop"]
    return Sound(samples, rate, facts)


def write_sound(sound: Sound, path: Path, *, finish: Finish | None = None, sidecar: Mapping[str, Any]) -> Path:
    """Write the sound as its extension says, and its credits beside it; whole or not at all. Returns `path`."""
    finish = finish or Finish()
    data = encode_audio(path, sound.samples, sound.rate, **finish.coding)
    credits_path = sidecar_path(path)
    document = {
        **sidecar,
        **told_of(sound, finish),
        "file": {"name": path.name, **file_facts(sound, bytes(data))},
    }
    if "environment" in sidecar:  # a sound of weights that nobody kept cannot be made again
        document["replay"] = f"tunesmith generate --replay {shlex.quote(str(credits_path))}"
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with writing(path) as file:
        file.write(data)
        _settle(file)
        with writing(credits_path) as beside:
            beside.write(text.encode("utf-8"))
            _settle(beside)
            # Both are on the disk. From here to the last rename a crash leaves no sound, rather than an older one
            # beside credits that are not its own.
            path.unlink(missing_ok=True)
    return path


def sidecar_path(path: Path) -> Path:
    """Where the credits of the sound at `path` are."""
    return path.with_name(path.name + CREDITS)


def file_facts(sound: Sound, data: bytes) -> dict[str, Any]:
    """What a file holds: rate in Hz, channels, samples, seconds, size and SHA-256."""
    return {
        "rate": sound.rate,
        "channels": len(sound.samples),
        "samples": int(sound.samples.shape[1]),
        "seconds": round(sound.seconds, 6),
        "size_bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def told_of(sound: Sound, finish: Finish) -> dict[str, Any]:
    """Levels, and every setting of the finish: with the request they make the same file again. Part of the credits."""
    facts = dict(sound.facts)
    analysis = analysis_of(sound.samples, sound.rate)
    if "normalise" in facts:
        analysis["normalise"] = facts.pop("normalise")
    settings = {"mono": finish.mono, "rate": finish.rate, "loop_seconds": finish.loop_seconds, **finish.coding}
    post = {"post": describe(finish.post)} if finish.post is not None else {}
    return {"analysis": analysis, "finish": settings, **post, **facts}


def analysis_of(samples: Samples, rate: int) -> dict[str, Any]:
    """Levels of a sound [channels, samples]; those in dB are null where there is none.

    peak, true_peak (four times oversampled) and rms are linear, full scale 1; rms over all channels.
    """
    level = rms_dbfs(samples)
    return {
        "sample_rate": rate,
        "seconds": round(samples.shape[1] / rate, 6),
        "peak": round(peak(samples), 6),
        "true_peak": round(10.0 ** (true_peak_dbfs(samples) / 20.0), 6),
        "rms": round(10.0 ** (level / 20.0), 6),
        "rms_dbfs": _decibels(level),
        "crest_db": _decibels(crest_db(samples)),
        "lufs": _decibels(loudness_lufs(samples, rate)),
    }


def _checked(media: Media) -> tuple[Samples, int]:
    samples, rate = media.data, media.parameters.get("rate")
    if media.kind != "audio" or not isinstance(samples, np.ndarray) or samples.ndim != 2 or not rate:
        raise DataError(f"the generated {media.kind} is no sound", expected="media of kind audio with a rate")
    broken = int(np.count_nonzero(~np.isfinite(samples)))
    if broken or not samples.size:
        seed = media.parameters.get("seed", "?")
        raise NonFinite(
            f"the sound of seed {seed} has NaN or Inf in {broken:,} of its {samples.size:,} samples",
            expected="finite samples",
            do="nothing was written; try --precision fp32, less guidance, or a smaller weight of the checkpoint",
        )
    return np.asarray(samples, dtype=np.float32), int(rate)


def _processed(samples: Samples, rate: int, finish: Finish, seed: int, facts: dict[str, Any]) -> Samples:
    settings = finish.post or PostSettings()
    if finish.loop_seconds is not None:
        settings = replace(settings, loop_clean=True, loop_crossfade_ms=1000.0 * finish.loop_seconds)
    done = post_process(samples, rate, settings, seed=seed)
    steps = {entry["step"]: entry for entry in done.report["steps"]}
    facts["post_report"] = done.report
    if "loop_clean" in steps:
        names = ("crossfade_samples", "curve", "correlation", "click_after")
        facts["loop"] = {name: steps["loop_clean"][name] for name in names}
    if "normalise" in steps:
        facts["normalise"] = {name: value for name, value in steps["normalise"].items() if name != "step"}
    return done.samples


def _decibels(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def _settle(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
