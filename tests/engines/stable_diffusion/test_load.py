"""Loaded modules against those diffusers loads from the same file: the same bits in, the same bits out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tunesmith.engines.stable_diffusion import engine
from tunesmith.engines.stable_diffusion.architecture import ROLES, named_architecture
from tunesmith.engines.stable_diffusion.load import canonical_tensors, create_part, part_module
from tunesmith.errors import WeightsError
from tunesmith.recipe.schema import BaseSection

CPU = torch.device("cpu")
REFERENCE = {"denoiser": "unet", "autoencoder": "vae", "text_encoder": "text_encoder"}


@pytest.mark.parametrize("form", ["single", "checkpoint", "folder"])
@pytest.mark.parametrize("role", ROLES)
def test_weights_are_those_diffusers_loads(tiny: Any, form: str, role: str) -> None:
    module = part_module(tiny.open(form), role, CPU, torch.float32)
    reference = getattr(tiny.pipeline, REFERENCE[role])
    ours, theirs = module.state_dict(), reference.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert not any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers()))


@pytest.mark.parametrize("form", ["single", "checkpoint", "folder"])
def test_outputs_are_those_of_diffusers(tiny: Any, form: str) -> None:
    base = tiny.open(form)
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 4, 16, 16, generator=generator)
    states = torch.randn(1, 77, 32, generator=generator)
    picture = torch.rand(1, 3, 32, 32, generator=generator) * 2 - 1
    ids = torch.tensor([[49406, 320, 2368, *[49407] * 74]])
    unet, vae, text = (part_module(base, role, CPU, torch.float32) for role in ROLES)
    with torch.no_grad():
        pairs = [
            (unet(latents, 300, states).sample, tiny.pipeline.unet(latents, 300, states).sample),
            (vae.encode(picture).latent_dist.parameters, tiny.pipeline.vae.encode(picture).latent_dist.parameters),
            (vae.decode(latents).sample, tiny.pipeline.vae.decode(latents).sample),
            (text(input_ids=ids).last_hidden_state, tiny.pipeline.text_encoder(input_ids=ids).last_hidden_state),
        ]
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_come_in_the_dtype_asked_for(tiny: Any, dtype: torch.dtype) -> None:
    module = part_module(tiny.open(), "denoiser", CPU, dtype)
    reference = tiny.pipeline.unet.state_dict()
    for name, tensor in module.state_dict().items():
        assert tensor.dtype == dtype
        assert torch.equal(tensor, reference[name].to(dtype))


def test_an_old_autoencoder_folder_is_read(tiny: Any, tmp_path: Path) -> None:
    """The published SD 1.5 folder names its attention query, key, value, proj_attn."""
    source = tiny.folder / "vae"
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = {}
    for name, tensor in load_file(source / "diffusion_pytorch_model.safetensors").items():
        for new, old in names.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{old}.")
        tensors[name] = tensor
    folder = tmp_path / "vae"
    folder.mkdir()
    (folder / "config.json").write_text((source / "config.json").read_text())
    save_file(tensors, str(folder / "diffusion_pytorch_model.safetensors"))
    base = tiny.open(parts={"autoencoder": str(folder)})
    ours = part_module(base, "autoencoder", CPU, torch.float32).state_dict()
    assert all(torch.equal(ours[name], tensor) for name, tensor in tiny.pipeline.vae.state_dict().items())


def test_a_text_encoder_folder_with_the_old_prefix(tiny: Any, tmp_path: Path) -> None:
    source = tiny.folder / "text_encoder"
    folder = tmp_path / "text_encoder"
    folder.mkdir()
    (folder / "config.json").write_text((source / "config.json").read_text())
    tensors = {f"text_model.{name}": tensor for name, tensor in load_file(source / "model.safetensors").items()}
    save_file(tensors, str(folder / "model.safetensors"))
    base = tiny.open(parts={"text_encoder": str(folder)})
    ours = part_module(base, "text_encoder", CPU, torch.float32).state_dict()
    assert all(torch.equal(ours[name], tensor) for name, tensor in tiny.pipeline.text_encoder.state_dict().items())


@pytest.mark.parametrize("role", ROLES)
def test_creation_is_a_function_of_the_seed(role: str) -> None:
    sizes = named_architecture("tiny32")[role]
    before = torch.random.get_rng_state()
    first, again, other = (create_part(role, sizes, seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[name], tensor) for name, tensor in again.items())
    assert any(not torch.equal(first[name], tensor) for name, tensor in other.items())
    assert all(torch.isfinite(tensor).all() for tensor in first.values())


def test_a_new_denoiser_predicts_zero() -> None:
    unet = create_part("denoiser", named_architecture("tiny32")["denoiser"], 0)
    with torch.no_grad():
        assert unet(torch.randn(1, 4, 16, 16), 5, torch.randn(1, 77, 32)).sample.abs().max() == 0


def test_a_part_without_weights_says_what_to_do() -> None:
    base = engine.open(BaseSection(architecture="tiny32"))
    with pytest.raises(WeightsError, match=r"base\.parts\.denoiser"):
        part_module(base, "denoiser", CPU, torch.float32)


def test_canonical_tensors_round_trip(tiny: Any) -> None:
    base = tiny.open()
    for role in ROLES:
        ours = canonical_tensors(role, part_module(base, role, CPU, torch.float32))
        file = dict(engine.tensors(base, role))
        assert ours.keys() == file.keys()
        assert all(torch.equal(ours[name], tensor) for name, tensor in file.items())


def test_heads_that_leave_no_trace_are_taken_from_the_config(tiny: Any, tmp_path: Path) -> None:
    folder = tmp_path / "text_encoder"
    folder.mkdir()
    document = json.loads((tiny.folder / "text_encoder" / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**document, "num_attention_heads": 4}))
    (folder / "model.safetensors").write_bytes((tiny.folder / "text_encoder" / "model.safetensors").read_bytes())
    base = tiny.open(parts={"text_encoder": str(folder)})
    assert part_module(base, "text_encoder", CPU, torch.float32).config.num_attention_heads == 4
