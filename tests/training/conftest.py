"""One folder with bases and items for all training tests of a process; the encoded cache fills as they go."""

from __future__ import annotations

from pathlib import Path

import pytest

from training_run import write_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bases, items and the cache."""
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return folder
