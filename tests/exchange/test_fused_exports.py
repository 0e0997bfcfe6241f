"""Exports that keep layers fused: members with factors of their own come back as they went in."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from small_adapters import adapter_for
from tiny_audio import write_folder
from tunesmith.adapters.adapter import Adapter
from tunesmith.engines.protocol import Base
from tunesmith.engines.stable_audio import engine
from tunesmith.engines.stable_audio.layouts import adapter_layers
from tunesmith.engines.stable_audio.shapes import tensor_shapes
from tunesmith.errors import ExchangeError
from tunesmith.exchange.export import export_adapter
from tunesmith.exchange.verify import verify_adapter
from tunesmith.recipe.schema import BaseSection

STEM = "diffusion_model.transformer.layers.0.self_attn.to_qkv"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return engine.open(BaseSection(path=str(write_folder(tmp_path_factory.mktemp("bases") / "tiny"))))


def made(base: Base) -> Adapter:
    shapes = tensor_shapes("denoiser", base.architecture["denoiser"])
    layers = adapter_layers(base.architecture["denoiser"])
    return adapter_for({("denoiser", layer): shapes[f"{layer}.weight"] for layer in layers})


@pytest.mark.parametrize("layout", ["comfy", "kohya"])
@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
def test_members_with_factors_of_their_own_come_back(base: Base, tmp_path: Path, layout: str, dtype: str) -> None:
    path = tmp_path / "ghoul.safetensors"
    done = export_adapter(made(base), path, engine=engine, base=base, layout=layout, dtype=dtype)
    assert done.verification.matched == 20


def test_a_number_outside_its_own_block_is_found(base: Base, tmp_path: Path) -> None:
    adapter, path = made(base), tmp_path / "ghoul.safetensors"
    export_adapter(adapter, path, engine=engine, base=base, layout="comfy", dtype="fp32")
    tensors = load_file(path)
    tensors[f"{STEM}.lora_B.weight"][0, -1] = 0.01  # the values' column, in the queries' rows
    save_file(tensors, path)
    with pytest.raises(ExchangeError, match="came back"):
        verify_adapter(path, engine, base=base, adapter=adapter)
