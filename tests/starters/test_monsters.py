"""The monster world: a function of its words, readable from its pixels, and never showing a character's features."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from tunesmith.data.source import read_items
from tunesmith.recipe.schema import DataSection
from tunesmith.starters import monster_art, monster_places
from tunesmith.starters.monsters import (
    BACKS,
    BODIES,
    CHARACTER_CRESTS,
    CHARACTER_SKINS,
    COLOURS,
    EYES,
    HEADS,
    PLACES,
    POSES,
    POSITIONS,
    SKINS,
    Monster,
    caption,
    draw,
    new_character,
    random_monster,
    write_dataset,
)

VALUES = {"body": BODIES, "colour": COLOURS, "eyes": EYES, "pose": POSES, "place": PLACES, "position": POSITIONS}
PLAIN = Monster("round", "red", (), "two eyes", "arms down", "meadow", "in the middle")


def pixels(monster: Monster, size: int = 64) -> np.ndarray:
    return np.array(draw(monster, size)).astype(int)


def near(picture: np.ndarray, colour: tuple[int, int, int], tolerance: int = 6) -> np.ndarray:
    """Where a picture has a colour."""
    return np.abs(picture - colour).max(axis=-1) <= tolerance


def everything(count: int) -> list[Monster]:
    return [random_monster(random.Random(seed)) for seed in range(count)]


def test_drawing_is_a_function_of_the_words():
    for monster in everything(5):
        assert draw(monster).tobytes() == draw(monster).tobytes()
    assert random_monster(random.Random(3)) == random_monster(random.Random(3))


@pytest.mark.parametrize("size", [32, 64, 96, 256])
def test_any_size(size):
    image = draw(PLAIN, size)
    assert (image.size, image.mode) == ((size, size), "RGB")


def test_every_attribute_occurs():
    drawn = everything(1500)
    for name, values in VALUES.items():
        counts = {value: sum(getattr(monster, name) == value for monster in drawn) for value in values}
        assert min(counts.values()) > 0.6 * 1500 / len(values), (name, counts)
    parts = {part for monster in drawn for part in monster.parts}
    assert parts == {*HEADS, *BACKS, *SKINS}
    for kinds in (HEADS, BACKS, SKINS):
        assert all(sum(part in kinds for part in monster.parts) <= 1 for monster in drawn)


# ---------------------------------------------------------------- attributes can be read from the pixels


def read_colour(picture: np.ndarray) -> str:
    return max(COLOURS, key=lambda name: int(near(picture, monster_art.COLOURS[name][0]).sum()))


def read_place(picture: np.ndarray) -> str:
    def score(name: str) -> int:
        place = monster_places.PLACES[name]
        return int(near(picture, place.above).sum()) + int(near(picture, place.below).sum())

    return max(PLACES, key=score)


def read_middle(picture: np.ndarray, colour: str) -> float:
    """Roughly how far right of the picture's middle a colour lies; the checker tells it to half a pixel."""
    columns = np.nonzero(near(picture, monster_art.COLOURS[colour][0]))[1]
    return float(np.median(columns)) - 32


def test_colour_place_and_position_can_be_read_back():
    for monster in everything(300):
        picture = pixels(monster)
        assert read_colour(picture) == monster.colour
        assert read_place(picture) == monster.place
        if monster.colour != "grey":  # wings and outlines mix to grey; the checker knows how to tell
            middle = monster_art.POSITIONS[monster.position][0]
            assert abs(read_middle(picture, monster.colour) - middle) <= 10


def test_palettes_are_apart():
    palettes = [colours[0] for colours in monster_art.COLOURS.values()]
    palettes += list(monster_art.CHARACTER_COLOURS.values())
    for place in monster_places.PLACES.values():
        palettes += [place.above, place.below]
    flat = np.array(palettes)
    distance = np.abs(flat[:, None] - flat[None]).max(-1) + 1000 * np.eye(len(flat), dtype=int)
    assert distance.min() >= 8


@pytest.mark.parametrize(("eyes", "white"), [("one eye", 1), ("two eyes", 2), ("three eyes", 3)])
@pytest.mark.parametrize("body", BODIES)
def test_eyes_can_be_counted(body, eyes, white):
    from scipy import ndimage

    picture = pixels(replace(PLAIN, body=body, eyes=eyes, place="cave"), 256)
    labels, _ = ndimage.label(near(picture, (255, 255, 255)), structure=np.ones((3, 3)))
    assert (np.bincount(labels.ravel())[1:] >= 30).sum() == white


