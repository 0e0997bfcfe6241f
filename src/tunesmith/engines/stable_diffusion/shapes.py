"""Every tensor of an SD 1.x part under its canonical name, from the part's sizes. No torch.

Canonical names are diffusers' names, and for the text encoder transformers' names before 5.6 (with `text_model.`).
`sizes` is what a config.json of the part says. Checked against the real module trees.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

Shape = tuple[int, ...]
Named = Iterator[tuple[str, Shape]]


def _pair(name: str, *shape: int) -> Named:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def _resnet(name: str, low: int, high: int, time: int | None) -> Named:
    yield from _pair(f"{name}.norm1", low)
    yield from _pair(f"{name}.conv1", high, low, 3, 3)
    if time is not None:
        yield from _pair(f"{name}.time_emb_proj", high, time)
    yield from _pair(f"{name}.norm2", high)
    yield from _pair(f"{name}.conv2", high, high, 3, 3)
    if low != high:
        yield from _pair(f"{name}.conv_shortcut", high, low, 1, 1)


def _transformer(name: str, width: int, text: int) -> Named:
    yield from _pair(f"{name}.norm", width)
    yield from _pair(f"{name}.proj_in", width, width, 1, 1)
    block = f"{name}.transformer_blocks.0"
    for index in (1, 2, 3):
        yield from _pair(f"{block}.norm{index}", width)
    for attention, source in (("attn1", width), ("attn2", text)):
        yield f"{block}.{attention}.to_q.weight", (width, width)
        yield f"{block}.{attention}.to_k.weight", (width, source)
        yield f"{block}.{attention}.to_v.weight", (width, source)
        yield from _pair(f"{block}.{attention}.to_out.0", width, width)
    yield from _pair(f"{block}.ff.net.0.proj", 8 * width, width)
    yield from _pair(f"{block}.ff.net.2", width, 4 * width)
    yield from _pair(f"{name}.proj_out", width, width, 1, 1)


def attends(block_type: str) -> bool:
    """Whether a U-Net block of this type attends to the text."""
    return block_type.startswith("CrossAttn")


def _denoiser(sizes: Mapping[str, Any]) -> Named:
    channels, layers, text = sizes["block_out_channels"], sizes["layers_per_block"], sizes["cross_attention_dim"]
    first, time = channels[0], 4 * channels[0]
    yield from _pair("conv_in", first, sizes["in_channels"], 3, 3)
    yield from _pair("time_embedding.linear_1", time, first)
    yield from _pair("time_embedding.linear_2", time, time)
    skips, width = [first], first
    for block, (high, kind) in enumerate(zip(channels, sizes["down_block_types"], strict=True)):
        for layer in range(layers):
            yield from _resnet(f"down_blocks.{block}.resnets.{layer}", width, high, time)
            if attends(kind):
                yield from _transformer(f"down_blocks.{block}.attentions.{layer}", high, text)
            width = high
            skips.append(width)
        if block < len(channels) - 1:
            yield from _pair(f"down_blocks.{block}.downsamplers.0.conv", width, width, 3, 3)
            skips.append(width)
    yield from _resnet("mid_block.resnets.0", width, width, time)
    yield from _transformer("mid_block.attentions.0", width, text)
    yield from _resnet("mid_block.resnets.1", width, width, time)
    for block, (high, kind) in enumerate(zip(reversed(channels), sizes["up_block_types"], strict=True)):
        for layer in range(layers + 1):
            yield from _resnet(f"up_blocks.{block}.resnets.{layer}", width + skips.pop(), high, time)
            if attends(kind):
                yield from _transformer(f"up_blocks.{block}.attentions.{layer}", high, text)
            width = high
        if block < len(channels) - 1:
            yield from _pair(f"up_blocks.{block}.upsamplers.0.conv", width, width, 3, 3)
    yield from _pair("conv_norm_out", width)
    yield from _pair("conv_out", sizes["out_channels"], width, 3, 3)


def _middle(name: str, width: int) -> Named:
    yield from _resnet(f"{name}.resnets.0", width, width, None)
    yield from _pair(f"{name}.attentions.0.group_norm", width)
    for part in ("to_q", "to_k", "to_v", "to_out.0"):
        yield from _pair(f"{name}.attentions.0.{part}", width, width)
    yield from _resnet(f"{name}.resnets.1", width, width, None)


def _autoencoder(sizes: Mapping[str, Any]) -> Named:
    channels, layers, latent = sizes["block_out_channels"], sizes["layers_per_block"], sizes["latent_channels"]
    width = channels[0]
    yield from _pair("encoder.conv_in", width, sizes["in_channels"], 3, 3)
    for block, high in enumerate(channels):
        for layer in range(layers):
            yield from _resnet(f"encoder.down_blocks.{block}.resnets.{layer}", width, high, None)
            width = high
        if block < len(channels) - 1:
            yield from _pair(f"encoder.down_blocks.{block}.downsamplers.0.conv", width, width, 3, 3)
    yield from _middle("encoder.mid_block", width)
    yield from _pair("encoder.conv_norm_out", width)
    yield from _pair("encoder.conv_out", 2 * latent, width, 3, 3)
    yield from _pair("quant_conv", 2 * latent, 2 * latent, 1, 1)
    yield from _pair("post_quant_conv", latent, latent, 1, 1)
    yield from _pair("decoder.conv_in", width, latent, 3, 3)
    yield from _middle("decoder.mid_block", width)
    for block, high in enumerate(reversed(channels)):
        for layer in range(layers + 1):
            yield from _resnet(f"decoder.up_blocks.{block}.resnets.{layer}", width, high, None)
            width = high
        if block < len(channels) - 1:
            yield from _pair(f"decoder.up_blocks.{block}.upsamplers.0.conv", width, width, 3, 3)
    yield from _pair("decoder.conv_norm_out", width)
    yield from _pair("decoder.conv_out", sizes["out_channels"], width, 3, 3)


def _text_encoder(sizes: Mapping[str, Any]) -> Named:
    width, wide, root = sizes["hidden_size"], sizes["intermediate_size"], "text_model"
    yield f"{root}.embeddings.token_embedding.weight", (sizes["vocab_size"], width)
    yield f"{root}.embeddings.position_embedding.weight", (sizes["max_position_embeddings"], width)
    for layer in range(sizes["num_hidden_layers"]):
        name = f"{root}.encoder.layers.{layer}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _pair(f"{name}.self_attn.{part}", width, width)
        yield from _pair(f"{name}.layer_norm1", width)
        yield from _pair(f"{name}.mlp.fc1", wide, width)
        yield from _pair(f"{name}.mlp.fc2", width, wide)
        yield from _pair(f"{name}.layer_norm2", width)
    yield from _pair(f"{root}.final_layer_norm", width)


_BUILDERS = {"denoiser": _denoiser, "autoencoder": _autoencoder, "text_encoder": _text_encoder}


def tensor_shapes(role: str, sizes: Mapping[str, Any]) -> dict[str, Shape]:
    """Canonical name -> shape of every tensor of a part."""
    return dict(_BUILDERS[role](sizes))


def parameter_count(role: str, sizes: Mapping[str, Any]) -> int:
    """How many numbers the part holds."""
    return sum(math.prod(shape) for shape in tensor_shapes(role, sizes).values())
