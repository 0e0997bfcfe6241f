from __future__ import annotations

import random

import numpy as np

from tunesmith.starters.textures import random_texture


def test_textures_are_functions_of_their_seed_and_differ() -> None:
    made = [random_texture(random.Random(seed)) for seed in range(40)]
    assert all((one.size, one.mode) == ((64, 64), "RGB") for one in made)
    again = [random_texture(random.Random(seed)) for seed in range(40)]
    assert [one.tobytes() for one in made] == [one.tobytes() for one in again]
    assert len({one.tobytes() for one in made}) == 40


def test_textures_have_colours_from_everywhere() -> None:
    pixels = np.concatenate([np.asarray(random_texture(random.Random(seed))).reshape(-1, 3) for seed in range(200)])
    for channel in range(3):
        counts, _ = np.histogram(pixels[:, channel], bins=8, range=(0, 256))
        assert counts.min() > 0.02 * len(pixels)
