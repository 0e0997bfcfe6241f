"""The checker reads drawn monsters, and does not agree with other captions."""

from __future__ import annotations

import random
from dataclasses import replace
from statistics import fmean

import pytest
from PIL import Image, ImageFilter

from tunesmith.starters.checker import POSITION_TOLERANCE_PIXELS, agrees, position_error, read
from tunesmith.starters.monster_art import FEET_Y, POSITIONS, stand
from tunesmith.starters.monsters import Monster, draw, new_character, random_monster

LOOKS = ("body", "colour", "place", "pose", "position")


def monsters(count: int, kind: str = "checker") -> list[Monster]:
    return [random_monster(random.Random(f"{kind}/{index}")) for index in range(count)]


@pytest.mark.long
def test_five_hundred_drawn_pictures() -> None:
    drawn = monsters(500)
    readings = [read(draw(monster)) for monster in drawn]
    right = [agrees(reading, monster) for reading, monster in zip(readings, drawn, strict=True)]
    shares = {name: fmean(row[name] for row in right) for name in LOOKS}
    others = [agrees(reading, monster) for reading, monster in zip(readings, drawn[1:] + drawn[:1], strict=True)]
    mismatched = fmean(all(row.values()) for row in others)
    assert min(shares.values()) >= 0.98, shares
    assert mismatched <= 0.02, mismatched


def test_drawn_pictures_are_read() -> None:
    drawn = monsters(60)
    right = [agrees(read(draw(monster)), monster) for monster in drawn]
    assert min(fmean(row[name] for row in right) for name in LOOKS) >= 0.95


def test_another_captions_words_are_not_seen() -> None:
    drawn = monsters(60)
    for name in ("colour", "place"):
        readings = [(read(draw(monster)), monster) for monster in drawn[:20]]
        for reading, monster in readings:
            other = next(one for one in drawn if getattr(one, name) != getattr(monster, name))
            assert not agrees(reading, other)[name]


def test_blurred_pictures_are_still_read() -> None:
    """As an autoencoder of 30 dB gives them back."""
    drawn = monsters(30, "blurred")
    right = [agrees(read(draw(monster).filter(ImageFilter.GaussianBlur(0.6))), monster) for monster in drawn]
    assert min(fmean(row[name] for row in right) for name in LOOKS) >= 0.85


def test_where_it_stands_is_measured() -> None:
    for monster in monsters(20, "stand"):
        reading = read(draw(monster))
        x, y, _ = stand(monster.position, monster.scenery)
        assert abs(reading.x - x) <= 2.5
        assert abs(reading.y - y) <= 2.5
        right, down = POSITIONS[monster.position]
        moved = replace(reading, x=32 + right + 3.0, y=FEET_Y + down + 4.0)
        assert position_error(moved, monster.position) == pytest.approx(5.0)
        far = replace(reading, x=32 + right + POSITION_TOLERANCE_PIXELS + 1)
        assert not agrees(far, monster)["position"]


@pytest.mark.parametrize("seed", range(4))
def test_a_character_is_known_and_nobody_else_is(seed: int) -> None:
    character = new_character(seed)
    there = [replace(monster, character=character) for monster in monsters(15, f"character/{seed}")]
    readings = [read(draw(monster), character) for monster in there]
    assert fmean(bool(one.character) for one in readings) >= 0.9
    assert fmean(agrees(one, monster)["pose"] for one, monster in zip(readings, there, strict=True)) >= 0.8
    others = [read(draw(monster), character) for monster in monsters(15, f"others/{seed}")]
    assert not any(one.character for one in others)
    stranger = next(one for one in map(new_character, range(50, 90)) if set(one.colours) != set(character.colours))
    strangers = [replace(monster, character=stranger) for monster in there]
    assert fmean(bool(read(draw(one), character).character) for one in strangers) <= 0.2


def test_an_empty_picture_is_read_without_failing() -> None:
    assert read(Image.new("RGB", (64, 64))).body
    assert read(Image.new("RGB", (64, 64), "white"), new_character(0)).character is False
