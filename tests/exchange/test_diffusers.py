"""Stable Diffusion adapters in the hands of other tools: diffusers itself, and the web UI's key rule.

The reference is a merge by hand in the original single file, opened by diffusers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from small_adapters import diffusion_adapter
from tiny_sd import SD15, diffusers_pipeline, single_file_shapes, write_single_file
from tunesmith.adapters.adapter import Adapter, delta
from tunesmith.adapters.describe import describe_adapter
from tunesmith.adapters.files import write_adapter
from tunesmith.engines.protocol import Base
from tunesmith.engines.stable_diffusion import engine
from tunesmith.exchange.export import export_adapter
from tunesmith.exchange.merge import merge_adapters
from tunesmith.recipe.schema import BaseSection
from tunesmith.weights.files import edit_metadata
from tunesmith.weights.hashes import tensor_hash

IDS = torch.tensor([[49406, 320, 1125, 539, 320, 2368, *[49407] * 71]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base as one file, and what diffusers needs to read it."""
    place = tmp_path_factory.mktemp("diffusion")
    write_single_file(place / "tiny.safetensors")
    return place


@pytest.fixture(scope="module")
def base(folder: Path) -> Base:
    """The tiny base, opened."""
    return engine.open(BaseSection(path=str(folder / "tiny.safetensors")))


def pipeline(folder: Path, file: Path | None = None) -> Any:
    """diffusers' own pipeline of a single file."""
    return diffusers_pipeline(file or folder / "tiny.safetensors", folder / "configs")


