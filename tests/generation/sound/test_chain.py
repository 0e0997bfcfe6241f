"""The whole chain: reports, silence, short and long sounds, channels, seeds."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.errors import DataError, NonFinite, RecipeError
from tunesmith.generation.sound.chain import post_process
from tunesmith.generation.sound.dynamics import Bands, Curve, compress, limit, multiband
from tunesmith.generation.sound.ends import fade, trim
from tunesmith.generation.sound.filters import band_limit
from tunesmith.generation.sound.harmonics import excite
from tunesmith.generation.sound.layers import Grains, add_noise_bed, add_texture
from tunesmith.generation.sound.levels import normalise_lufs, normalise_rms
from tunesmith.generation.sound.loops import make_loop
from tunesmith.generation.sound.reverb import Room, add_reverb
from tunesmith.generation.sound.settings import STEPS, PostSettings, polished
from tunesmith.generation.sound.spectral import denoise, shift_formants
from tunesmith.generation.sound.transients import duck_bed, shape_transients

RATE = 44_100
EVERYTHING = PostSettings(
    denoise=0.4,
    multiband=True,
    formant_size=0.6,
    texture="rasp",
    noise_bed_db=-40.0,
    transient=0.5,
    transient_sustain=0.3,
    exciter=0.5,
    duck_bed=0.4,
    compressor=True,
    reverb="room",
    loop_clean=True,
    limiter=True,
    limiter_db=-3.0,
)


def _growl(seconds: float = 0.6, rate: int = RATE) -> np.ndarray:
    """[1, samples]: a falling buzz with a click and a breath, silence at both ends."""
    stream = np.random.default_rng(1)
    count = round(seconds * rate)
    time = np.arange(count) / rate
    line = signal_shape(time, seconds) * (np.sign(np.sin(2 * np.pi * 140 * time * (1 - 0.2 * time))) * 0.3)
    line += 0.1 * stream.normal(0, 1, count) * signal_shape(time, seconds)
    line[count // 2] += 0.5
    return np.pad(line, rate // 10).astype(np.float32)[None]


def signal_shape(time: np.ndarray, seconds: float) -> np.ndarray:
    """A hump between 0 and `seconds`."""
    return np.sin(np.pi * time / seconds) ** 2


def _step(report: dict, name: str) -> dict:
    return next(entry for entry in report["steps"] if entry["step"] == name)


def test_the_plain_chain_and_its_report() -> None:
    sound = _growl()
    done = post_process(sound, RATE)
    report = done.report
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert [entry["step"] for entry in report["steps"]] == ["trim", "filters", "fade", "normalise", "clip"]
    trimmed = _step(report, "trim")
    assert trimmed["start_samples"] + trimmed["end_samples"] == sound.shape[1] - done.samples.shape[1]
    assert _step(report, "normalise")["ceiling"] is None
    assert report["after"]["rms_db"] == pytest.approx(-18, abs=1e-3)
    assert report["after"]["peak_db"] == pytest.approx(20 * np.log10(np.abs(done.samples).max()), abs=1e-3)
    assert report["after"]["rms_db"] == pytest.approx(10 * np.log10(np.mean(done.samples.astype(float) ** 2)), abs=1e-3)
    assert report["after"]["rms_db"] == _step(report, "clip")["rms_db"]
    assert report["seconds_before"] == pytest.approx(0.8)
    assert report["seconds_after"] == pytest.approx(done.samples.shape[1] / RATE, abs=1e-6)
    assert report["before"]["rms_db"] == pytest.approx(10 * np.log10(np.mean(sound.astype(float) ** 2)), abs=1e-3)


def test_a_click_is_ruled_by_the_peak_ceiling() -> None:
    sound = np.zeros((1, RATE), dtype=np.float32)
    sound[0, RATE // 2 : RATE // 2 + 2] = 0.7
    done = post_process(sound, RATE)
    found = _step(done.report, "normalise")
    assert found["ceiling"] == "peak"
    assert found["reached_db"] == pytest.approx(-33, abs=1.5), "far below the target of -18"
    assert np.abs(done.samples).max() == pytest.approx(10 ** (-1 / 20), rel=1e-5)


def test_loudness_mode_reaches_its_target() -> None:
    asked = PostSettings(normalise="lufs", normalise_lufs=-24.0)
    report = post_process(np.repeat(_growl(), 2, axis=0), RATE, asked).report
    assert report["after"]["lufs"] == pytest.approx(-24, abs=0.02)
    assert _step(report, "normalise")["ceiling"] is None


def test_every_step_runs_and_tells(request: pytest.FixtureRequest) -> None:
    done = post_process(_growl(), RATE, EVERYTHING)
    assert [entry["step"] for entry in done.report["steps"]] == list(STEPS)
    skipped = {entry["step"]: entry["skipped"] for entry in done.report["steps"] if "skipped" in entry}
    assert skipped == {"fade": "a loop has no ends"}
    json.dumps(done.report, allow_nan=False)


@pytest.mark.parametrize("step", [name for name in STEPS if name not in ("fade", "clip")])
def test_every_step_changes_the_sound(step: str) -> None:
    sound = _growl()
    done = post_process(sound, RATE, replace(EVERYTHING, stack=(step,), limiter_db=-20.0))
    assert done.samples.shape != sound.shape or np.abs(done.samples - sound).max() > 1e-3


# Knobs -> the step's own function with the same values in its own units.
BY_HAND: list[tuple[str, dict, Callable]] = [
    (
        "trim",
        {"trim_threshold_db": -30.0, "trim_padding_ms": 5.0},
        lambda sound: trim(sound, RATE, threshold_db=-30, padding_seconds=0.005)[0],
    ),
    ("denoise", {"denoise": 0.6}, lambda sound: denoise(sound, RATE, strength=0.6)[0]),
    (
        "filters",
        {"highpass_hz": 90.0, "lowpass_hz": 7000.0},
        lambda sound: band_limit(sound, RATE, highpass_hz=90, lowpass_hz=7000)[0],
    ),
    (
        "multiband",
        {
            "multiband": True,
            "multiband_low_hz": 300.0,
            "multiband_high_hz": 2000.0,
            "multiband_low_gain_db": 1.0,
            "multiband_middle_gain_db": 2.0,
            "multiband_high_gain_db": 3.0,
            "multiband_threshold_db": -30.0,
            "multiband_ratio": 3.0,
            "multiband_attack_ms": 7.0,
            "multiband_release_ms": 70.0,
        },
        lambda sound: multiband(sound, RATE, bands=Bands(300, 2000, 1, 2, 3), curve=Curve(-30, 3, 0.007, 0.07))[0],
    ),
    ("formant", {"formant_size": 1.2}, lambda sound: shift_formants(sound, RATE, size=1.2)[0]),
    (
        "texture",
        {"texture": "buzz", "texture_amount": 0.4, "texture_grain_ms": 30.0, "texture_spray": 0.2},
        lambda sound: add_texture(sound, RATE, grains=Grains("buzz", 0.4, 0.03, 0.2), seed=9)[0],
    ),
    (
        "noise_bed",
        {"noise_bed_db": -25.0, "noise_bed_colour": "white"},
        lambda sound: add_noise_bed(sound, level_db=-25, colour="white", seed=9)[0],
    ),
    (
        "transient",
        {"transient": 0.3, "transient_sustain": 0.6, "transient_split_hz": 900.0},
        lambda sound: shape_transients(sound, RATE, attack=0.3, sustain=0.6, split_hz=900)[0],
    ),
    ("exciter", {"exciter": 0.7, "exciter_hz": 1500.0}, lambda sound: excite(sound, RATE, amount=0.7, hz=1500)[0]),
    (
        "duck_bed",
        {"duck_bed": 0.7, "duck_bed_split_hz": 1500.0},
        lambda sound: duck_bed(sound, RATE, amount=0.7, split_hz=1500)[0],
    ),
    ("fade", {"fade_ms": 50.0, "trim": False}, lambda sound: fade(sound, RATE, seconds=0.05)[0]),
    (
        "compressor",
        {
            "compressor": True,
            "compressor_threshold_db": -30.0,
            "compressor_ratio": 3.0,
            "compressor_attack_ms": 7.0,
            "compressor_release_ms": 70.0,
            "compressor_makeup_db": 2.0,
        },
        lambda sound: compress(sound, RATE, curve=Curve(-30, 3, 0.007, 0.07, 2))[0],
    ),
    (
        "reverb",
        {"reverb": "cave", "reverb_seconds": 0.3, "reverb_mix": 0.4},
        lambda sound: add_reverb(sound, RATE, room=Room(0.3, 0.11, 6000), mix=0.4, keep_tail=True, seed=9)[0],
    ),
    (
        "loop_clean",
        {"loop_clean": True, "loop_crossfade_ms": 70.0},
        lambda sound: make_loop(sound, RATE, crossfade_seconds=0.07).samples,
    ),
    (
        "normalise",
        {"normalise_rms_db": -10.0, "normalise_ceiling_db": -4.0},
        lambda sound: normalise_rms(sound, target_db=-10, ceiling_db=-4)[0],
    ),
    (
        "normalise",
        {"normalise": "lufs", "normalise_lufs": -10.0, "normalise_ceiling_db": -4.0},
        lambda sound: normalise_lufs(sound, RATE, target_lufs=-10, ceiling_db=-4)[0],
    ),
    ("limiter", {"limiter": True, "limiter_db": -9.0}, lambda sound: limit(sound, RATE, ceiling_db=-9)[0]),
]


@pytest.mark.parametrize(("step", "knobs", "by_hand"), BY_HAND)
def test_every_step_gets_its_own_knobs(step: str, knobs: dict, by_hand: Callable) -> None:
    sound = np.concatenate([_growl(), _growl()[:, ::-1]])
    done = post_process(sound, RATE, PostSettings(stack=(step,), **knobs), seed=9)
    np.testing.assert_array_equal(done.samples, by_hand(sound))


def test_an_order_is_kept() -> None:
    sound = _growl()
    first = post_process(sound, RATE, PostSettings(stack=("normalise", "filters"))).samples
    second = post_process(sound, RATE, PostSettings(stack=("filters", "normalise"))).samples
    assert np.abs(first - second).max() > 1e-3
    by_hand = post_process(sound, RATE, PostSettings(stack=("normalise",))).samples
    np.testing.assert_allclose(first, post_process(by_hand, RATE, PostSettings(stack=("filters",))).samples, atol=1e-6)


def test_with_every_step_off_the_sound_is_copied() -> None:
    sound = _growl()
    off = PostSettings(trim=False, highpass_hz=0.0, lowpass_hz=0.0, fade_ms=0.0, normalise="off", clip=False)
    done = post_process(sound, RATE, off)
    assert (done.samples == sound).all()
    assert not np.shares_memory(done.samples, sound)


@pytest.mark.parametrize(
    "asked", [PostSettings(), polished(PostSettings()), EVERYTHING], ids=["plain", "polish", "all"]
)
def test_the_input_is_not_changed(asked: PostSettings) -> None:
    sound = np.repeat(_growl(), 2, axis=0)
    before = sound.copy()
    post_process(sound, RATE, asked)
    assert (sound == before).all()


@pytest.mark.parametrize("asked", [PostSettings(), EVERYTHING], ids=["plain", "all"])
@pytest.mark.parametrize("mode", ["rms", "lufs"])
@pytest.mark.parametrize("channels", [1, 2])
def test_silence_stays_silence(asked: PostSettings, mode: str, channels: int) -> None:
    done = post_process(np.zeros((channels, RATE), np.float32), RATE, replace(asked, normalise=mode))
    assert not done.samples.any()
    assert done.report["after"] == {"peak_db": None, "true_peak_db": None, "rms_db": None, "lufs": None}
    assert _step(done.report, "trim")["end_samples"] == RATE - round(0.05 * RATE)


@pytest.mark.parametrize("asked", [PostSettings(), EVERYTHING], ids=["plain", "all"])
def test_equal_channels_stay_equal_and_like_mono(asked: PostSettings) -> None:
    mono = post_process(_growl(), RATE, asked, seed=3).samples
    stereo = post_process(np.repeat(_growl(), 2, axis=0), RATE, asked, seed=3).samples
    assert (stereo[0] == stereo[1]).all()
    np.testing.assert_allclose(stereo[0], mono[0], atol=1e-5)


@pytest.mark.parametrize("asked", [PostSettings(), EVERYTHING], ids=["plain", "all"])
@pytest.mark.parametrize("balance_db", [-3.0, -12.0, -30.0])
def test_a_panned_sound_keeps_its_balance(asked: PostSettings, balance_db: float) -> None:
    sound = _growl() * np.array([[1.0], [10 ** (balance_db / 20)]], dtype=np.float32)
    done = post_process(sound, RATE, asked).samples.astype(np.float64)
    left, right = np.sqrt(np.mean(done**2, axis=1))
    assert 20 * np.log10(right / left) == pytest.approx(balance_db, abs=0.01)
    np.testing.assert_allclose(done[1], done[0] * 10 ** (balance_db / 20), atol=1e-5)  # at every instant, too


@pytest.mark.parametrize("asked", [PostSettings(), EVERYTHING], ids=["plain", "all"])
def test_an_empty_channel_stays_empty(asked: PostSettings) -> None:
    done = post_process(np.concatenate([np.zeros_like(_growl()), _growl()]), RATE, asked).samples
    assert not done[0].any()
    assert done[1].any()


@pytest.mark.parametrize("asked", [PostSettings(), EVERYTHING], ids=["plain", "all"])
def test_swapping_channels_swaps_the_output(asked: PostSettings) -> None:
    other = np.random.default_rng(5).normal(0, 0.1, _growl().shape).astype(np.float32)
    sound = np.concatenate([_growl(), other])
    np.testing.assert_allclose(
        post_process(sound, RATE, asked).samples, post_process(sound[::-1], RATE, asked).samples[::-1], atol=1e-6
    )


def test_seeds_decide_what_is_random() -> None:
    asked = PostSettings(texture="buzz", reverb="room")
    first, again, other = (post_process(_growl(), RATE, asked, seed=seed).samples for seed in (1, 1, 2))
    assert (first == again).all()
    assert np.abs(first - other).max() > 1e-3
    np.random.seed(0)  # global state must not matter
    assert (post_process(_growl(), RATE, asked, seed=1).samples == first).all()


def test_a_limiter_may_take_the_place_of_the_ceiling() -> None:
    asked = PostSettings(normalise_rms_db=-8.0, normalise_ceiling_db=40.0, limiter=True)
    report = post_process(_growl(), RATE, asked).report
    assert _step(report, "normalise")["reached_db"] == pytest.approx(-8, abs=1e-3)
    assert _step(report, "limiter")["most_reduction_db"] > 3
    assert report["after"]["peak_db"] <= -1
    assert _step(report, "clip")["clipped_samples"] == 0


@pytest.mark.parametrize("keep", [True, False])
def test_the_tail_of_a_room_is_kept_or_cut(keep: bool) -> None:
    asked = PostSettings(trim=False, reverb="room", reverb_seconds=0.25, reverb_tail=keep)
    done = post_process(_growl(), RATE, asked)
    assert done.samples.shape[1] == _growl().shape[1] + (11_024 if keep else 0)


def test_loops_have_no_click(tone: Callable) -> None:
    sound = tone(100, 0.5, rate=RATE)[:, : RATE - RATE // 400]  # ends on the trough
    found = _step(post_process(sound, RATE, PostSettings(stack=("loop_clean",), loop_clean=True)).report, "loop_clean")
    assert found["click_after"] < 1.1
    assert found["click_before"] > 10


def test_what_is_no_sound_is_refused() -> None:
    with pytest.raises(DataError):
        post_process(np.zeros(100, np.float32), RATE)
    with pytest.raises(NonFinite):
        post_process(np.full((1, 100), np.nan, np.float32), RATE)
    with pytest.raises(RecipeError, match="the seed is -1"):
        post_process(np.zeros((1, 100), np.float32), RATE, seed=-1)


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 192_000])
@pytest.mark.parametrize("seconds", [0.0, 0.0005, 0.01, 0.05])
def test_tiny_sounds_work(rate: int, seconds: float) -> None:
    count = max(1, round(rate * seconds))
    sound = np.random.default_rng(0).uniform(-0.9, 0.9, (2, count)).astype(np.float32)
    for asked in (PostSettings(), polished(PostSettings()), replace(EVERYTHING, normalise="lufs")):
        done = post_process(sound, rate, asked)
        assert np.isfinite(done.samples).all()
        assert done.samples.shape[0] == 2
        assert np.abs(done.samples).max() <= 1
        json.dumps(done.report, allow_nan=False)


CHANGES = [
    {"denoise": 1.0},
    {"multiband": True, "multiband_low_gain_db": 12.0},
    {"formant_size": -3.0},
    {"formant_size": 3.0},
    {"texture": "screech", "texture_amount": 2.0},
    {"noise_bed_db": -3.0, "noise_bed_colour": "white"},
    {"transient": 1.0, "transient_sustain": -1.0},
    {"exciter": 1.0},
    {"duck_bed": 1.0},
    {"fade_ms": 0.0},
    {"compressor": True, "compressor_attack_ms": 0.0, "compressor_ratio": 100.0},
    {"reverb": "cave", "reverb_seconds": 0.05, "reverb_mix": 1.0},
    {"reverb": "room", "reverb_seconds": 0.02, "reverb_tail": False},
    {"loop_clean": True, "loop_crossfade_ms": 10.0},
    {"normalise": "lufs"},
    {"normalise": "off"},
    {"limiter": True, "limiter_db": -20.0},
    {"trim": False},
]


@settings(max_examples=60, deadline=None)
@given(
    rate=st.sampled_from([8_000, 16_000, 44_100, 96_000]),
    length=st.integers(1, 6000),
    channels=st.integers(1, 2),
    level_db=st.floats(-160, 30),
    quiet_part=st.floats(0, 1),
    chosen=st.lists(st.sampled_from(range(len(CHANGES))), max_size=8),
    seed=st.integers(0, 2**63 - 1),
)
def test_any_sound_comes_out_finite_and_within_full_scale(
    rate: int, length: int, channels: int, level_db: float, quiet_part: float, chosen: list[int], seed: int
) -> None:
    sound = np.random.default_rng(seed).normal(0, 10 ** (level_db / 20), (channels, length)).clip(-99, 99)
    sound[:, : int(quiet_part * length)] = 0
    changes = {name: value for index in chosen for name, value in CHANGES[index].items()}
    asked = PostSettings(**changes)
    done = post_process(sound.astype(np.float32), rate, asked, seed=seed)
    assert done.samples.dtype == np.float32
    assert done.samples.flags.c_contiguous
    assert done.samples.shape[0] == channels
    grown = round(rate * asked.reverb_seconds) if asked.reverb != "off" and asked.reverb_tail else 0
    assert 1 <= done.samples.shape[1] <= length + grown
    assert np.isfinite(done.samples).all()
    assert np.abs(done.samples).max() <= 1
    json.dumps(done.report, allow_nan=False)


def test_long_sounds_need_few_copies_of_themselves() -> None:
    """The overlapping spectra alone would be eight times the sound if they were held at once, its float64 form two."""
    sound = np.tile(_growl(1.0), 20)[:, : 20 * RATE]
    asked = PostSettings(denoise=0.5, formant_size=0.5, reverb="room", limiter=True, normalise="lufs")
    tracemalloc.start()
    post_process(sound, RATE, asked)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 10 * sound.nbytes
