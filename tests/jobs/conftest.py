"""Jobs for tests: a recipe of an engine without knobs, and journals written by the real writer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tunesmith.jobs.folder import JobFolder, create_job
from tunesmith.recipe.schema import OutputSection, Recipe


@dataclass(frozen=True)
class NoKnobs:
    """An engine section without knobs."""


@pytest.fixture
def recipe() -> Recipe:
    return Recipe(engine="none", settings=NoKnobs(), output=OutputSection(name="peter pan"))


@pytest.fixture
def job(tmp_path: Path, recipe: Recipe) -> JobFolder:
    return create_job(tmp_path / "home", "train", recipe)


@pytest.fixture
def ticking() -> Callable[[], float]:
    """A clock that advances one second a call, from a fixed day."""
    now = [1_800_000_000.0]

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    return clock
