"""The sizes of SD 1.x parts: named ones, a JSON file of sizes, and what a header's shapes say. No torch.

An architecture is a mapping by role (denoiser, autoencoder, text_encoder, scheduler) of what that part's
config.json would say, with diffusers' and transformers' keys.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tunesmith.engines.stable_diffusion.shapes import Shape
from tunesmith.weights.architectures import Sizes, sizes_named

ROLES = ("denoiser", "autoencoder", "text_encoder")
HEAD_WIDTH = 64  # CLIP text models have width / 64 heads; SD 1.x U-Nets have 8 heads at every width
DEFAULTS: Mapping[str, Sizes] = {
    "denoiser": {
        "sample_size": 64,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": [320, 640, 1280, 1280],
        "layers_per_block": 2,
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
        "norm_num_groups": 32,
        "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
        "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
    },
    "autoencoder": {
        "sample_size": 512,
        "in_channels": 3,
        "out_channels": 3,
        "block_out_channels": [128, 256, 512, 512],
        "layers_per_block": 2,
        "latent_channels": 4,
        "norm_num_groups": 32,
        "scaling_factor": 0.18215,
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
    },
    "text_encoder": {
        "vocab_size": 49408,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 77,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
        "projection_dim": 768,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "pad_token_id": 49407,
    },
    "scheduler": {
        "prediction_type": "epsilon",
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "num_train_timesteps": 1000,
    },
}


def unet_sizes(channels: list[int], attention: list[bool], layers: int, text_width: int, **other: Any) -> Sizes:
    """Sizes of a U-Net; `attention` says block by block, finest first, whether it attends to the text."""
    return {
        **DEFAULTS["denoiser"],
        "block_out_channels": channels,
        "layers_per_block": layers,
        "cross_attention_dim": text_width,
        "down_block_types": ["CrossAttnDownBlock2D" if yes else "DownBlock2D" for yes in attention],
        "up_block_types": ["CrossAttnUpBlock2D" if yes else "UpBlock2D" for yes in reversed(attention)],
        **other,
    }


def autoencoder_sizes(channels: list[int], layers: int, **other: Any) -> Sizes:
    """Sizes of an autoencoder; latents have the picture's side / 2 ** (blocks - 1)."""
    return {
        **DEFAULTS["autoencoder"],
        "block_out_channels": channels,
        "layers_per_block": layers,
        "down_block_types": ["DownEncoderBlock2D"] * len(channels),
        "up_block_types": ["UpDecoderBlock2D"] * len(channels),
        **other,
    }


def text_sizes(width: int, layers: int, **other: Any) -> Sizes:
    """Sizes of a CLIP text model."""
    return {
        **DEFAULTS["text_encoder"],
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "projection_dim": width,
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, width // HEAD_WIDTH),
        **other,
    }


def _named() -> dict[str, dict[str, Sizes]]:
    schedule = dict(DEFAULTS["scheduler"])
    return {
        "sd15": {role: dict(sizes) for role, sizes in DEFAULTS.items()},
        # 64 x 64 pictures, latents 16 x 16: small enough to train on two CPU cores. Eight groups: as many groups as
        # channels would normalise each channel alone and take the colours away.
        "small64": {
            "denoiser": unet_sizes([64, 128, 192], [True, True, True], 1, 96, sample_size=16),
            "autoencoder": autoencoder_sizes([32, 64, 96], 1, sample_size=64, scaling_factor=1.0, norm_num_groups=8),
            "text_encoder": text_sizes(96, 3),
            "scheduler": schedule,
        },
        # 32 x 32 pictures, latents 16 x 16: for trying the machinery, not for looking at.
        "tiny32": {
            "denoiser": unet_sizes([32, 64], [True, False], 1, 32, sample_size=16),
            "autoencoder": autoencoder_sizes([32, 64], 1, sample_size=32, scaling_factor=1.0, norm_num_groups=8),
            "text_encoder": text_sizes(32, 2),
            "scheduler": schedule,
        },
    }


