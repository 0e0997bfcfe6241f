"""The tiny Stable Diffusion in every form, and diffusers' own reading of it: written once a session."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import tiny_sd
from tunesmith.engines.protocol import Base
from tunesmith.engines.stable_diffusion import engine
from tunesmith.recipe.schema import BaseSection


@dataclass(frozen=True)
class Tiny:
    """Paths of one tiny base, and the pipeline that diffusers makes of it."""

    single: Path
    checkpoint: Path
    folder: Path
    pipeline: Any

    def open(self, form: str = "single", **section: Any) -> Base:
        return engine.open(BaseSection(path=str(getattr(self, form)), **section))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    root = tmp_path_factory.mktemp("tiny_sd")
    single = tiny_sd.write_single_file(root / "tiny.safetensors")
    pipeline = tiny_sd.diffusers_pipeline(single, root / "configs")
    # diffusers leaves parameters wherever they lie in the mapped file; kernels round differently on unaligned memory.
    for module in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        for parameter in module.parameters():
            parameter.data = parameter.data.clone()
    folder = root / "tiny"
    pipeline.save_pretrained(str(folder))
    pipeline.set_progress_bar_config(disable=True)
    return Tiny(single, tiny_sd.write_checkpoint(root / "tiny.ckpt"), folder, pipeline)
