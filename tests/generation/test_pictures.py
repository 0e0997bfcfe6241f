"""PNG files remember how they were made, in our words and in everybody's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from tunesmith.engines.protocol import Media
from tunesmith.errors import DataError
from tunesmith.generation.pictures import a1111_parameters, parse_a1111, read_parameters, save_png

FULL: dict[str, Any] = {
    "prompt": "qb_peter reading, rainy day",
    "negative": "blurry, text",
    "seed": 1234,
    "steps": 20,
    "guidance": 7.5,
    "scheduler": "UniPC",
    "width": 64,
    "height": 48,
    "base": "v1-5, pruned",
    "checkpoints": [{"name": "qb_peter", "weight": 0.8}],
}


def _picture() -> Image.Image:
    return Image.new("RGB", (64, 48), (10, 200, 30))


def test_parameters_come_back_exactly(tmp_path: Path) -> None:
    path = save_png(
        Media("image", _picture(), FULL), tmp_path / "deep" / "a.png", {"note": "naïve 日本 🎈", "nothing": None}
    )
    assert read_parameters(path) == {**FULL, "note": "naïve 日本 🎈", "nothing": None}
    with Image.open(path) as image:
        assert image.size == (64, 48)
        assert image.convert("RGB").getpixel((3, 3)) == (10, 200, 30)
    assert [found.name for found in path.parent.iterdir()] == ["a.png"], "nothing half-written is left"


def test_the_text_for_other_tools() -> None:
    """The form as AUTOMATIC1111 documents it: prompt, negative prompt, one line of settings, commas quoted."""
    assert a1111_parameters(FULL) == (
        "qb_peter reading, rainy day <lora:qb_peter:0.8>\n"
        "Negative prompt: blurry, text\n"
        'Steps: 20, Sampler: UniPC, CFG scale: 7.5, Seed: 1234, Model: "v1-5, pruned", Size: 64x48, Version: tunesmith'
    )


def test_the_text_of_other_tools_is_understood(tmp_path: Path) -> None:
    text = (
        "masterpiece, (ruby:1.1)\nsecond line <lora:ruby:0.75>\nNegative prompt: bad hands\n"
        "Steps: 28, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 42, Size: 512x768, Model hash: 6ce0161689, "
        'Model: v1-5, Clip skip: 2, Lora hashes: "ruby: ab12, other: cd34", Version: v1.9.0'
    )
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("parameters", text)
    _picture().save(tmp_path / "theirs.png", pnginfo=chunks)
    assert read_parameters(tmp_path / "theirs.png") == {
        "prompt": "masterpiece, (ruby:1.1)\nsecond line",
        "negative": "bad hands",
        "checkpoints": [{"name": "ruby", "weight": 0.75}],
        "steps": 28,
        "scheduler": "DPM++ 2M Karras",
        "guidance": 7,
        "seed": 42,
        "width": 512,
        "height": 768,
        "base_hash": "6ce0161689",
        "base": "v1-5",
        "clip_skip": 2,
    }


@pytest.mark.parametrize(
    "parameters",
    [
        FULL,
        {"prompt": "", "negative": "only this", "seed": 1, "steps": 2},
        {"prompt": "no settings but these", "negative": "", "seed": 0, "steps": 1, "base_hash": "e5"},
    ],
)
def test_our_text_is_read_back(parameters: dict[str, Any]) -> None:
    found = parse_a1111(a1111_parameters(parameters))
    assert {key: found[key] for key in parameters if key != "base_hash"} == {
        key: value for key, value in parameters.items() if key != "base_hash"
    }


def test_a_bare_prompt_has_no_settings() -> None:
    assert parse_a1111("just a prompt: nothing else") == {"prompt": "just a prompt: nothing else", "negative": ""}


def test_pictures_without_parameters_and_no_pictures(tmp_path: Path) -> None:
    _picture().save(tmp_path / "plain.png")
    assert read_parameters(tmp_path / "plain.png") == {}
    (tmp_path / "text.png").write_text("no picture", encoding="utf-8")
    with pytest.raises(DataError, match=r"text\.png"):
        read_parameters(tmp_path / "text.png")
    with pytest.raises(DataError):
        read_parameters(tmp_path / "missing.png")
    with pytest.raises(DataError, match="no picture"):
        save_png(Media("audio", [0.0], {}), tmp_path / "sound.png")
    assert not (tmp_path / "sound.png").exists()


def test_a_damaged_chunk_is_named(tmp_path: Path) -> None:
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("tunesmith", "{broken")
    _picture().save(tmp_path / "broken.png", pnginfo=chunks)
    with pytest.raises(DataError, match="no JSON"):
        read_parameters(tmp_path / "broken.png")
