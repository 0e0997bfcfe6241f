"""Bucket sizes, against the counts and pictures that kohya's trainer gives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.buckets import bucket_sizes, bucket_without_upscale, nearest_bucket


@pytest.mark.parametrize(
    ("side", "low", "high", "count"), [(512, 256, 1024, 17), (768, 256, 1024, 19), (1024, 320, 1280, 23)]
)
def test_counts(side, low, high, count):
    sizes = bucket_sizes(side * side, low, high, 64)
    assert len(sizes) == count
    assert (side, side) in sizes
    for width, height in sizes:
        assert (height, width) in sizes
        assert width * height <= side * side
        assert low <= min(width, height) <= max(width, height) <= high
        assert width % 64 == height % 64 == 0


@pytest.mark.parametrize(
    ("picture", "bucket"),
    [((3000, 2000), (640, 384)), ((1000, 1000), (512, 512)), ((10_000, 10), (1024, 256)), ((10, 10_000), (256, 1024))],
)
def test_nearest(picture, bucket):
    assert nearest_bucket(*picture, bucket_sizes(512 * 512, 256, 1024, 64)) == bucket


def test_of_equal_ratios_the_largest():
    assert nearest_bucket(100, 100, [(256, 256), (512, 512), (320, 320)]) == (512, 512)


@pytest.mark.parametrize(
    ("picture", "bucket"),
    [((300, 200), (256, 192)), ((512, 512), (512, 512)), ((1024, 1024), (512, 512)), ((10, 10), (64, 64))],
)
def test_without_upscale(picture, bucket):
    assert bucket_without_upscale(*picture, 512 * 512, 64) == bucket


@given(st.integers(64, 8000), st.integers(64, 8000))
def test_without_upscale_never_enlarges_and_keeps_the_area(width, height):
    got = bucket_without_upscale(width, height, 512 * 512, 64)
    assert got[0] % 64 == got[1] % 64 == 0
    assert got[0] * got[1] <= max(512 * 512 * 1.35, 64 * 8000)
    if width * height <= 512 * 512:
        assert (got[0] <= width, got[1] <= height) == (True, True)
