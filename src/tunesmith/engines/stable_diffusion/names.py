"""Canonical names <-> the original single-file names, by rule, for any number of blocks. No torch.

Canonical names are diffusers' (see shapes). `data/sd15_names.json` freezes the table for SD 1.5 as diffusers itself
converts it; a test compares it with these rules.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from tunesmith.engines.stable_diffusion.shapes import attends, tensor_shapes

PREFIXES = {
    "denoiser": "model.diffusion_model.",
    "autoencoder": "first_stage_model.",
    "text_encoder": "cond_stage_model.transformer.",
}

_DENOISER_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_DENOISER_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_AUTOENCODER_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_BLOCK = re.compile(r"(down_blocks|up_blocks)\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
_MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)")

# Names that diffusers and transformers used in older files of the same models.
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD = re.compile(r"(.*mid_block\.attentions\.0)\.(query|key|value|proj_attn)$")


def _denoiser(layer: str, sizes: Mapping[str, Any]) -> str:
    if layer in _DENOISER_ENDS:
        return _DENOISER_ENDS[layer]
    stride = sizes["layers_per_block"] + 1
    if middle := _MIDDLE.fullmatch(layer):
        kind, index, rest = middle.groups()
        if kind == "attentions":
            return f"middle_block.1.{rest}"
        return f"middle_block.{2 * int(index)}.{_DENOISER_RESNET[rest]}"
    found = _BLOCK.fullmatch(layer)
    if found is None:
        raise KeyError(layer)
    side, block, kind, index, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
    if kind == "downsamplers":
        return f"input_blocks.{(block + 1) * stride}.0.op"
    if kind == "upsamplers":
        after = 2 if attends(sizes["up_block_types"][block]) else 1
        return f"output_blocks.{block * stride + stride - 1}.{after}.conv"
    place = f"output_blocks.{block * stride + index}"
    if side == "down_blocks":
        place = f"input_blocks.{1 + block * stride + index}"
    return f"{place}.1.{rest}" if kind == "attentions" else f"{place}.0.{_DENOISER_RESNET[rest]}"


def _autoencoder(layer: str, sizes: Mapping[str, Any]) -> str:
    half, _, inner = layer.partition(".")
    if half in ("quant_conv", "post_quant_conv"):
        return layer
    if inner == "conv_norm_out":
        return f"{half}.norm_out"
    if middle := _MIDDLE.fullmatch(inner):
        kind, index, rest = middle.groups()
        if kind == "attentions":
            return f"{half}.mid.attn_1.{_AUTOENCODER_ATTENTION[rest]}"
        return f"{half}.mid.block_{int(index) + 1}.{rest}"
    found = _BLOCK.fullmatch(inner)
    if found is None:
        return layer
    side, block, kind, index, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
    if side == "down_blocks":
        root = f"{half}.down.{block}"
    else:  # the original counts its upward blocks from the finest
        root = f"{half}.up.{len(sizes['block_out_channels']) - 1 - block}"
    if kind in ("downsamplers", "upsamplers"):
        return f"{root}.{kind.removesuffix('rs')}.conv"
    return f"{root}.block.{index}.{rest.replace('conv_shortcut', 'nin_shortcut')}"


def original_layer(role: str, layer: str, sizes: Mapping[str, Any]) -> str:
    """The original name of a layer, without the part's prefix. KeyError for a layer SD 1.x does not have."""
    if role == "denoiser":
        return _denoiser(layer, sizes)
    if role == "autoencoder":
        return _autoencoder(layer, sizes)
    return layer


def original_name(role: str, canonical: str, sizes: Mapping[str, Any]) -> str:
    """The original single-file name of a tensor, with the part's prefix."""
    layer, _, end = canonical.rpartition(".")
    return f"{PREFIXES[role]}{original_layer(role, layer, sizes)}.{end}"


def original_table(role: str, sizes: Mapping[str, Any]) -> dict[str, str]:
    """Canonical -> original name of every tensor of a part."""
    return {name: original_name(role, name, sizes) for name in tensor_shapes(role, sizes)}


def canonical_from_diffusers(role: str, name: str) -> str:
    """The canonical name of a tensor in a diffusers or transformers file of any age."""
    if role == "text_encoder":
        return name if name.startswith("text_model.") else f"text_model.{name}"
    if role == "autoencoder":
        layer, _, end = name.rpartition(".")
        if old := _OLD.fullmatch(layer):
            return f"{old[1]}.{_OLD_ATTENTION[old[2]]}.{end}"
    return name


def stored_names(
    role: str, layout: str, prefix: str, stored: Iterable[str], sizes: Mapping[str, Any]
) -> dict[str, str]:
    """Canonical -> stored name of every tensor of a part that a file holds under `prefix` in `layout`.

    Names that SD 1.x does not have (position ids, schedules, averages) are left out.
    """
    wanted = tensor_shapes(role, sizes)
    present = {name[len(prefix) :]: name for name in stored if name.startswith(prefix)}
    if layout == "original" and role != "text_encoder":
        found = {}
        for canonical in wanted:
            layer, _, end = canonical.rpartition(".")
            place = f"{original_layer(role, layer, sizes)}.{end}"
            if place in present:
                found[canonical] = present[place]
        return found
    named = {canonical_from_diffusers(role, name): full for name, full in present.items()}
    return {canonical: named[canonical] for canonical in wanted if canonical in named}


def live_layer(component: str, layer: str) -> str:
    """The name in the running module: transformers 5.6 dropped `text_model.` from CLIPTextModel."""
    return layer.removeprefix("text_model.") if component == "text_encoder" else layer


@cache
def frozen_table() -> dict[str, dict[str, str]]:
    """SD 1.5 as frozen data: role -> canonical layer -> original layer. Treat as read-only."""
    text = files(__package__).joinpath("data", "sd15_names.json").read_text(encoding="utf-8")
    table: dict[str, dict[str, str]] = json.loads(text)
    return table