@torch.no_grad()
def outputs(pipe: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """(text states, noise prediction) on fixed input."""
    states = pipe.text_encoder(IDS).last_hidden_state
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    return states, pipe.unet(latents, torch.tensor([400]), encoder_hidden_states=states).sample


def merged_by_hand(folder: Path, adapter: Adapter, path: Path) -> Path:
    """The single file with every change added under its original name, found by what diffusers' names say."""
    from tunesmith.engines.stable_diffusion.names import frozen_table, original_name

    assert frozen_table()  # the rules below are checked against it elsewhere
    tensors = load_file(folder / "tiny.safetensors")
    sizes = engine.open(BaseSection(path=str(folder / "tiny.safetensors"))).architecture
    for (component, layer), pair in adapter.layers.items():
        name = original_name(component, f"{layer}.weight", sizes[component])
        tensors[name] = tensors[name] + delta(pair, tensors[name]).reshape(tensors[name].shape)
    save_file(tensors, path)
    return path


@pytest.mark.parametrize("layout", ["kohya", "diffusers"])
@pytest.mark.parametrize(("convolutions", "components"), [(False, ()), (True, ()), (True, ("denoiser",))])
def test_diffusers_loads_the_export_twice_as_merged_by_hand(
    folder: Path, base: Base, tmp_path: Path, layout: str, convolutions: bool, components: tuple[str, ...]
) -> None:
    adapter = diffusion_adapter(base, convolutions=convolutions, components=components)
    path = tmp_path / "a.safetensors"
    export_adapter(adapter, path, engine=engine, base=base, layout=layout, dtype="fp32")
    reference = outputs(pipeline(folder, merged_by_hand(folder, adapter, tmp_path / "merged.safetensors")))
    pipe = pipeline(folder)
    plain = outputs(pipe)
    for _ in range(2):
        pipe.load_lora_weights(str(tmp_path), weight_name="a.safetensors", local_files_only=True)
        for found, wanted in zip(outputs(pipe), reference, strict=True):
            assert float((found - wanted).abs().max()) <= 1e-5 * max(1.0, float(wanted.abs().max()))
        pipe.unload_lora_weights()
    for found, wanted, before in zip(outputs(pipe), plain, reference, strict=True):
        assert torch.equal(found, wanted)
        if not components:
            assert not torch.allclose(wanted, before, atol=1e-3)


def test_diffusers_loads_dora(folder: Path, base: Base, tmp_path: Path) -> None:
    adapter = diffusion_adapter(base, dora=True)
    path = tmp_path / "a.safetensors"
    export_adapter(adapter, path, engine=engine, base=base, layout="diffusers", dtype="fp32")
    reference = outputs(pipeline(folder, merged_by_hand(folder, adapter, tmp_path / "merged.safetensors")))
    pipe = pipeline(folder)
    pipe.load_lora_weights(str(tmp_path), weight_name="a.safetensors", local_files_only=True)
    for found, wanted in zip(outputs(pipe), reference, strict=True):
        assert float((found - wanted).abs().max()) <= 1e-4 * max(1.0, float(wanted.abs().max()))


@pytest.mark.parametrize("dora", [False, True])
def test_a_merged_checkpoint_runs_in_diffusers_as_base_plus_adapter(
    folder: Path, base: Base, tmp_path: Path, dora: bool
) -> None:
    adapter = diffusion_adapter(base, dora=dora)
    path = merge_adapters(
        engine, base, adapters=[(adapter, 1.0)], path=tmp_path / "m.safetensors", layout="single_file", dtype="fp32"
    )
    reference = outputs(pipeline(folder, merged_by_hand(folder, adapter, tmp_path / "hand.safetensors")))
    for found, wanted in zip(outputs(pipeline(folder, path)), reference, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


def test_stock_peft_loads_the_denoiser_of_a_peft_export(folder: Path, base: Base, tmp_path: Path) -> None:
    from peft import PeftModel

    adapter = diffusion_adapter(base)
    export_adapter(adapter, tmp_path / "a", engine=engine, base=base, layout="peft", dtype="fp32")
    assert sorted(entry.name for entry in (tmp_path / "a").iterdir()) == ["text_encoder", "unet"]
    reference = pipeline(folder, merged_by_hand(folder, adapter, tmp_path / "hand.safetensors"))
    pipe = pipeline(folder)
    model = PeftModel.from_pretrained(pipe.unet, tmp_path / "a" / "unet").eval()
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    states = torch.randn(1, 77, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = model(latents, torch.tensor([400]), encoder_hidden_states=states).sample
        wanted = reference.unet(latents, torch.tensor([400]), encoder_hidden_states=states).sample
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_the_tensor_hash_survives_a_metadata_edit(base: Base, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    export_adapter(diffusion_adapter(base), path, engine=engine, base=base, layout="kohya", dtype="fp16")
    facts, before = describe_adapter(path)["metadata"], tensor_hash(path)
    assert facts["sshs_model_hash"] == before
    edit_metadata(path, {**facts, "ss_output_name": "another name", "ss_training_comment": "x" * 1000})
    assert tensor_hash(path) == before


# ------------------------------------------------------------------ the web UI's key rule, full-size names


def web_ui_name(stem: str) -> str:
    """How the A1111 web UI turns a kohya stem into an original-layout name (its behaviour, for SD 1.x).

    Blocks of two layers: position 1 + 3 i + j on the way down, 3 i + j on the way up.
    """
    inner = {"resnets": {"conv1": "in_layers_2", "conv2": "out_layers_3", "time_emb_proj": "emb_layers_1",
                         "conv_shortcut": "skip_connection"}}  # fmt: skip
    if found := re.fullmatch(r"lora_te_text_model_encoder_layers_(\d+)_(.+)", stem):
        return f"transformer_text_model_encoder_layers_{found[1]}_{found[2]}"
    if found := re.fullmatch(r"lora_unet_(down|mid|up)_blocks?_(?:(\d+)_)?(attentions|resnets)_(\d+)_(.+)", stem):
        side, block, kind, index, rest = found[1], int(found[2] or 0), found[3], int(found[4]), found[5]
        rest = inner[kind][rest] if kind in inner else rest
        if side == "mid":
            return f"diffusion_model_middle_block_{1 if kind == 'attentions' else index * 2}_{rest}"
        place = block * 3 + index + (side == "down")
        part = "input_blocks" if side == "down" else "output_blocks"
        return f"diffusion_model_{part}_{place}_{1 if kind == 'attentions' else 0}_{rest}"
    if found := re.fullmatch(r"lora_unet_down_blocks_(\d+)_downsamplers_0_conv", stem):
        return f"diffusion_model_input_blocks_{3 + int(found[1]) * 3}_0_op"
    if found := re.fullmatch(r"lora_unet_up_blocks_(\d+)_upsamplers_0_conv", stem):
        return f"diffusion_model_output_blocks_{2 + int(found[1]) * 3}_{2 if int(found[1]) > 0 else 1}_conv"
    return stem


def empty_layers(base: Base, *, convolutions: bool) -> Mapping[tuple[str, str], Any]:
    """The full-size layers with factors of rank 1."""
    return diffusion_adapter(base, convolutions=convolutions, ranks=1).layers


@pytest.mark.parametrize(("convolutions", "modules"), [(False, 264), (True, 350)])
def test_every_key_of_a_full_size_file_is_an_original_layer(tmp_path: Path, convolutions: bool, modules: int) -> None:
    base = engine.open(BaseSection(architecture="sd15"))
    path = tmp_path / "a.safetensors"
    adapter = Adapter(empty_layers(base, convolutions=convolutions))
    write_adapter(path, adapter, engine.layouts, base, "kohya", "fp16", {})
    assert (describe_adapter(path)["modules"], describe_adapter(path)["tensors"]) == (modules, 3 * modules)
    originals = {
        name.removesuffix(".weight").removeprefix("model.").removeprefix("cond_stage_model.").replace(".", "_")
        for name in single_file_shapes(SD15)
        if name.endswith(".weight")
    }
    stems = {name.split(".", 1)[0] for name in load_file(path)}
    mapped = {web_ui_name(stem) for stem in stems}
    assert len(mapped) == modules
    assert mapped <= originals, json.dumps(sorted(mapped - originals)[:5])
