"""Floating-point operations and kept activations of Stable Audio's parts, layer by layer from their shapes. No torch.

A multiplication with its addition counts as two operations. Checked against torch's own counter on the meta device.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from tunesmith.engines.stable_audio.shapes import denoiser_width, tensor_shapes
from tunesmith.numeric.work import Work

_BLOCK = re.compile(r"(encoder|decoder)\.block\.(\d+)\.(.+)")
_ONCE = ("time_proj", "timestep_proj", "global_proj")


def denoiser_work(sizes: Mapping[str, Any], frames: int, tokens: int) -> Work:
    """One forward pass over `frames` latent frames with `tokens` text states (start and total come on top)."""
    places, told, width = frames + 1, tokens + 2, denoiser_width(sizes)
    total = Work()
    for name, shape in tensor_shapes("denoiser", sizes).items():
        if not name.endswith(".weight") or len(shape) < 2:
            continue
        at = frames if name.endswith(("process_conv.weight", "proj_in.weight")) else places
        if name.startswith(_ONCE):
            at = 1
        elif name.startswith("cross_attention_proj") or name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")):
            at = told
        total += _layer(shape, at)
        if name.endswith("attn1.to_q.weight"):
            total += Work(matrix=4.0 * places * places * width)
        elif name.endswith("attn2.to_q.weight"):
            total += Work(matrix=4.0 * places * told * width)
    return total


def autoencoder_work(sizes: Mapping[str, Any], frames: int, half: str) -> Work:
    """One pass of the `encoder` or `decoder` over `frames` latent frames."""
    strides = list(sizes["downsampling_ratios"])
    total = Work()
    for name, shape in tensor_shapes("autoencoder", sizes).items():
        if not name.endswith(".weight_v") or not name.startswith(f"{half}."):
            continue
        places = frames * _samples_per_frame(name, strides)
        transposed = ".conv_t1." in name
        # A transposed convolution works once per input place; its weight has the input channels first.
        out = shape[1] if transposed else shape[0]
        stride = places // (frames * _input_rate(name, strides)) if transposed else 1
        operations = 2.0 * math.prod(shape) * places / stride
        elements = float(out * places)
        total += Work(convolution=operations, activations=elements, widest=elements)
    return total


def _samples_per_frame(name: str, strides: list[int]) -> int:
    """How many outputs of a layer one latent frame stands for."""
    found = _BLOCK.match(name)
    half = name.partition(".")[0]
    if found is None:
        outer = name.startswith(("encoder.conv1", "decoder.conv2"))
        return math.prod(strides) if outer else 1
    block, inner = int(found[2]), found[3]
    if half == "encoder":
        done = block + 1 if inner.startswith("conv1") else block
        return math.prod(strides[done:])
    return math.prod(list(reversed(strides))[: block + 1])


def _input_rate(name: str, strides: list[int]) -> int:
    """How many inputs of a decoder's transposed convolution one latent frame stands for."""
    found = _BLOCK.match(name)
    assert found is not None
    return math.prod(list(reversed(strides))[: int(found[2])])


def text_work(sizes: Mapping[str, Any], tokens: int) -> Work:
    """One pass over `tokens` tokens."""
    total = Work()
    for name, shape in tensor_shapes("text_encoder", sizes).items():
        if len(shape) == 2 and "shared" not in name and "relative_attention" not in name:
            total += _layer(shape, tokens)
            if name.endswith("SelfAttention.q.weight"):
                total += Work(matrix=4.0 * tokens * tokens * shape[0])
    return total


def _layer(shape: tuple[int, ...], places: int) -> Work:
    operations, elements = 2.0 * math.prod(shape) * places, float(shape[0] * places)
    if len(shape) == 3:
        return Work(convolution=operations, activations=elements, widest=elements)
    return Work(matrix=operations, activations=elements, widest=elements)
