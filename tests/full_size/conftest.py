"""A Stable Diffusion 1.5 of full size, filled by formula: 2.1 GB, written once for all tests of this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from photographs import write_photographs
from tiny_sd import SD15, fill, single_file_shapes


@pytest.fixture(scope="session")
def full_size_base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The base as one float16 file. TUNESMITH_TEST_BASE names a copy from an earlier run, to save the two minutes."""
    from tunesmith.weights.files import write_safetensors

    kept = os.environ.get("TUNESMITH_TEST_BASE")
    if kept:
        yield Path(kept)
        return
    path = tmp_path_factory.mktemp("base") / "random_sd15.safetensors"
    write_safetensors(path, ((name, fill(name, shape).half()) for name, shape in single_file_shapes(SD15).items()))
    yield path
    path.unlink()


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photographs with captions."""
    folder = tmp_path_factory.mktemp("photographs")
    write_photographs(folder)
    return folder
