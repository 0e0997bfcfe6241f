"""Contact sheets: pictures in rows and columns with labels, small ones enlarged without blur."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

BACKGROUND, INK, FRAME = (250, 250, 252), (32, 34, 44), (214, 216, 226)
GAP = 8
FONT_SIZE = 13
LABEL_LINES = 4
ROW_LABEL_WIDTH = 150
SMALLEST_CELL = 128  # pictures of a tiny base would be too small to see

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class _Grid:
    left: int  # where the first column starts
    top: int  # where the first row starts
    cell: tuple[int, int]
    scale: int


def contact_sheet(
    rows: Sequence[Sequence[Image.Image | None]],
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
) -> Image.Image:
    """One RGB picture of all. Cells are as large as the largest picture; None and short rows leave blanks.

    Raises ValueError for no pictures, or labels that do not match the rows or columns.
    """
    pictures = [picture for row in rows for picture in row if picture is not None]
    if not pictures:
        raise ValueError("a contact sheet needs at least one picture")
    columns = max(len(row) for row in rows)
    if row_labels and len(row_labels) != len(rows):
        raise ValueError(f"{len(row_labels)} row labels for {len(rows)} rows")
    if column_labels and len(column_labels) != columns:
        raise ValueError(f"{len(column_labels)} column labels for {columns} columns")
    font = label_font()
    grid = _lay_out(pictures, font, row_labels, column_labels)
    width = grid.left + columns * (grid.cell[0] + GAP)
    height = grid.top + len(rows) * (grid.cell[1] + GAP)
    sheet = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for at, label in enumerate(column_labels):
        place = (grid.left + at * (grid.cell[0] + GAP), GAP)
        draw.multiline_text(place, _wrapped(label, grid.cell[0], font), INK, font)
    for at, row in enumerate(rows):
        y = grid.top + at * (grid.cell[1] + GAP)
        if row_labels:
            draw.multiline_text((GAP, y), _wrapped(row_labels[at], ROW_LABEL_WIDTH, font), INK, font)
        for column, picture in enumerate(row):
            if picture is not None:
                _paste(sheet, picture, (grid.left + column * (grid.cell[0] + GAP), y), grid)
    return sheet


def _lay_out(
    pictures: Sequence[Image.Image], font: Font, row_labels: Sequence[str], column_labels: Sequence[str]
) -> _Grid:
    width, height = max(p.width for p in pictures), max(p.height for p in pictures)
    scale = max(1, math.ceil(SMALLEST_CELL / max(width, height)))
    cell = (width * scale, height * scale)
    lines = max((_wrapped(label, cell[0], font).count("\n") + 1 for label in column_labels), default=0)
    return _Grid(
        left=GAP + (ROW_LABEL_WIDTH + GAP if row_labels else 0),
        top=GAP + (lines * (FONT_SIZE + 4) + GAP if column_labels else 0),
        cell=cell,
        scale=scale,
    )


def _paste(sheet: Image.Image, picture: Image.Image, place: tuple[int, int], grid: _Grid) -> None:
    size = (picture.width * grid.scale, picture.height * grid.scale)
    larger = picture.convert("RGB").resize(size, Image.Resampling.NEAREST) if grid.scale > 1 else picture.convert("RGB")
    x = place[0] + (grid.cell[0] - size[0]) // 2
    y = place[1] + (grid.cell[1] - size[1]) // 2
    ImageDraw.Draw(sheet).rectangle((x - 1, y - 1, x + size[0], y + size[1]), outline=FRAME)
    sheet.paste(larger, (x, y))


def _wrapped(text: str, width: int, font: Font) -> str:
    """`text` in lines of at most `width` pixels and LABEL_LINES lines, cut with an ellipsis."""
    lines: list[str] = []
    for word in text.split():
        for piece in _pieces(word, width, font):
            longer = f"{lines[-1]} {piece}" if lines else piece
            if lines and font.getlength(longer) <= width:
                lines[-1] = longer
            else:
                lines.append(piece)
    if len(lines) > LABEL_LINES:
        last = lines[LABEL_LINES - 1].rstrip(" ,.")
        while font.getlength(f"{last}…") > width:
            last = last[:-1]
        lines = [*lines[: LABEL_LINES - 1], f"{last}…"]
    return "\n".join(lines)


def _pieces(word: str, width: int, font: Font) -> list[str]:
    """A word too long for a line, cut where it must be."""
    pieces = [""]
    for letter in word:
        if pieces[-1] and font.getlength(pieces[-1] + letter) > width:
            pieces.append("")
        pieces[-1] += letter
    return pieces


@cache
def label_font() -> Font:
    """DejaVu Sans, which matplotlib ships: Latin, Greek and Cyrillic on every machine."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", FONT_SIZE)
