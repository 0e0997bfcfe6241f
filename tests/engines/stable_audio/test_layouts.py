"""Adapter files in every layout: names as other programs write them, fused layers, bit-exact round trips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tunesmith.adapters.adapter import Adapter, Pair, delta
from tunesmith.adapters.attach import attach_adapter
from tunesmith.adapters.files import read_adapter, write_adapter
from tunesmith.adapters.fused import join_pairs, split_pair
from tunesmith.engines.protocol import Target
from tunesmith.engines.stable_audio import engine
from tunesmith.engines.stable_audio.layouts import adapter_layers
from tunesmith.engines.stable_audio.load import part_module
from tunesmith.engines.stable_audio.shapes import tensor_shapes
from tunesmith.errors import AdapterError

CPU = torch.device("cpu")
WRITTEN = ("comfy", "kohya", "diffusers", "peft")


def made(base: Any, rank: int = 3, alpha: float = 6.0, *, dora: bool = False) -> Adapter:
    """An adapter on every layer, by formula."""
    shapes = tensor_shapes("denoiser", base.architecture["denoiser"])
    layers = {}
    for at, layer in enumerate(adapter_layers(base.architecture["denoiser"])):
        high, low = shapes[f"{layer}.weight"]
        draw = torch.Generator().manual_seed(at)
        up, down = torch.randn(high, rank, generator=draw), torch.randn(rank, low, generator=draw)
        magnitude = torch.rand(high, generator=draw) + 0.5 if dora else None
        layers["denoiser", layer] = Pair(down, up, alpha, magnitude)
    return Adapter(layers)


def place(tmp_path: Path, layout: str) -> Path:
    return tmp_path / ("adapter" if layout == "peft" else "adapter.safetensors")


@pytest.mark.parametrize("layout", WRITTEN)
def test_the_change_survives_every_layout(layout: str, tiny: Any, tmp_path: Path) -> None:
    base = tiny.open()
    adapter = made(base)
    write_adapter(place(tmp_path, layout), adapter, engine.layouts, base, layout, "fp32", {})
    again = read_adapter(place(tmp_path, layout), engine.layouts, base)
    assert again.layers.keys() == adapter.layers.keys()
    for layer, pair in adapter.layers.items():
        torch.testing.assert_close(delta(again.layers[layer]), delta(pair), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", ["comfy", "kohya"])
def test_a_fused_file_comes_back_bit_by_bit(layout: str, tiny: Any, tmp_path: Path) -> None:
    """As a trainer of the original names writes it: one pair for queries, keys and values together."""
    base, draw = tiny.open(), torch.Generator().manual_seed(5)
    start = {"comfy": "diffusion_model.transformer.layers.1.", "kohya": "lora_unet_transformer_layers_1_"}[layout]
    dot = {"comfy": ".", "kohya": "_"}[layout]
    ends = {"comfy": ("lora_A", "lora_B"), "kohya": ("lora_down", "lora_up")}[layout]
    tensors = {}
    for name, high, low in (("self_attn.to_qkv", 192, 64), ("cross_attn.to_kv", 64, 32), ("ff.ff.0.proj", 512, 64)):
        stem = start + name.replace(".", dot)
        tensors[f"{stem}.{ends[0]}.weight"] = torch.randn(4, low, generator=draw)
        tensors[f"{stem}.{ends[1]}.weight"] = torch.randn(high, 4, generator=draw)
        tensors[f"{stem}.alpha"] = torch.tensor(2.0)
    save_file(tensors, tmp_path / "theirs.safetensors")
    adapter = read_adapter(tmp_path / "theirs.safetensors", engine.layouts, base)
    assert len(adapter.layers) == 3 + 2 + 1
    write_adapter(tmp_path / "ours.safetensors", adapter, engine.layouts, base, layout, "fp32", {})
    again = load_file(tmp_path / "ours.safetensors")
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in tensors.items())


def test_fusing_keeps_the_change_exactly(tiny: Any) -> None:
    base = tiny.open()
    members = [made(base, rank).layers["denoiser", f"transformer_blocks.0.attn1.to_{letter}"] for rank, letter in
               ((2, "q"), (3, "k"), (1, "v"))]  # fmt: skip
    joined = join_pairs("qkv", members)
    assert (joined.rank, joined.up.shape[0]) == (6, 192)
    torch.testing.assert_close(delta(joined), torch.cat([delta(pair) for pair in members]), rtol=1e-6, atol=1e-6)
    for part, pair in zip(split_pair("qkv", joined, 3), members, strict=True):
        torch.testing.assert_close(delta(part), delta(pair), rtol=1e-6, atol=1e-6)
    only_keys = join_pairs("qkv", [None, members[1], None])
    zeros = torch.zeros(64, 64)
    torch.testing.assert_close(delta(only_keys), torch.cat([zeros, delta(members[1]), zeros]), rtol=1e-6, atol=1e-6)
    with pytest.raises(AdapterError, match="not 3 equal parts"):
        split_pair("qkv", Pair(torch.ones(1, 4), torch.ones(10, 1), 1.0), 3)


@pytest.mark.parametrize("dora", [False, True])
def test_comfy_holds_the_fused_weights_change(dora: bool, tiny: Any, tmp_path: Path) -> None:
    """The file's own arithmetic on the original's fused matrix, as ComfyUI does it, against our attached layers."""
    base = tiny.open()
    adapter = made(base, dora=dora)
    path = tmp_path / "a.safetensors"
    write_adapter(path, adapter, engine.layouts, base, "comfy", "fp32", {})
    file = load_file(path)
    denoiser = part_module(base, "denoiser", CPU, torch.float32)
    rows = [denoiser.get_parameter(f"transformer_blocks.0.attn1.to_{letter}.weight") for letter in "qkv"]
    weight = torch.cat(rows)
    stem = "diffusion_model.transformer.layers.0.self_attn.to_qkv"
    scale = float(file[f"{stem}.alpha"]) / file[f"{stem}.lora_A.weight"].shape[0]
    changed = weight + scale * file[f"{stem}.lora_B.weight"] @ file[f"{stem}.lora_A.weight"]
    if dora:
        changed = changed / changed.norm(dim=1, keepdim=True) * file[f"{stem}.dora_scale"]
    pairs = [adapter.layers["denoiser", f"transformer_blocks.0.attn1.to_{letter}"] for letter in "qkv"]
    wanted = torch.cat([row + delta(pair, row) for row, pair in zip(rows, pairs, strict=True)])
    torch.testing.assert_close(changed, wanted, rtol=1e-5, atol=1e-5)


def test_attaching_changes_and_detaching_restores_every_bit(tiny: Any) -> None:
    base = tiny.open()
    denoiser = part_module(base, "denoiser", CPU, torch.float32)
    before = {name: parameter.clone() for name, parameter in denoiser.named_parameters()}
    adapter = made(base)
    targets = [Target("denoiser", layer, layer, "linear") for layer in adapter_layers(base.architecture["denoiser"])]
    attached = attach_adapter({"denoiser": denoiser}, targets, adapter, "mine")
    assert len(attached.places) == 20
    attached.detach()
    after = dict(denoiser.named_parameters())
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_loraw_pickles_are_read(tiny: Any, tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(3)
    stem = "model/model/transformer/layers/0/cross_attn/to_kv"
    down, up = torch.randn(16, 32, generator=draw), torch.randn(64, 16, generator=draw)
    torch.save({f"{stem}/lora_down.weight": down, f"{stem}/lora_up.weight": up}, tmp_path / "lora.ckpt")
    adapter = read_adapter(tmp_path / "lora.ckpt", engine.layouts, tiny.open())
    keys, values = (adapter.layers["denoiser", f"transformer_blocks.0.attn2.to_{name}"] for name in "kv")
    assert torch.equal(torch.cat([keys.up, values.up]), up)
    assert (keys.alpha, keys.rank) == (16.0, 16)
    assert torch.equal(keys.down, down)


def test_stable_audio_3_names_are_read_where_shapes_fit(tiny: Any, tmp_path: Path) -> None:
    stem = "model.transformer.layers.0.self_attn.to_out.parametrizations.weight.0"
    save_file({f"{stem}.lora_A": torch.ones(2, 64), f"{stem}.lora_B": torch.ones(64, 2)}, tmp_path / "a.safetensors")
    adapter = read_adapter(tmp_path / "a.safetensors", engine.layouts, tiny.open())
    assert list(adapter.layers) == [("denoiser", "transformer_blocks.0.attn1.to_out.0")]


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("lora_unet_down_blocks_0_attentions_0_proj_in",), "not in this base"),
        (("transformer.transformer_blocks.7.attn1.to_q",), "not in this base"),
        (("diffusion_model.transformer.layers.0.self_attn.to_q",), "not in this base"),
        (("unet.transformer_blocks.0.attn1.to_q",), "no layout explains"),
    ],
)
def test_foreign_names_are_refused(names: tuple[str, ...], says: str, tiny: Any, tmp_path: Path) -> None:
    """Never attached in silence: a wrong prefix is an error, not a warning."""
    tensors = {}
    for name in names:
        tensors |= {f"{name}.lora_A.weight": torch.ones(2, 64), f"{name}.lora_B.weight": torch.ones(64, 2)}
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(AdapterError, match=says):
        read_adapter(tmp_path / "a.safetensors", engine.layouts, tiny.open())
