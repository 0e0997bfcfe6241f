"""Finishing and writing sounds: what is in the file, what is in its credits, and what a crash leaves behind."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tunesmith.engines.protocol import Media
from tunesmith.errors import DataError, DiskFull, NonFinite, RecipeError
from tunesmith.generation import sounds
from tunesmith.generation.sound.settings import PostSettings
from tunesmith.generation.sounds import Finish, analysis_of, finish_sound, save_sound, sidecar_path, write_sound

RATE = 16_000


def media(samples: np.ndarray, rate: int = RATE, seed: int = 3) -> Media:
    return Media("audio", samples.astype(np.float32), {"prompt": "hum", "seed": seed, "rate": rate})


def sine(hertz: float, seconds: float = 0.5, *, amplitude: float = 0.5, rate: int = RATE) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def stereo() -> np.ndarray:
    return np.stack([sine(440), sine(660, amplitude=0.25)])


def test_a_plain_sound_is_written_as_it_is(tmp_path: Path) -> None:
    path = save_sound(media(stereo()), tmp_path / "new" / "hum.wav", sidecar={"prompt": "hum"})
    read, rate = soundfile.read(path, dtype="int16", always_2d=True)
    assert rate == RATE
    assert np.array_equal(read.T, np.rint(stereo().astype(np.float32).astype(np.float64) * 32768).astype(np.int16))
    told = json.loads(sidecar_path(path).read_text(encoding="utf-8"))
    assert told["prompt"] == "hum"
    assert told["file"] == {
        "name": "hum.wav",
        "rate": RATE,
        "channels": 2,
        "samples": 8000,
        "seconds": 0.5,
        "size_bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    assert sidecar_path(path).read_text(encoding="utf-8").startswith('{\n  "prompt"')
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["hum.wav", "hum.wav.credits.json"]


def test_analysis_of_a_sine_in_closed_form() -> None:
    found = analysis_of(sine(1000, 1.0)[None].astype(np.float32), RATE)
    assert found["peak"] == pytest.approx(0.5, abs=1e-4)
    assert found["true_peak"] == pytest.approx(0.5, abs=2e-3)
    assert found["rms"] == pytest.approx(0.5 / np.sqrt(2), abs=1e-4)
    assert found["rms_dbfs"] == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=1e-3)
    assert found["crest_db"] == pytest.approx(20 * np.log10(np.sqrt(2)), abs=1e-3)
    assert (found["sample_rate"], found["seconds"]) == (RATE, 1.0)


def test_silence_has_no_level_and_is_still_json(tmp_path: Path) -> None:
    path = save_sound(media(np.zeros((2, 800))), tmp_path / "still.wav", sidecar={})
    analysis = json.loads(sidecar_path(path).read_text())["analysis"]
    assert (analysis["rms_dbfs"], analysis["lufs"], analysis["peak"]) == (None, None, 0.0)


def test_mono_is_the_mean_and_a_new_rate_keeps_pitch_and_length() -> None:
    sound = finish_sound(media(stereo()), Finish(mono=True, rate=44_100))
    assert (sound.samples.shape, sound.rate) == ((1, 22_050), 44_100)
    wanted = (sine(440, rate=44_100) + sine(660, amplitude=0.25, rate=44_100)) / 2
    middle = slice(2000, -2000)  # away from where the resampler meets the ends
    assert np.abs(sound.samples[0, middle] - wanted[middle]).max() < 2e-4


def test_post_processing_runs_at_the_rate_of_the_file(tmp_path: Path) -> None:
    finish = Finish(post=PostSettings(), rate=44_100)
    path = save_sound(media(stereo()), tmp_path / "hum.wav", finish=finish, sidecar={})
    told = json.loads(sidecar_path(path).read_text())
    read = soundfile.read(path, always_2d=True)[0]
    assert 20 * np.log10(np.sqrt(np.mean(read**2))) == pytest.approx(-18.0, abs=0.01)
    assert told["analysis"]["normalise"]["reached_db"] == pytest.approx(-18.0)
    assert told["post"]["order"] == ["trim", "filters", "fade", "normalise", "clip"]
    assert (told["post_report"]["rate"], told["post_report"]["seed"]) == (44_100, 3)


@pytest.mark.parametrize("post", [None, PostSettings()])
def test_a_loop_goes_on_where_it_began(post: PostSettings | None) -> None:
    noise = np.random.default_rng(0).standard_normal((1, RATE)).astype(np.float32) * 0.1
    rising = noise + np.linspace(-0.5, 0.5, RATE, dtype=np.float32)  # as it is, its end is far from its start
    sound = finish_sound(media(rising), Finish(post=post, loop_seconds=0.1))
    where = sound.facts["loop"]
    assert (where["start_sample"], where["end_sample"]) == (0, sound.samples.shape[1])
    assert where["end_seconds"] == pytest.approx(sound.samples.shape[1] / RATE)
    assert where["crossfade_samples"] == 1600
    steps = np.abs(np.diff(sound.samples[0]))
    assert abs(sound.samples[0, 0] - sound.samples[0, -1]) <= steps.max()
    assert sound.samples.shape[1] == RATE - 1600


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_sound_that_is_not_finite_is_refused_and_nothing_written(tmp_path: Path, value: float) -> None:
    broken = stereo()
    broken[1, 7] = value
    with pytest.raises(NonFinite, match=r"seed 3 has NaN or Inf in 1 of its 16,000 samples"):
        save_sound(media(broken), tmp_path / "hum.wav", sidecar={})
    assert list(tmp_path.iterdir()) == []


def test_media_of_another_kind_are_refused() -> None:
    with pytest.raises(DataError, match="no sound"):
        finish_sound(Media("image", None, {}))


@pytest.mark.parametrize(
    ("finish", "name", "error", "words"),
    [
        (Finish(subtype="PCM_24"), "x.ogg", DataError, "cannot hold PCM_24"),
        (Finish(quality=5), "x.wav", DataError, "no quality"),
        (Finish(bitrate_kbps=100, rate=44_100), "x.mp3", DataError, "100 kbit/s"),
        (Finish(rate=4_000), "x.mp3", DataError, "4000 Hz"),
        (Finish(post=PostSettings(), rate=4_000), "x.wav", RecipeError, "4000 Hz"),
        (Finish(post=PostSettings(stack=("trim",)), loop_seconds=0.1), "x.wav", RecipeError, "loop_clean"),
    ],
)
def test_what_no_file_can_be_is_told_beforehand(finish: Finish, name: str, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        finish.check(Path(name))


def test_settings_that_fit_pass_the_check() -> None:
    Finish(rate=44_100, bitrate_kbps=192).check(Path("x.mp3"))
    Finish(post=PostSettings(), rate=8_000, subtype="FLOAT").check(Path("x.wav"))


def write(path: Path, amplitude: float) -> Path:
    return save_sound(media(sine(440, amplitude=amplitude)[None]), path, sidecar={"seed": 3})


def test_a_full_disk_leaves_the_old_sound_and_its_credits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "hum.wav", 0.5)
    before = {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()}
    real, calls = os.fsync, []

    for failing in (1, 2):  # the sound's bytes, the credits'
        calls.clear()

        def full(number: int, *, failing: int = failing) -> None:
            calls.append(number)
            if len(calls) == failing:
                raise OSError(28, "No space left on device")
            real(number)

        with monkeypatch.context() as patched:
            patched.setattr(sounds.os, "fsync", full)
            with pytest.raises(DiskFull):
                write(path, 0.1)
        assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == before


class Killed(BaseException):
    """What a kill looks like from inside: nothing after it runs but clean-up."""


@pytest.mark.parametrize("overwrites", [False, True])
def test_a_crash_leaves_no_sound_that_looks_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrites: bool
) -> None:
    """Stopped at every rename in turn: a sound is only ever there with credits that are its own."""
    path, real, renames = tmp_path / "hum.wav", Path.replace, []
    for stopped_at in (1, 2):
        for entry in tmp_path.iterdir():
            entry.unlink()
        if overwrites:
            write(path, 0.5)
        renames.clear()

        def replace(self: Path, target: Path, *, stopped_at: int = stopped_at) -> Path:
            renames.append(target)
            if len(renames) == stopped_at:
                raise Killed
            return real(self, target)

        with monkeypatch.context() as patched:
            patched.setattr(Path, "replace", replace)
            with pytest.raises(Killed):
                write(path, 0.1)
        assert not path.exists()
        write(path, 0.1)
        told = json.loads(sidecar_path(path).read_text())
        assert told["file"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    sound = finish_sound(media(stereo()))
    with pytest.raises(Exception, match=r"file is a file"):
        write_sound(sound, tmp_path / "file" / "x.wav", sidecar={})
    assert (tmp_path / "file").read_text() == "mine"
