"""Every tensor of a Stable Audio part under its canonical name, from the part's sizes. No torch.

Canonical names are diffusers' (denoiser, autoencoder, projection) and transformers' (text_encoder). `sizes` is what a
config.json of the part says. Checked against the real module trees.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

Shape = tuple[int, ...]
Named = Iterator[tuple[str, Shape]]

NUMBER_FEATURES = 256  # width of the Fourier features of seconds, fixed in the architecture


def _layer(name: str, out: int, into: int, *, bias: bool = True) -> Named:
    yield f"{name}.weight", (out, into)
    if bias:
        yield f"{name}.bias", (out,)


def _norm(name: str, width: int) -> Named:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def denoiser_width(sizes: Mapping[str, Any]) -> int:
    """Width of the transformer's hidden states."""
    return int(sizes["num_attention_heads"] * sizes["attention_head_dim"])


def key_width(sizes: Mapping[str, Any]) -> int:
    """Width of the keys and values of cross-attention, which has fewer heads."""
    return int(sizes["num_key_value_attention_heads"] * sizes["attention_head_dim"])


def _denoiser(sizes: Mapping[str, Any]) -> Named:
    width, cross, latent = denoiser_width(sizes), sizes["cross_attention_dim"], sizes["in_channels"]
    yield "time_proj.weight", (sizes["time_proj_dim"] // 2,)
    yield from _layer("timestep_proj.0", width, sizes["time_proj_dim"])
    yield from _layer("timestep_proj.2", width, width)
    yield from _layer("global_proj.0", width, sizes["global_states_input_dim"], bias=False)
    yield from _layer("global_proj.2", width, width, bias=False)
    yield from _layer("cross_attention_proj.0", cross, sizes["cross_attention_input_dim"], bias=False)
    yield from _layer("cross_attention_proj.2", cross, cross, bias=False)
    yield "preprocess_conv.weight", (latent, latent, 1)
    yield from _layer("proj_in", width, latent, bias=False)
    for index in range(sizes["num_layers"]):
        block = f"transformer_blocks.{index}"
        yield from _norm(f"{block}.norm1", width)
        for part in ("to_q", "to_k", "to_v", "to_out.0"):
            yield from _layer(f"{block}.attn1.{part}", width, width, bias=False)
        yield from _norm(f"{block}.norm2", width)
        yield from _layer(f"{block}.attn2.to_q", width, width, bias=False)
        yield from _layer(f"{block}.attn2.to_k", key_width(sizes), cross, bias=False)
        yield from _layer(f"{block}.attn2.to_v", key_width(sizes), cross, bias=False)
        yield from _layer(f"{block}.attn2.to_out.0", width, width, bias=False)
        yield from _norm(f"{block}.norm3", width)
        yield from _layer(f"{block}.ff.net.0.proj", 8 * width, width)
        yield from _layer(f"{block}.ff.net.2", width, 4 * width)
    out = sizes["out_channels"]
    yield from _layer("proj_out", out, width, bias=False)
    yield "postprocess_conv.weight", (out, out, 1)


def _convolution(name: str, out: int, into: int, kernel: int, *, bias: bool = True, transposed: bool = False) -> Named:
    """A weight-normalised convolution; a transposed one keeps its channels the other way round."""
    first, second = (into, out) if transposed else (out, into)
    if bias:
        yield f"{name}.bias", (out,)
    yield f"{name}.weight_g", (first, 1, 1)
    yield f"{name}.weight_v", (first, second, kernel)


def _snake(name: str, width: int) -> Named:
    yield f"{name}.alpha", (1, width, 1)
    yield f"{name}.beta", (1, width, 1)


def _residual_units(name: str, width: int) -> Named:
    for unit in (1, 2, 3):
        yield from _snake(f"{name}.res_unit{unit}.snake1", width)
        yield from _convolution(f"{name}.res_unit{unit}.conv1", width, width, 7)
        yield from _snake(f"{name}.res_unit{unit}.snake2", width)
        yield from _convolution(f"{name}.res_unit{unit}.conv2", width, width, 1)


def _autoencoder(sizes: Mapping[str, Any]) -> Named:
    strides, sound = sizes["downsampling_ratios"], sizes["audio_channels"]
    hidden, multiples = sizes["encoder_hidden_size"], [1, *sizes["channel_multiples"]]
    yield from _convolution("encoder.conv1", hidden, sound, 7)
    for block, stride in enumerate(strides):
        low, high, name = hidden * multiples[block], hidden * multiples[block + 1], f"encoder.block.{block}"
        yield from _residual_units(name, low)
        yield from _snake(f"{name}.snake1", low)
        yield from _convolution(f"{name}.conv1", high, low, 2 * stride)
    yield from _snake("encoder.snake1", hidden * multiples[-1])
    yield from _convolution("encoder.conv2", hidden, hidden * multiples[-1], 3)
    channels, latent = sizes["decoder_channels"], sizes["decoder_input_channels"]
    yield from _convolution("decoder.conv1", channels * multiples[-1], latent, 7)
    for block, stride in enumerate(reversed(strides)):
        at, name = len(strides) - block, f"decoder.block.{block}"
        low, high = channels * multiples[at], channels * multiples[at - 1]
        yield from _snake(f"{name}.snake1", low)
        yield from _convolution(f"{name}.conv_t1", high, low, 2 * stride, transposed=True)
        yield from _residual_units(name, high)
    yield from _snake("decoder.snake1", channels)
    yield from _convolution("decoder.conv2", sound, channels, 7, bias=False)


def _text_encoder(sizes: Mapping[str, Any]) -> Named:
    width, inner, heads = sizes["d_model"], sizes["num_heads"] * sizes["d_kv"], sizes["num_heads"]
    gated = str(sizes["feed_forward_proj"]).startswith("gated")
    yield "shared.weight", (sizes["vocab_size"], width)
    for index in range(sizes["num_layers"]):
        block = f"encoder.block.{index}.layer"
        for part in ("q", "k", "v"):
            yield f"{block}.0.SelfAttention.{part}.weight", (inner, width)
        yield f"{block}.0.SelfAttention.o.weight", (width, inner)
        if index == 0:
            buckets = sizes["relative_attention_num_buckets"]
            yield f"{block}.0.SelfAttention.relative_attention_bias.weight", (buckets, heads)
        yield f"{block}.0.layer_norm.weight", (width,)
        for part in ("wi_0", "wi_1") if gated else ("wi",):
            yield f"{block}.1.DenseReluDense.{part}.weight", (sizes["d_ff"], width)
        yield f"{block}.1.DenseReluDense.wo.weight", (width, sizes["d_ff"])
        yield f"{block}.1.layer_norm.weight", (width,)
    yield "encoder.final_layer_norm.weight", (width,)


def _projection(sizes: Mapping[str, Any]) -> Named:
    text, width = sizes["text_encoder_dim"], sizes["conditioning_dim"]
    if text != width:  # otherwise the states pass as they are
        yield from _layer("text_projection", width, text)
    for number in ("start_number_conditioner", "end_number_conditioner"):
        yield f"{number}.time_positional_embedding.0.weights", (NUMBER_FEATURES // 2,)
        yield from _layer(f"{number}.time_positional_embedding.1", width, NUMBER_FEATURES + 1)


_BUILDERS = {
    "denoiser": _denoiser,
    "autoencoder": _autoencoder,
    "text_encoder": _text_encoder,
    "projection": _projection,
}


def tensor_shapes(role: str, sizes: Mapping[str, Any]) -> dict[str, Shape]:
    """Canonical name -> shape of every tensor of a part."""
    return dict(_BUILDERS[role](sizes))


def parameter_count(role: str, sizes: Mapping[str, Any]) -> int:
    """How many numbers the part holds."""
    return sum(math.prod(shape) for shape in tensor_shapes(role, sizes).values())


def hop_length(sizes: Mapping[str, Any]) -> int:
    """Samples that one latent frame of an autoencoder stands for."""
    return math.prod(sizes["downsampling_ratios"])
