from __future__ import annotations

import random

import pytest
from PIL import Image

from tunesmith.evaluation.likeness import distance, find_copies, moved_towards, vector
from tunesmith.starters.monsters import draw, random_monster


def pictures(count: int, kind: str) -> list[Image.Image]:
    return [draw(random_monster(random.Random(f"{kind}/{index}"))) for index in range(count)]


def test_distance_is_the_root_mean_square_of_colours() -> None:
    black, grey = Image.new("RGB", (32, 32)), Image.new("RGB", (64, 48), (3, 4, 0))
    assert distance(vector(black), vector(black)) == 0
    assert distance(vector(black), vector(grey)) == pytest.approx((25 / 3) ** 0.5)


def test_copies_are_found_and_new_pictures_are_none() -> None:
    training = pictures(20, "training")
    copied = [training[3].copy(), training[7].resize((32, 32)).resize((64, 64))]
    found = find_copies([*copied, *pictures(6, "new")], training)
    assert [at for at, _ in found.nearest[:2]] == [3, 7]
    assert found.share == pytest.approx(2 / 8)
    assert found.nearest[0][1] == 0
    assert found.usual > 10


def test_one_training_picture_says_nothing() -> None:
    with pytest.raises(ValueError, match="one training picture"):
        find_copies(pictures(2, "new"), pictures(1, "training"))


def test_moved_towards() -> None:
    black, grey, white = (Image.new("RGB", (8, 8), (shade,) * 3) for shade in (0, 100, 255))
    assert moved_towards([white, white], [black, black], [white, grey]) == pytest.approx((255 + 100) / 2)
    assert moved_towards([black], [grey], [white]) == pytest.approx(-155)