NAMED = tuple(_named())


def named_architecture(name: str) -> dict[str, Sizes]:
    """A named architecture, or a JSON file of sizes by role laid over those of `like` (SD 1.5). Raises WeightsError."""
    return sizes_named(name, _named())


# ---------------------------------------------------------------- sizes from the shapes in a file


def _count(pattern: str, shapes: Mapping[str, Shape]) -> int:
    """One more than the largest number that `pattern`'s group takes, or 0."""
    compiled = re.compile(pattern)
    return max((int(found[1]) + 1 for name in shapes if (found := compiled.match(name))), default=0)


def _infer_denoiser(shapes: Mapping[str, Shape], original: bool) -> Sizes:
    if original:
        ends = sorted(int(name.split(".")[1]) for name in shapes if re.match(r"input_blocks\.\d+\.0\.op\.weight", name))
        total = _count(r"input_blocks\.(\d+)\.", shapes)
        layers = (ends[0] if ends else total) - 1
        starts = [1 + block * (layers + 1) for block in range(len(ends) + 1)]
        channels = [shapes[f"input_blocks.{start}.0.out_layers.3.weight"][0] for start in starts]
        attention = [f"input_blocks.{start}.1.proj_in.weight" in shapes for start in starts]
        middle, first = "middle_block.1", shapes["input_blocks.0.0.weight"]
    else:
        layers = _count(r"down_blocks\.0\.resnets\.(\d+)\.", shapes)
        blocks = range(_count(r"down_blocks\.(\d+)\.", shapes))
        channels = [shapes[f"down_blocks.{block}.resnets.0.conv2.weight"][0] for block in blocks]
        attention = [f"down_blocks.{block}.attentions.0.proj_in.weight" in shapes for block in blocks]
        middle, first = "mid_block.attentions.0", shapes["conv_in.weight"]
    text = shapes[f"{middle}.transformer_blocks.0.attn2.to_k.weight"][1]
    return unet_sizes(channels, attention, layers, text, in_channels=first[1])


def _infer_autoencoder(shapes: Mapping[str, Shape], original: bool) -> Sizes:
    level, layer = ("down", "block") if original else ("down_blocks", "resnets")
    blocks = range(_count(rf"encoder\.{level}\.(\d+)\.", shapes))
    channels = [shapes[f"encoder.{level}.{block}.{layer}.0.conv2.weight"][0] for block in blocks]
    layers = _count(rf"encoder\.{level}\.0\.{layer}\.(\d+)\.", shapes)
    latent = shapes["decoder.conv_in.weight"][1]
    return autoencoder_sizes(channels, layers, latent_channels=latent)


def _infer_text_encoder(shapes: Mapping[str, Shape], original: bool) -> Sizes:
    del original  # one layout, with or without the prefix that transformers dropped
    plain = {name.removeprefix("text_model."): shape for name, shape in shapes.items()}
    vocabulary, width = plain["embeddings.token_embedding.weight"]
    return text_sizes(
        width,
        _count(r"encoder\.layers\.(\d+)\.", plain),
        vocab_size=vocabulary,
        intermediate_size=plain["encoder.layers.0.mlp.fc1.weight"][0],
        max_position_embeddings=plain["embeddings.position_embedding.weight"][0],
    )


_INFERENCES = {
    "denoiser": _infer_denoiser,
    "autoencoder": _infer_autoencoder,
    "text_encoder": _infer_text_encoder,
}


def infer_sizes(role: str, shapes: Mapping[str, Shape], layout: str) -> Sizes:
    """Sizes of a part from its tensors' shapes, prefix removed. KeyError where the part is of another kind.

    Heads and normalisation groups leave no trace in shapes: those of SD 1.x are assumed (8 heads, 32 groups, and
    one text head per 64 channels).
    """
    return _INFERENCES[role](shapes, layout == "original")