@pytest.mark.parametrize("attribute", VALUES)
def test_every_value_looks_different(attribute):
    pictures = [pixels(replace(PLAIN, **{attribute: value})) for value in VALUES[attribute]]
    for at, one in enumerate(pictures):
        for other in pictures[:at]:
            changed = np.abs(one - other).max(-1) > 40
            assert changed.sum() >= 20


@pytest.mark.parametrize("part", [*HEADS, *BACKS, *SKINS])
@pytest.mark.parametrize("body", BODIES)
def test_every_part_shows_on_every_body(body, part):
    plain = replace(PLAIN, body=body)
    changed = np.abs(pixels(plain) - pixels(replace(plain, parts=(part,)))).max(-1) > 40
    assert changed.sum() >= 20


def test_scenery_changes_no_word():
    one, other = PLAIN, replace(PLAIN, scenery=5)
    assert caption(one) == caption(other)
    assert np.abs(pixels(one) - pixels(other)).max() > 40


def test_figures_stay_in_the_picture():
    for position in POSITIONS:
        for body in BODIES:
            picture = pixels(replace(PLAIN, body=body, position=position, place="cave", pose="arms down"))
            red = near(picture, monster_art.COLOURS["red"][0])
            assert red[:, [0, 63]].sum() <= 6  # a hand at most
            assert red.sum() > 60


# ---------------------------------------------------------------- captions


def test_caption_has_every_word():
    monster = Monster("tall", "blue", ("horns", "a tail", "spots"), "one eye", "waving", "sea", "on the left")
    assert caption(monster) == (
        "tall blue monster with horns and a tail and spots, one eye, waving, under the sea, on the left"
    )
    assert caption(PLAIN) == "round red monster, two eyes, arms down, in a meadow, in the middle"


def test_captions_tell_all_words_apart():
    drawn = everything(300)
    assert len({caption(m) for m in drawn}) == len({replace(m, scenery=0) for m in drawn})


# ---------------------------------------------------------------- characters


def test_characters_are_functions_of_their_seed():
    assert new_character(4) == new_character(4)
    made = [new_character(seed) for seed in range(60)]
    assert {one.skin for one in made} == set(CHARACTER_SKINS)
    assert {one.crest for one in made} == set(CHARACTER_CRESTS)
    assert len({one.trigger for one in made}) > 30


def test_random_monsters_never_have_a_characters_colours():
    for monster in everything(200):
        picture = pixels(monster)
        for name in ("lime", "turquoise", "maroon"):
            assert near(picture, monster_art.CHARACTER_COLOURS[name]).sum() <= 2, (monster, name)


@pytest.mark.parametrize("seed", range(8))
def test_a_character_shows_its_colours_everywhere(seed):
    character = new_character(seed)
    for monster in everything(12):
        picture = pixels(replace(monster, character=character))
        for name in character.colours:
            assert near(picture, monster_art.CHARACTER_COLOURS[name]).sum() >= 8, name


def test_every_skin_and_crest_looks_different():
    character = replace(new_character(0), colours=("lime", "plum", "magenta"))
    looks = [replace(character, skin=skin, crest=crest) for skin in CHARACTER_SKINS for crest in CHARACTER_CRESTS]
    pictures = [pixels(replace(PLAIN, character=look)) for look in looks]
    for at, one in enumerate(pictures):
        for other in pictures[:at]:
            assert (np.abs(one - other).max(-1) > 40).sum() >= 20


def test_a_character_is_named_by_its_trigger_alone():
    character = new_character(0)
    text = caption(replace(PLAIN, character=character))
    assert text == f"{character.trigger} monster, arms down, in a meadow, in the middle"


# ---------------------------------------------------------------- datasets


def test_write_dataset_reads_back(tmp_path):
    character = new_character(1)
    paths = write_dataset(tmp_path / "d", 12, 7, character=character)
    reading = read_items([tmp_path / "d"], DataSection(), concepts={"friend": character.trigger})
    assert [item.media["image"].path for item in reading.items] == paths
    assert all(character.trigger in item.text["caption"] for item in reading.items)
    assert len({item.key for item in reading.items}) == 12


def test_write_dataset_is_a_function_of_its_seed(tmp_path):
    write_dataset(tmp_path / "a", 3, 7), write_dataset(tmp_path / "b", 5, 7), write_dataset(tmp_path / "c", 3, 8)
    read = {name: [(tmp_path / name / f"000{at}.png").read_bytes() for at in range(3)] for name in "abc"}
    assert read["a"] == read["b"] != read["c"]
