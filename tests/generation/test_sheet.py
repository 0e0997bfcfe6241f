"""Contact sheets hold every picture unharmed, in its place."""

from __future__ import annotations

import pytest
from PIL import Image

from tunesmith.generation.sheet import BACKGROUND, GAP, SMALLEST_CELL, contact_sheet

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]


def _squares(side: int) -> list[Image.Image]:
    return [Image.new("RGB", (side, side), colour) for colour in COLOURS]


def _count(sheet: Image.Image, colour: tuple[int, int, int]) -> int:
    return sum(count for count, found in sheet.getcolors(1 << 24) if found == colour)


@pytest.mark.parametrize(("side", "scale"), [(16, 8), (64, 2), (128, 1), (200, 1)])
def test_every_picture_is_there_whole(side: int, scale: int) -> None:
    one, two, three, four = _squares(side)
    sheet = contact_sheet([[one, two], [three, four]], ["base", "adapter"], ["seed 1", "seed 2"])
    for colour in COLOURS:
        assert _count(sheet, colour) == (side * scale) ** 2, "enlarged by whole pixels, cut nowhere"
    assert side * scale >= SMALLEST_CELL
    cell = side * scale
    left, top = sheet.width - 2 * (cell + GAP), sheet.height - 2 * (cell + GAP)
    centres = [
        (left + x * (cell + GAP) + cell // 2, top + y * (cell + GAP) + cell // 2) for y in (0, 1) for x in (0, 1)
    ]
    assert [sheet.getpixel(centre) for centre in centres] == COLOURS


def test_without_labels_there_is_no_room_for_them() -> None:
    sheet = contact_sheet([_squares(128)])
    assert sheet.size == (GAP + 4 * (128 + GAP), GAP + 128 + GAP)


def test_labels_are_drawn_and_wrapped() -> None:
    words = "a very long label that cannot fit on one line of a cell and goes on and on and on until it must be cut off"
    bare = contact_sheet([_squares(128)])
    labelled = contact_sheet([_squares(128)], column_labels=[words, "short", "x" * 300, "Ünïcödé жук"])
    assert labelled.height > bare.height
    strip = labelled.crop((0, 0, labelled.width, labelled.height - 128 - 2 * GAP))
    for column in range(4):
        x = GAP + column * (128 + GAP)
        drawn = strip.crop((x, 0, x + 128, strip.height))
        assert len(drawn.getcolors(1 << 20)) > 2, "ink in every label's own column"
        gap = strip.crop((x + 128, 0, x + 128 + GAP, strip.height))
        assert [colour for _, colour in gap.getcolors()] == [BACKGROUND], "and none between them"


def test_blanks_and_mixed_sizes() -> None:
    tall, wide = Image.new("RGB", (100, 200), COLOURS[0]), Image.new("RGBA", (200, 100), (*COLOURS[1], 255))
    sheet = contact_sheet([[tall, None, wide], [wide]], ["one", "two"])
    assert _count(sheet, COLOURS[0]) == 20_000
    assert _count(sheet, COLOURS[1]) == 40_000


@pytest.mark.parametrize(
    ("rows", "row_labels", "column_labels", "message"),
    [
        ([], [], [], "at least one"),
        ([[None]], [], [], "at least one"),
        ([_squares(8)], ["a", "b"], [], "2 row labels for 1 rows"),
        ([_squares(8)], [], ["a"], "1 column labels for 4 columns"),
    ],
)
def test_wrong_shapes_are_refused(rows: list, row_labels: list, column_labels: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        contact_sheet(rows, row_labels, column_labels)
