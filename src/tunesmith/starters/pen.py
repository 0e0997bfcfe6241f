"""A pen for pictures measured in units of a 64 by 64 square, x to the right, y down. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]


@dataclass(frozen=True)
class Pen:
    """Draws in units of a 64 by 64 picture, moved to `x`, `y` and scaled by `zoom`; `pixels` per unit."""

    image: Image.Image
    pixels: float
    x: float = 0.0
    y: float = 0.0
    zoom: float = 1.0

    @property
    def canvas(self) -> ImageDraw.ImageDraw:
        """Pillow's pen on the same picture."""
        return ImageDraw.Draw(self.image)

    def on(self, image: Image.Image) -> Pen:
        """The same pen on another picture of that size."""
        return replace(self, image=image)

    def at(self, points: Sequence[Point]) -> list[Point]:
        """Units to pixels."""
        return [((self.x + x * self.zoom) * self.pixels, (self.y + y * self.zoom) * self.pixels) for x, y in points]

    def width(self, units: float) -> int:
        """A line's width in pixels."""
        return max(1, round(units * self.zoom * self.pixels))

    def disc(self, x: float, y: float, rx: float, fill: Colour | int, ry: float | None = None) -> None:
        """A filled ellipse round (x, y)."""
        ry = rx if ry is None else ry
        (left, top), (right, bottom) = self.at([(x - rx, y - ry), (x + rx, y + ry)])
        self.canvas.ellipse((left, top, right, bottom), fill=fill)

    def shape(self, points: Sequence[Point], fill: Colour | int) -> None:
        """A filled polygon."""
        self.canvas.polygon(self.at(points), fill=fill)

    def stroke(self, points: Sequence[Point], width: float, fill: Colour | int) -> None:
        """A line with round joints and ends."""
        self.canvas.line(self.at(points), fill=fill, width=self.width(width), joint="curve")
        for x, y in (points[0], points[-1]):
            self.disc(x, y, width / 2, fill)
