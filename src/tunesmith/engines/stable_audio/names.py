"""Canonical names <-> the names of stable-audio-tools' checkpoints, by rule, for any number of layers. No torch.

Canonical names are diffusers' (see shapes). The original fuses queries, keys and values of self-attention, and keys
and values of cross-attention, into one matrix each; a row range of it is one canonical tensor.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith.engines.stable_audio.shapes import tensor_shapes

PREFIXES = {
    "denoiser": "model.model.",
    "autoencoder": "pretransform.model.",
    "projection": "conditioner.conditioners.",
    "text_encoder": "conditioner.conditioners.prompt.model.",
}

# Layers outside the blocks.
_ENDS = {
    "time_proj": "timestep_features",
    "timestep_proj.0": "to_timestep_embed.0",
    "timestep_proj.2": "to_timestep_embed.2",
    "global_proj.0": "to_global_embed.0",
    "global_proj.2": "to_global_embed.2",
    "cross_attention_proj.0": "to_cond_embed.0",
    "cross_attention_proj.2": "to_cond_embed.2",
    "preprocess_conv": "preprocess_conv",
    "postprocess_conv": "postprocess_conv",
    "proj_in": "transformer.project_in",
    "proj_out": "transformer.project_out",
}
_INNER = {
    "attn1.to_out.0": "self_attn.to_out",
    "attn2.to_q": "cross_attn.to_q",
    "attn2.to_out.0": "cross_attn.to_out",
    "ff.net.0.proj": "ff.ff.0.proj",
    "ff.net.2": "ff.ff.2",
}
_NORMS = {"norm1": "pre_norm", "norm2": "cross_attend_norm", "norm3": "ff_norm"}
_NORM_ENDS = {"weight": "gamma", "bias": "beta"}
FUSED: Mapping[str, tuple[str, ...]] = {
    "self_attn.to_qkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
    "cross_attn.to_kv": ("attn2.to_k", "attn2.to_v"),
}
_BLOCK = re.compile(r"transformer_blocks\.(\d+)\.(.+)")
_NUMBERS = {"start_number_conditioner": "seconds_start", "end_number_conditioner": "seconds_total"}
_UNIT = {"snake1": "0", "conv1": "1", "snake2": "2", "conv2": "3"}
_HALF_BLOCK = re.compile(r"(encoder|decoder)\.block\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Stored:
    """Where a canonical tensor lies: a stored tensor's name, and which of so many equal row ranges of it."""

    name: str
    part: int = 0
    parts: int = 1


def original_layer(layer: str) -> Stored:
    """A denoiser layer's original name, without prefix, and its share of a fused matrix. KeyError for no such layer."""
    if layer in _ENDS:
        return Stored(_ENDS[layer])
    found = _BLOCK.fullmatch(layer)
    if found is None:
        raise KeyError(layer)
    root, inner = f"transformer.layers.{found[1]}", found[2]
    for fused, members in FUSED.items():
        if inner in members:
            return Stored(f"{root}.{fused}", members.index(inner), len(members))
    return Stored(f"{root}.{_INNER[inner] if inner in _INNER else _NORMS[inner]}")


def _denoiser(canonical: str) -> Stored:
    layer, _, end = canonical.rpartition(".")
    place = original_layer(layer)
    norm = place.name.rpartition(".")[2] in _NORMS.values()
    return Stored(f"{place.name}.{_NORM_ENDS[end] if norm else end}", place.part, place.parts)


def _autoencoder_layer(layer: str, blocks: int) -> str:
    """`encoder.block.0.res_unit1.conv1` -> `encoder.layers.1.layers.0.layers.1`."""
    found = _HALF_BLOCK.fullmatch(layer)
    if found is None:
        half, _, inner = layer.partition(".")
        return f"{half}.layers.{ {'conv1': 0, 'snake1': blocks + 1, 'conv2': blocks + 2}[inner] }"
    half, inner = found[1], found[3]
    root = f"{half}.layers.{int(found[2]) + 1}.layers"
    if half == "encoder":
        ends, first_unit = {"snake1": "3", "conv1": "4"}, 0
    else:
        ends, first_unit = {"snake1": "0", "conv_t1": "1"}, 2
    if inner in ends:
        return f"{root}.{ends[inner]}"
    unit, _, part = inner.partition(".")
    return f"{root}.{first_unit + int(unit.removeprefix('res_unit')) - 1}.layers.{_UNIT[part]}"


def _autoencoder(canonical: str, sizes: Mapping[str, Any]) -> Stored:
    layer, _, end = canonical.rpartition(".")
    return Stored(f"{_autoencoder_layer(layer, len(sizes['downsampling_ratios']))}.{end}")


def _projection(canonical: str) -> Stored:
    number, _, rest = canonical.partition(".")
    if number == "text_projection":
        return Stored(f"prompt.proj_out.{rest}")
    return Stored(f"{_NUMBERS[number]}.{rest.replace('time_positional_embedding', 'embedder.embedding')}")


def original_name(role: str, canonical: str, sizes: Mapping[str, Any]) -> Stored:
    """Where stable-audio-tools keeps a tensor, without the part's prefix."""
    if role == "denoiser":
        return _denoiser(canonical)
    if role == "autoencoder":
        return _autoencoder(canonical, sizes)
    if role == "projection":
        return _projection(canonical)
    return Stored(canonical)


def stored_names(
    role: str, layout: str, prefix: str, stored: Iterable[str], sizes: Mapping[str, Any]
) -> dict[str, Stored]:
    """Canonical name -> where it lies, for every tensor of a part that a file holds under `prefix` in `layout`.

    Names that the part does not have (rotary frequencies, averages) are left out.
    """
    present = set(stored)
    found = {}
    for canonical in tensor_shapes(role, sizes):
        if layout == "original":
            place = original_name(role, canonical, sizes)
        else:
            place = Stored(_as_saved(role, canonical, prefix, present))
        if prefix + place.name in present:
            found[canonical] = Stored(prefix + place.name, place.part, place.parts)
    return found


def _as_saved(role: str, canonical: str, prefix: str, present: set[str]) -> str:
    """transformers keeps the word embedding under either of its two names."""
    if role == "text_encoder" and canonical == "shared.weight" and prefix + canonical not in present:
        return "encoder.embed_tokens.weight"
    return canonical
