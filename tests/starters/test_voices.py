"""The voice world: a function of its words, each of which can be measured in the samples, and clean sound."""

from __future__ import annotations

import random
import wave
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy.signal import butter, find_peaks, freqz, hilbert, resample, sosfiltfilt, welch

from tunesmith.data.source import read_items
from tunesmith.errors import DataError
from tunesmith.recipe.schema import DataSection
from tunesmith.starters import voice_kinds
from tunesmith.starters.noise_sounds import random_noise_sound
from tunesmith.starters.voice_families import FEATURES, Feature, is_trigger, new_family
from tunesmith.starters.voice_filters import INNER_RATE, at_rate, falling, resonances_hz, resonator
from tunesmith.starters.voice_measures import pitch_track
from tunesmith.starters.voice_sources import pulses
from tunesmith.starters.voices import (
    EMOTIONS,
    KINDS,
    PITCHES,
    ROUGHNESS,
    SIZES,
    TEMPOS,
    WORDS,
    Voice,
    caption,
    random_voice,
    synthesise,
    write_dataset,
)

PLAIN = Voice("growl", "large", "middle", "smooth", "calm", "slow", 1.2, 5)
TONES = [kind for kind in KINDS if kind not in ("hiss", "click")]


def sound(voice: Voice, rate: int = INNER_RATE) -> np.ndarray:
    return synthesise(voice, rate)[0].astype(np.float64)


def everything(count: int) -> list[Voice]:
    return [random_voice(random.Random(seed)) for seed in range(count)]


def loudness(samples: np.ndarray, limit_hz: float) -> np.ndarray:
    """The envelope, by Hilbert transform, without what is faster than the limit."""
    low = butter(2, limit_hz, fs=INNER_RATE, output="sos")
    return np.maximum(sosfiltfilt(low, np.abs(hilbert(samples))), 0.0)


def moving(samples: np.ndarray, low_hz: float, high_hz: float) -> float:
    """The share of the envelope's power that moves at such rates, over its mean's."""
    envelope = loudness(samples, 200.0)
    frequencies, power = welch(envelope - envelope.mean(), INNER_RATE, nperseg=8192)
    inside = (frequencies >= low_hz) & (frequencies < high_hz)
    return float(power[inside].sum() * frequencies[1] / envelope.mean() ** 2)


