"""A command line run in this process, its exit code and what it wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tunesmith.cli.main import main


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """stdout as the one JSON document it must be."""
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The error line; fails unless there is exactly one line of it, and no traceback anywhere."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err + self.out
        return lines[0]


@pytest.fixture
def tunesmith(capfd: pytest.CaptureFixture[str], home: Path) -> Callable[..., Ran]:
    """`tunesmith("jobs", "list")`; the home folder is the test's own."""

    def call(*words: object) -> Ran:
        capfd.readouterr()
        code = main([str(word) for word in words])
        written = capfd.readouterr()
        return Ran(code, written.out, written.err)

    return call


@dataclass(frozen=True)
class Workshop:
    """A folder of captioned pictures, a tiny base, and a recipe over both."""

    folder: Path
    pictures: Path
    base: Path
    recipe: Path


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """Six pictures, two held out, three steps."""
    from PIL import Image

    from tunesmith_test_engines.pictures import write_pictures_base

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for index in range(6):
        colour = (40 * index, 255 - 30 * index, 90)
        Image.new("RGB", (24, 24), colour).save(pictures / f"{index}.png")
        (pictures / f"{index}.txt").write_text(f"qb_peter number {index}")
    base = tmp_path / "base.safetensors"
    write_pictures_base(base)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "engine: test_pictures\n"
        f"data: {{paths: [{pictures}], holdout_fraction: 0.3}}\n"
        f"base: {{path: {base}}}\n"
        "method: {rank: 2}\n"
        "length: {steps: 3, batch_items: 2}\n"
        "output: {name: peter, concepts: {peter: qb_peter}}\n"
        "resources: {threads: 1, disk_reserve_bytes: 0}\n"
    )
    return Workshop(tmp_path, pictures, base, recipe)
