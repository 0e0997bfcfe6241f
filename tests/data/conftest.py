"""Folders of small pictures for the tests of `data`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

Maker = Callable[..., Path]


@pytest.fixture
def picture(tmp_path: Path) -> Maker:
    """picture("a/b.png", caption="…", colour=(…), size=(w, h)) writes a picture below tmp_path and returns its path."""

    def make(
        name: str, *, caption: str | None = None, colour: tuple[int, int, int] | None = None, size=(8, 8), **options
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if colour is None:  # another one for every name, so that no two pictures are the same by accident
            number = sum(ord(letter) * (at + 1) for at, letter in enumerate(name))
            colour = (number % 251, number // 3 % 241, number // 7 % 239)
        kinds = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".bmp": "BMP", ".gif": "GIF"}
        Image.new("RGB", size, colour).save(path, format=kinds[path.suffix.lower()], **options)
        if caption is not None:
            path.with_suffix(".txt").write_text(caption, encoding="utf-8")
        return path

    return make