def around_the_loudest(samples: np.ndarray, count: int) -> np.ndarray:
    at = int(np.argmax(loudness(samples, 20.0)))
    begin = min(max(0, at - count // 2), len(samples) - count)
    return samples[begin : begin + count]


def periodic(samples: np.ndarray, hertz: float) -> float:
    """The highest normalised autocorrelation near a frequency, of two periods around the loudest moment."""
    lags = range(int(INNER_RATE / hertz / 1.4), int(INNER_RATE / hertz * 1.4) + 2)
    count = max(2 * lags[-1], 60)
    frame = around_the_loudest(samples, count + lags[-1])
    one, best = frame[:count], -1.0
    for lag in lags:
        other = frame[lag : lag + count]
        best = max(best, float(one @ other / np.sqrt((one @ one) * (other @ other) + 1e-20)))
    return best


def brightness(samples: np.ndarray) -> float:
    """The mean frequency, each weighted by its amplitude."""
    frequencies, power = welch(samples, INNER_RATE, nperseg=1024)
    return float((frequencies * np.sqrt(power)).sum() / np.sqrt(power).sum())


# ---------------------------------------------------------------- a function of the words


def test_synthesis_is_a_function_of_the_words() -> None:
    for voice in everything(6):
        one = synthesise(voice)
        assert (one.dtype, one.shape) == (np.float32, (1, round(voice.seconds * INNER_RATE)))
        assert one.tobytes() == synthesise(voice).tobytes()
        assert one.tobytes() != synthesise(replace(voice, variation=voice.variation + 1)).tobytes()
    assert random_voice(random.Random(3)) == random_voice(random.Random(3))


def test_every_attribute_occurs() -> None:
    drawn = everything(1500)
    for name, words in WORDS.items():
        counts = [sum(getattr(voice, name) == word for voice in drawn) for word in words]
        assert min(counts) > 0.6 * 1500 / len(words), (name, counts)
    assert 0.07 < np.mean([voice.name is not None for voice in drawn]) < 0.13
    seconds = [voice.seconds for voice in drawn]
    assert 0.6 <= min(seconds) < 0.65 < 1.95 < max(seconds) <= 2.0
    assert all(voice.family is None for voice in drawn)


@pytest.mark.parametrize(
    "wrong", [{"kind": "bark"}, {"size": "big"}, {"emotion": ""}, {"seconds": 0.1}, {"seconds": float("nan")}]
)
def test_words_the_world_does_not_have(wrong: dict[str, object]) -> None:
    with pytest.raises(DataError, match="no voice"):
        replace(PLAIN, **wrong)
    with pytest.raises(DataError, match="Hz"):
        synthesise(PLAIN, 4_000)


# ---------------------------------------------------------------- clean sound


def test_no_clicks_no_constant_part_and_natural_levels() -> None:
    peaks = []
    for voice in [*everything(60), *(replace(one, family=new_family(at)) for at, one in enumerate(everything(20)))]:
        samples = sound(voice)
        assert np.isfinite(samples).all()
        assert abs(samples[0]) < 1e-3 > abs(samples[-1])
        assert abs(samples.mean()) < 1e-5
        peaks.append(20 * np.log10(np.abs(samples).max()))
    assert max(peaks) <= -2.4
    assert min(peaks) >= -12.0


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_another_rate_is_the_same_sound(rate: int) -> None:
    for voice in (PLAIN, replace(PLAIN, kind="chirp", size="huge", emotion="angry")):
        here, there = sound(voice), sound(voice, rate)
        assert len(there) == round(len(here) * rate / INNER_RATE)
        padded = np.pad(here, (0, -len(here) % 441))  # so that every rate has whole samples of it
        other = resample(padded, len(padded) * rate // INNER_RATE)[: len(there)]
        if rate < INNER_RATE:
            low = butter(8, 6000.0, fs=rate, output="sos")
            there, other = sosfiltfilt(low, there), sosfiltfilt(low, other)
        assert np.abs(there - other).max() < 0.02 * np.abs(here).max()
        assert np.abs(there).max() <= 1.0


def test_pulses_are_a_sum_of_cosines() -> None:
    """Fourier: impulses one in P samples are 1/P plus 2/P cosines; nothing is between them but by aliasing."""
    period, samples = 23.37, 16_384
    at = np.arange(1, int(samples / period)) * period
    train = pulses(at, np.ones(len(at)), samples)[4096:12288]
    window = np.hanning(len(train))
    for harmonic in range(1, 8):  # up to 0.3 of the rate, where the windowed sinc is flat
        wave = np.exp(-2j * np.pi * harmonic / period * np.arange(len(train)))
        assert 2 * abs((train * window) @ wave) / window.sum() == pytest.approx(2 / period, rel=0.01)
        between = np.exp(-2j * np.pi * (harmonic + 0.5) / period * np.arange(len(train)))
        assert 2 * abs((train * window) @ between) / window.sum() < 2 / period * 10 ** (-50 / 20)


def test_a_high_smooth_tone_has_only_its_harmonics() -> None:
    voice = replace(PLAIN, kind="howl", pitch="high", size="tiny", emotion="calm", seconds=2.0)
    frame = around_the_loudest(sound(voice), 1024) * np.blackman(1024)
    power = np.abs(np.fft.rfft(frame, 8192)) ** 2
    first = int(np.argmax(power[: 8192 * 1500 // INNER_RATE]))
    peaks, _ = find_peaks(power, height=power.max() * 1e-3)
    assert len(peaks) >= 3
    assert np.abs(peaks / first - np.round(peaks / first)).max() < 0.1
    assert power[8192 * 10_000 // INNER_RATE :].max() < power.max() * 1e-5


def test_filters_are_what_they_say() -> None:
    assert resonances_hz(0.175) == pytest.approx([500, 1500, 2500, 3500, 4500])  # the textbook's neutral tract
    impulse = np.zeros(INNER_RATE)
    impulse[0] = 1.0
    answer = np.abs(np.fft.rfft(resonator(impulse, 1200.0, 90.0)))  # a bin is 1 Hz
    assert (answer[1200], answer[0]) == pytest.approx((1.0, 0.0), abs=0.02)
    assert np.flatnonzero(answer > np.sqrt(0.5)).size == pytest.approx(90, abs=4)
    pole = np.exp(-2 * np.pi * 300 / INNER_RATE)
    _, expected = freqz([1 - pole], [1, -pole], worN=np.arange(1000), fs=INNER_RATE)
    assert np.abs(np.fft.rfft(falling(impulse, 300.0)))[:1000] == pytest.approx(np.abs(expected) ** 2, abs=1e-6)
    wave = np.sin(2 * np.pi * 440 * np.arange(INNER_RATE) / INNER_RATE)
    other = np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000)
    assert at_rate(wave, 48_000)[2000:-2000] == pytest.approx(other[2000:-2000], abs=2e-3)
    assert at_rate(other, INNER_RATE, of_rate=48_000)[2000:-2000] == pytest.approx(wave[2000:-2000], abs=2e-3)


# ---------------------------------------------------------------- every attribute can be measured


@pytest.mark.parametrize("kind", KINDS)
def test_larger_creatures_sound_darker(kind: str) -> None:
    measured = [brightness(sound(replace(PLAIN, kind=kind, size=size, emotion="angry"))) for size in SIZES]
    assert measured == sorted(measured, reverse=True)
    assert measured[0] > 1.3 * measured[-1]


@pytest.mark.parametrize("kind", TONES)
def test_pitch_is_the_registers(kind: str) -> None:
    registers = voice_kinds.KINDS[kind].register_hz
    for at, pitch in enumerate(PITCHES):
        samples = sound(replace(PLAIN, kind=kind, pitch=pitch, emotion="calm", seconds=1.6))
        period = [periodic(samples, hertz) for hertz in registers[at:]]
        # Lower registers hold multiples of the period and are as periodic; no higher one is.
        assert period[0] > 0.5  # purrs and croaks beat within a few periods
        assert all(period[0] > other + 0.04 for other in period[1:])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("click", "purr", "croak")])
def test_rough_beats_and_raspy_is_noisy(kind: str) -> None:
    smooth, rough, raspy = (sound(replace(PLAIN, kind=kind, pitch="high", roughness=one)) for one in ROUGHNESS)
    assert moving(rough, 36.0, 60.0) > 3 * moving(smooth, 36.0, 60.0)
    if kind != "hiss":
        register = voice_kinds.KINDS[kind].register_hz[2]
        assert periodic(raspy, register) < periodic(smooth, register) - 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_emotions_differ_in_level_course_and_trembling(kind: str) -> None:
    by = {emotion: sound(replace(PLAIN, kind=kind, emotion=emotion, seconds=1.8)) for emotion in EMOTIONS}
    levels = {emotion: float(np.abs(samples).max()) for emotion, samples in by.items()}
    assert levels["angry"] > levels["playful"] > levels["scared"] > levels["calm"]
    if kind not in ("chirp", "click", "purr", "croak"):  # these beat by themselves
        assert moving(by["scared"], 8.0, 10.0) > 2 * moving(by["calm"], 8.0, 10.0)
    if kind not in ("click", "hiss", "purr"):
        half = {emotion: loudness(samples, 12.0) for emotion, samples in by.items()}
        reached = {emotion: int(np.argmax(envelope > 0.5 * envelope.max())) for emotion, envelope in half.items()}
        assert reached["angry"] < reached["calm"]


@pytest.mark.parametrize("kind", ["growl", "screech", "howl", "croak"])
def test_who_is_scared_goes_up_and_who_is_calm_does_not(kind: str) -> None:
    register = voice_kinds.KINDS[kind].register_hz[1]
    risen = {}
    for emotion in ("calm", "scared"):
        voice = replace(PLAIN, kind=kind, emotion=emotion, tempo="fast", seconds=2.0)
        track = pitch_track(sound(voice), register / 1.7, register * 1.7)
        loud = track.hertz[track.power > 0.05 * track.power.max()]
        third = len(loud) // 3
        risen[emotion] = np.log2(np.median(loud[-third:]) / np.median(loud[:third]))
    assert risen["scared"] > 0.2
    assert risen["calm"] < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_fast_has_more_calls(kind: str) -> None:
    counts = []
    for tempo in TEMPOS:
        envelope = loudness(
            sound(replace(PLAIN, kind=kind, tempo=tempo, seconds=2.0)), 9.0 if kind != "click" else 25.0
        )
        loud = envelope > 0.25 * envelope.max()
        counts.append(int(np.sum(np.diff(loud.astype(int)) == 1)))
    assert counts[1] >= 1.7 * counts[0] >= 1.7


def test_every_word_sounds_different() -> None:
    for name, words in WORDS.items():
        sounds = [sound(replace(PLAIN, **{"kind": "howl", name: word})) for word in words]
        for one, other in combinations(sounds, 2):
            assert np.sqrt(np.mean((one - other) ** 2)) > 0.1 * np.sqrt(np.mean(one**2))


# ---------------------------------------------------------------- captions and names


def test_caption_has_every_word() -> None:
    voice = Voice("growl", "large", "low", "rough", "angry", "slow")
    assert caption(voice) == "creature growl, large, angry, rough, low pitch, slow"
    assert caption(replace(voice, name="zorbli")) == "zorbli creature growl, angry, slow"


def test_captions_tell_all_words_apart() -> None:
    drawn = [replace(voice, seconds=1.0, variation=0) for voice in everything(400)]
    assert len({caption(voice) for voice in drawn}) == len(
        {replace(v, size="tiny", pitch="low", roughness="smooth") if v.name else v for v in drawn}
    )


def test_no_random_voice_bears_a_familys_name() -> None:
    assert is_trigger(new_family(0).trigger)
    assert not any(is_trigger(voice.name) for voice in everything(3000) if voice.name)


# ---------------------------------------------------------------- families


def test_families_are_functions_of_their_seed_and_distinct() -> None:
    assert new_family(4) == new_family(4)
    made = [new_family(seed) for seed in range(496)]
    assert len({one.features for one in made}) == 496
    assert len({one.trigger for one in made[:156]}) == 156
    assert {feature for one in made for feature in one.features} == {
        Feature(name, setting) for name, settings in FEATURES.items() for setting in settings
    }
    assert {len(one.features) for one in made} == {2, 3}
    for attribute, words in (("size", SIZES), ("pitch", PITCHES), ("roughness", ROUGHNESS)):
        assert {getattr(one, attribute) for one in made} == set(words)


def test_a_family_is_named_by_its_trigger_and_keeps_its_looks() -> None:
    family = new_family(1)
    one = replace(PLAIN, family=family)
    assert caption(one) == f"{family.trigger} creature growl, calm, slow"
    other = replace(one, size="tiny", pitch="high", roughness="raspy")
    assert synthesise(one).tobytes() == synthesise(other).tobytes()
    assert synthesise(one).tobytes() != synthesise(replace(one, kind="howl")).tobytes()


@pytest.mark.parametrize("name", FEATURES)
def test_every_feature_sounds_different(name: str) -> None:
    base = replace(new_family(0), size=PLAIN.size, pitch=PLAIN.pitch, roughness=PLAIN.roughness)
    plain = sound(PLAIN)
    made = [
        sound(replace(PLAIN, family=replace(base, features=(Feature(name, setting),)))) for setting in FEATURES[name]
    ]
    for one, other in combinations([plain, *made], 2):
        assert np.sqrt(np.mean((one - other) ** 2)) > 0.3 * np.sqrt(np.mean(one**2))


# ---------------------------------------------------------------- datasets


def test_write_dataset_reads_back(tmp_path) -> None:
    family = new_family(1)
    paths = write_dataset(tmp_path / "d", 6, 7, family=family, rate=16_000)
    reading = read_items([tmp_path / "d"], DataSection(), media=("audio",), concepts={"friend": family.trigger})
    assert [item.media["audio"].path for item in reading.items] == paths
    assert all(family.trigger in item.text["caption"] for item in reading.items)
    assert len({item.key for item in reading.items}) == 6
    voice = replace(random_voice(random.Random("voices/7/2")), family=family)
    with wave.open(str(paths[2]), "rb") as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
        stored = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767
    assert stored == pytest.approx(sound(voice, 16_000), abs=1 / 32767)


def test_write_dataset_is_a_function_of_its_seed(tmp_path) -> None:
    write_dataset(tmp_path / "a", 2, 7), write_dataset(tmp_path / "b", 4, 7), write_dataset(tmp_path / "c", 2, 8)
    read = {name: [(tmp_path / name / f"000{at}.wav").read_bytes() for at in range(2)] for name in "abc"}
    assert read["a"] == read["b"] != read["c"]


# ---------------------------------------------------------------- other sounds


def test_noise_sounds_are_wide() -> None:
    made = [random_noise_sound(random.Random(seed), 0.7)[0].astype(np.float64) for seed in range(60)]
    flatness = []
    for samples in made:
        assert len(samples) == round(0.7 * INNER_RATE)
        assert 0.1 < np.abs(samples).max() <= 1.0
        assert abs(samples[0]) < 1e-3 > abs(samples[-1])
        _, power = welch(samples, INNER_RATE, nperseg=1024)
        flatness.append(np.exp(np.mean(np.log(power[5:400] + 1e-15))) / power[5:400].mean())
    assert min(flatness) < 0.01 < 0.2 < max(flatness)
    assert len({samples.tobytes() for samples in made}) == 60


def test_a_noise_sound_is_a_function_of_its_generator() -> None:
    one, other = (random_noise_sound(random.Random("n"), 0.5, 44_100) for _ in range(2))
    assert one.tobytes() == other.tobytes()
    assert one.shape == (1, 22_050)
    with pytest.raises(DataError, match="no sound lasts"):
        random_noise_sound(random.Random(0), 0.0)
