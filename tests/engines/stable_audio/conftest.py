"""The tiny Stable Audio in both forms, and diffusers' own reading of it: written once a session."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import tiny_audio
from tunesmith.engines.protocol import Base
from tunesmith.engines.stable_audio import engine
from tunesmith.recipe.schema import BaseSection


@dataclass(frozen=True)
class Tiny:
    """Paths of one tiny base, and diffusers' pipeline of it."""

    folder: Path
    original: Path
    pipeline: Any

    def open(self, form: str = "folder", **section: Any) -> Base:
        return engine.open(BaseSection(path=str(getattr(self, form)), **section))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    root = tmp_path_factory.mktemp("tiny_audio")
    pipeline = tiny_audio.pipeline()
    pipeline.set_progress_bar_config(disable=True)
    folder = tiny_audio.write_folder(root / "folder")
    return Tiny(folder, tiny_audio.write_original(root / "original"), pipeline)
