"""Write a Stable Diffusion 1.5 of full size with weights filled by formula: 2.1 GB, no download, the same everywhere.

    python -m benchmarks.random_sd15 /tmp/sd15_random.safetensors

Names, shapes and the formula are those of tests/tiny_sd.py; one tensor is in memory at a time.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from tunesmith.weights.files import write_safetensors

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from tiny_sd import SD15, TINY, Sizes, fill, single_file_shapes


def tensors(sizes: Sizes) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of the single file in float16, one by one."""
    for name, shape in single_file_shapes(sizes).items():
        yield name, fill(name, shape).to(torch.float16)


def write_random_sd15(path: Path, *, tiny: bool = False) -> Path:
    """The base at `path`, unless it is there already."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_safetensors(path, tensors(TINY if tiny else SD15))
    return path


if __name__ == "__main__":
    print(write_random_sd15(Path(sys.argv[1])))  # noqa: T201 - a script's answer
