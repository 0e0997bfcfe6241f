"""One folder with bases and items for all training tests of a process; the encoded cache fills as they go."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from training_run import write_world


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Tests that change the thread count leave it as it was for the next one."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bases, items and the cache."""
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return folder
