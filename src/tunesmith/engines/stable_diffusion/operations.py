"""Floating-point operations and kept activations of SD 1.x parts, layer by layer from their shapes. No torch.

A multiplication with its addition counts as two operations. Checked against torch's own counter on the meta device.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from tunesmith.engines.stable_diffusion.shapes import tensor_shapes
from tunesmith.numeric.work import Work

TEXT_TOKENS = 77
_BLOCK = re.compile(r"(?:(encoder|decoder)\.)?(down_blocks|up_blocks)\.(\d+)\.")


def _places(name: str, blocks: int, full: tuple[int, int]) -> int:
    """How many positions a layer of the U-Net or of the encoder's half works at; `full` is the finest height, width."""
    found = _BLOCK.match(name)
    if found is None:
        level = blocks - 1 if "mid_block" in name else 0
    else:
        side, index = found[2], int(found[3])
        level = index if side == "down_blocks" else blocks - 1 - index
        level += 1 if "downsamplers" in name else -1 if "upsamplers" in name else 0
    return int(math.ceil(full[0] / 2**level) * math.ceil(full[1] / 2**level))


def denoiser_work(sizes: Mapping[str, Any], height: int, width: int, tokens: int = TEXT_TOKENS) -> Work:
    """One forward pass over latents of height x width with `tokens` text states."""
    blocks = len(sizes["block_out_channels"])
    total = Work()
    for name, shape in tensor_shapes("denoiser", sizes).items():
        if not name.endswith(".weight") or len(shape) < 2:
            continue
        places = _places(name, blocks, (height, width))
        if "time_emb" in name:
            places = 1
        elif name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")):
            places = tokens
        total += _layer(shape, places)
        if name.endswith(("attn1.to_q.weight", "attn2.to_q.weight")):
            total += _attention(places, tokens if "attn2" in name else places, shape[0])
    return total


def autoencoder_work(sizes: Mapping[str, Any], height: int, width: int, half: str) -> Work:
    """One pass of the `encoder` or `decoder` over a picture of height x width pixels."""
    blocks = len(sizes["block_out_channels"])
    total = Work()
    for name, shape in tensor_shapes("autoencoder", sizes).items():
        quant = "quant_conv" if half == "encoder" else "post_quant_conv"
        if not name.endswith(".weight") or len(shape) < 2 or not name.startswith((f"{half}.", f"{quant}.")):
            continue
        inner = name.removeprefix(f"{half}.")
        coarse = inner.startswith((quant, "conv_out" if half == "encoder" else "conv_in"))
        places = _places("mid_block" if coarse else inner, blocks, (height, width))
        total += _layer(shape, places)
        if name.endswith("attentions.0.to_q.weight"):
            total += _attention(places, places, shape[0])
    return total


def text_work(sizes: Mapping[str, Any], chunks: int = 1) -> Work:
    """One pass over `chunks` of 77 tokens."""
    tokens = sizes["max_position_embeddings"] * chunks
    total = Work()
    for name, shape in tensor_shapes("text_encoder", sizes).items():
        if name.endswith(".weight") and len(shape) == 2 and "embedding" not in name:
            total += _layer(shape, tokens)
            if name.endswith("q_proj.weight"):
                total += _attention(tokens, sizes["max_position_embeddings"], shape[0])
    return total


def _layer(shape: tuple[int, ...], places: int) -> Work:
    operations, elements = 2.0 * math.prod(shape) * places, float(shape[0] * places)
    if len(shape) == 4:
        return Work(convolution=operations, activations=elements, widest=elements)
    return Work(matrix=operations, activations=elements, widest=elements)


def _attention(queries: int, keys: int, width: int) -> Work:
    return Work(matrix=4.0 * queries * keys * width)
