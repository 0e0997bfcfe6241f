"""What is no sound is refused; levels and streams are what they say."""

from __future__ import annotations

import numpy as np
import pytest

from tunesmith.errors import DataError, NonFinite
from tunesmith.generation.sound.samples import (
    amplitude,
    blocks,
    check_sound,
    decibels,
    mean_square,
    peak,
    random_stream,
)


@pytest.mark.parametrize(
    ("shape", "rate", "message"),
    [
        ((100,), 44100, "shape"),
        ((0, 100), 44100, "shape"),
        ((3, 100), 44100, "shape"),
        ((1, 0), 44100, "shape"),
        ((1, 10), 7_999, "8000 to 192000"),
        ((1, 10), 192_001, "8000 to 192000"),
    ],
)
def test_wrong_shapes_and_rates_are_refused(shape: tuple[int, ...], rate: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_sound(np.zeros(shape, dtype=np.float32), rate)


def test_wrong_scales_and_types_are_refused() -> None:
    with pytest.raises(DataError, match="int16"):
        check_sound(np.zeros((1, 10), dtype=np.int16), 44100)
    with pytest.raises(DataError, match="peaks at 32767"):
        check_sound(np.full((1, 10), 32767.0), 44100)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_counted(wrong: float) -> None:
    samples = np.zeros((2, 1000))
    samples[1, 3:5] = wrong
    with pytest.raises(NonFinite, match="2 of a sound's 2,000 samples"):
        check_sound(samples, 44100)


def test_doubles_become_floats() -> None:
    sound = check_sound(np.full((2, 5), 0.25), 8000)
    assert sound.dtype == np.float32
    assert (sound == 0.25).all()


def test_levels() -> None:
    samples = np.array([[0.5, -1.0], [0.0, 0.5]], dtype=np.float32)
    assert peak(samples) == 1.0
    assert mean_square(samples) == pytest.approx((0.25 + 1 + 0 + 0.25) / 4)
    assert decibels(0.1) == -20.0
    assert decibels(0.0) is None
    assert amplitude(-6.0) == pytest.approx(0.501187)


def test_blocks_cover_the_length_once() -> None:
    found = [index for part in blocks(10, 4) for index in range(10)[part]]
    assert found == list(range(10))


def test_streams_depend_on_seed_and_purpose() -> None:
    draws = {random_stream(seed, purpose).random() for seed in (0, 1, 2**62) for purpose in ("a", "b")}
    assert len(draws) == 6
    assert random_stream(1, "a").random() == random_stream(1, "a").random()
