"""Sets of sounds: distances against closed forms and double loops, and on synthetic screeches."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from scipy.signal import butter, resample, sosfilt

from tunesmith.evaluation.families import (
    RIDGE,
    bootstrap_interval,
    diversity,
    frechet_distance,
    mmd,
    nearest,
    rank_candidates,
    scale_of,
)
from tunesmith.evaluation.likeness import COPY_SHARE
from tunesmith.numeric.timbre import timbre_embedding

RATE = 22_050


def _screech(rng: np.random.Generator, pitch_hz: float | None) -> np.ndarray:
    """Harmonics (noise for no pitch) through one throat, dying away: [1, samples]."""
    seconds = np.arange(round(0.6 * rng.uniform(0.8, 1.2) * RATE)) / RATE
    sound = 0.5 * rng.standard_normal(len(seconds))
    if pitch_hz:
        bend = 1 + 0.25 * np.exp(-seconds / rng.uniform(0.05, 0.2)) + 0.03 * np.sin(2 * np.pi * 7 * seconds)
        turns = np.cumsum(pitch_hz * rng.lognormal(0, 0.06) * bend) / RATE
        for harmonic in range(1, int(RATE / 2 / (1.6 * pitch_hz)) + 1):
            sound += np.sin(2 * np.pi * harmonic * turns) / math.sqrt(harmonic)
    throat = butter(2, np.array([1500, 4500]) * rng.lognormal(0, 0.05), "band", fs=RATE, output="sos")
    sound = sosfilt(throat, sound) * np.minimum(1, seconds / 0.02) * np.exp(-seconds / rng.uniform(0.2, 0.4))
    return (rng.uniform(0.2, 0.8) * sound / np.abs(sound).max()).astype(np.float32)[None]


@cache
def _screeches(kind: str, pitch_hz: float | None) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(sum(kind.encode()))
    return tuple(_screech(rng, pitch_hz) for _ in range(24))


def _embedded(sounds: tuple[np.ndarray, ...]) -> np.ndarray:
    return np.stack([timbre_embedding(sound, RATE) for sound in sounds])


@cache
def _sets() -> dict[str, np.ndarray]:
    """Embeddings on the scale of the family."""
    made = {"family": 700, "same": 700, "other pitch": 1400, "noise": None}
    found = {kind: _embedded(_screeches(kind, pitch)) for kind, pitch in made.items()}
    scale = scale_of(found["family"])
    return {kind: scale.apply(values) for kind, values in found.items()}


def _centroid_hz(sound: np.ndarray) -> float:
    power = np.square(np.abs(np.fft.rfft(sound[0])))
    return float((power * np.fft.rfftfreq(sound.shape[1], 1 / RATE)).sum() / power.sum())


def _normal(items: int, features: int = 10, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((items, features))


def _double_loop(one: np.ndarray, other: np.ndarray, width: float, names: tuple = ()) -> float:
    """MMD^2 pair by pair; where `names` (of items, per set) is given, pairs of one name do not count."""

    def mean(a: np.ndarray, b: np.ndarray, skip: list[list[bool]] | None) -> float:
        total, pairs = 0.0, 0
        for i, x in enumerate(a):
            for j, y in enumerate(b):
                if skip is None or not skip[i][j]:
                    total += math.exp(-sum((p - q) ** 2 for p, q in zip(x, y, strict=True)) / (2 * width**2))
                    pairs += 1
        return total / pairs if pairs else math.nan

    named = names or (range(len(one)), range(len(other)))
    same = [[[p == q for q in ids] for p in ids] for ids in named]
    return mean(one, one, same[0]) + mean(other, other, same[1]) - 2 * mean(one, other, None)


def _median_distance(values: np.ndarray) -> float:
    return float(np.median([math.dist(values[i], values[j]) for i in range(len(values)) for j in range(i)]))


def test_screeches_are_told_apart() -> None:
    sets = _sets()
    family, same = sets["family"], frechet_distance(sets["same"], sets["family"])
    assert bootstrap_interval(sets["same"], family)[0] <= 0 <= bootstrap_interval(sets["same"], family)[1]
    for other in ("other pitch", "noise"):
        assert frechet_distance(sets[other], family) > 10 * same
        assert bootstrap_interval(sets[other], family)[0] > 0.5, other


def test_the_centroid_alone_misses_the_pitch() -> None:
    low, high = ([_centroid_hz(sound) for sound in _screeches(*kind)] for kind in (("family", 700), ("high", 1400)))
    assert abs(np.mean(low) - np.mean(high)) < np.std(low)


def test_the_scale_is_the_references_with_a_floor() -> None:
    values = _normal(50) * np.arange(1, 11) + 5
    values[:, 9] = 3.0
    scaled = scale_of(values).apply(values)
    np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(scaled.std(0), [1.0] * 9 + [0.0])
    moved = values + 1
    assert np.abs(scale_of(values).apply(moved)).max() < 10, "a constant feature does not outweigh the others"
    assert np.isfinite(scale_of(np.ones((3, 4))).apply(2 * np.ones((1, 4)))).all()


def test_frechet_of_diagonal_normals_has_a_closed_form() -> None:
    def exact(mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
        """Items whose sample mean is exactly `mean` and whose covariance is exactly diagonal."""
        signs = np.array([[(-1) ** (row >> bit) for bit in range(4)] for row in range(16)])
        return mean + signs * deviation * math.sqrt(15 / 16)

    means = np.array([[0.0, 1, -2, 3], [0.5, 1, 2, 0]])
    deviations = np.array([[1.0, 2, 0.5, 0], [3, 2, 0.1, 1]])
    one, other = (exact(*both) for both in zip(means, deviations, strict=True))
    with_ridge = np.sqrt(np.square(deviations) + RIDGE)
    expected = np.square(means[0] - means[1]).sum() + np.square(with_ridge[0] - with_ridge[1]).sum()
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-9)


def test_frechet_is_a_distance_and_turns_with_the_space() -> None:
    one, other = _normal(30, seed=1), 2 * _normal(20, seed=2) + 1
    assert frechet_distance(one, other) == pytest.approx(frechet_distance(other, one), rel=1e-12)
    assert frechet_distance(one, one[::-1]) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(one[:3], one[:3]) == pytest.approx(0, abs=1e-9), "fewer items than features"
    turn = np.linalg.qr(_normal(10, seed=3))[0]
    assert frechet_distance(one @ turn, other @ turn) == pytest.approx(frechet_distance(one, other), rel=1e-9)


def test_mmd_is_the_double_loop() -> None:
    one, other = _normal(6, 3), _normal(9, 3, seed=1) + 0.5
    assert mmd(one, other) == pytest.approx(_double_loop(one, other, _median_distance(other)), rel=1e-12)
    far = mmd(one + 1e6, other)
    assert far == pytest.approx(_double_loop(one + 1e6, other, _median_distance(other)))
    assert 0.5 < far < 2


def test_mmd_is_unbiased() -> None:
    found = [mmd(_normal(8, seed=seed), _normal(12, seed=seed + 1000)) for seed in range(200)]
    assert abs(np.mean(found)) < 3 * np.std(found) / math.sqrt(len(found))


def test_the_interval_resamples_without_pairs_of_twins() -> None:
    one, other = _normal(5, 3), _normal(6, 3, seed=1) + 0.5
    rng = np.random.default_rng(7)
    drawn = [
        [
            np.repeat(np.arange(len(values)), row)
            for row in rng.multinomial(len(values), [1 / len(values)] * len(values), 40)
        ]
        for values in (one, other)
    ]
    width = _median_distance(other)
    found = [_double_loop(one[a], other[b], width, (a, b)) for a, b in zip(*drawn, strict=True)]
    expected = np.quantile(found, [0.05, 0.95])
    assert bootstrap_interval(one, other, confidence=0.9, seed=7, resamples=40) == pytest.approx(expected, rel=1e-9)


def test_the_interval_lies_around_the_estimate() -> None:
    one, other = _normal(8), _normal(30, seed=1) + 0.3
    middle = bootstrap_interval(one, other, confidence=1e-9, resamples=4000)[0]
    lift_by_twins = (1 - math.exp(-0.5)) / 8  # what counting repeated items as pairs would add
    assert abs(middle - mmd(one, other)) < 0.25 * lift_by_twins
    assert bootstrap_interval(one, other, seed=1) == bootstrap_interval(one, other, seed=1)


@pytest.mark.parametrize(("generated", "real"), [(8, 30), (20, 20), (30, 10)])
def test_the_interval_covers_zero_for_draws_of_one_distribution(generated: int, real: int) -> None:
    covered = 0
    for seed in range(60):
        low, high = bootstrap_interval(_normal(generated, seed=seed), _normal(real, seed=1000 + seed), resamples=200)
        covered += low <= 0 <= high
    assert covered >= 57  # 95 %


def test_diversity_is_the_mean_over_pairs() -> None:
    assert diversity(np.array([[0.0, 0], [3, 4], [0, 8]])) == pytest.approx((5 + 5 + 8) / 3)
    assert diversity(np.ones((4, 3))) == 0


def test_copies_are_found_and_new_sounds_are_none() -> None:
    training = _screeches("family", 700)
    rng = np.random.default_rng(0)
    raw = _embedded(training)
    scale = scale_of(raw)
    changes = {
        "gain": lambda x: 0.3 * x,
        "moved": lambda x: np.pad(x, ((0, 0), (777, 2000))),
        "hissing": lambda x: x + (1e-3 * np.abs(x).max() * rng.standard_normal(x.shape)).astype(np.float32),
        "at 44.1 kHz": None,
    }
    for name, change in changes.items():
        if change is None:
            copied = np.stack([timbre_embedding(resample(x, 2 * x.shape[1], axis=1), 2 * RATE) for x in training])
        else:
            copied = _embedded(tuple(change(x) for x in training))
        found = nearest(scale.apply(copied), scale.apply(raw))
        assert [at for at, _ in found.nearest] == list(range(24)), name
        assert found.share >= 0.9, name
    assert nearest(_sets()["same"], _sets()["family"]).share == 0


def test_nearest_is_the_double_loop() -> None:
    one, known = _normal(7, 3), _normal(9, 3, seed=1)
    found = nearest(one, known)
    for item, (at, distance) in zip(one, found.nearest, strict=True):
        distances = [math.dist(item, other) for other in known]
        assert (at, distance) == (int(np.argmin(distances)), pytest.approx(min(distances)))
    usual = np.median([min(math.dist(a, b) for j, b in enumerate(known) if j != i) for i, a in enumerate(known)])
    assert found.usual == pytest.approx(usual)
    assert found.share == np.mean([distance < COPY_SHARE * usual for _, distance in found.nearest])


def test_ranking_follows_its_formula() -> None:
    candidates, family = _normal(12, 3), _normal(20, 3, seed=1)
    left, order = list(range(12)), []
    while left:

        def score(at: int) -> float:
            apart = min((math.dist(candidates[at], candidates[other]) for other in order), default=0.0)
            return 0.3 * apart - float(np.mean([math.dist(candidates[at], member) for member in family]))

        order.append(max(left, key=score))
        left.remove(order[-1])
    assert rank_candidates(candidates, family, difference=0.3) == order


def test_twins_and_strangers_come_late() -> None:
    sets = _sets()
    candidates = np.concatenate([sets["same"][:6], sets["same"][:1], sets["noise"][:2], sets["same"][6:8]])
    order = rank_candidates(candidates, sets["family"])
    assert sorted(order) == list(range(11))
    assert set(order[-2:]) == {7, 8}, "noise last"
    assert max(order.index(0), order.index(6)) > 4, "the second of two equal takes late"
    alike_only = rank_candidates(candidates, sets["family"], difference=0.0)
    assert abs(alike_only.index(0) - alike_only.index(6)) == 1
    assert diversity(candidates[order[:4]]) >= diversity(candidates[alike_only[:4]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mmd(_normal(1), _normal(5)), "1 items are too few"),
        (lambda: bootstrap_interval(_normal(2), _normal(5)), "too small to resample"),
        (lambda: frechet_distance(_normal(5), np.full((5, 10), np.nan)), "finite"),
        (lambda: diversity(_normal(1)), "too few"),
        (lambda: nearest(_normal(3), _normal(1)), "too few"),
        (lambda: scale_of(np.zeros(3)), "items, features"),
        (lambda: rank_candidates(_normal(3), _normal(3), difference=1.0), "below 1"),
    ],
)
def test_sets_that_say_nothing_are_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
