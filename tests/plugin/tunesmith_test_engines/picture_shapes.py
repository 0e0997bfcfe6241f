"""Architecture of `test_pictures` as data: tensor names and shapes, adapter layers, operations. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.engines.protocol import Base
from tunesmith_test_engines.files import Shapes

ROLES = ("autoencoder", "text_encoder", "denoiser")
TOKENS = 8  # caption tokens, cut or padded
FACTOR = 2  # picture pixels per latent pixel
TIMESTEPS = 100
VOCABULARY = 48
TEXT_PREFIX = "text_model."  # in files, not in the running module

NAMED: Mapping[str, Any] = {
    "tiny": {
        "autoencoder": {"width": 8, "latent": 4},
        "text_encoder": {"width": 16},
        "denoiser": {"width": 16, "latent": 4, "text": 16},
    },
    "tinier": {
        "autoencoder": {"width": 4, "latent": 2},
        "text_encoder": {"width": 8},
        "denoiser": {"width": 8, "latent": 2, "text": 8},
    },
}


def _linear(name: str, rows: int, columns: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def _conv(name: str, rows: int, columns: int, side: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (rows, columns, side, side), f"{name}.bias": (rows,)}


def shapes_of(role: str, sizes: Mapping[str, Any]) -> Shapes:
    """Every tensor of one part under its canonical name."""
    if role == "autoencoder":
        width, latent = sizes["width"], sizes["latent"]
        return {
            **_conv("encoder.conv_in", width, 3, 3),
            **_conv("encoder.conv_out", 2 * latent, width, 3),
            **_conv("decoder.conv_in", width, latent, 3),
            **_conv("decoder.conv_out", 3, width, 3),
        }
    if role == "text_encoder":
        width = sizes["width"]
        named = {
            "embedding.weight": (VOCABULARY, width),
            **_linear("layers.0.fc1", 2 * width, width),
            **_linear("layers.0.fc2", width, 2 * width),
            "norm.weight": (width,),
            "norm.bias": (width,),
        }
        return {TEXT_PREFIX + name: shape for name, shape in named.items()}
    width, latent = sizes["width"], sizes["latent"]
    return {
        **_conv("conv_in", width, latent, 3),
        **_conv("control_in", width, 3, 3),
        **_linear("time_embed", width, width),
        **_conv("block.conv", width, width, 3),
        **_linear("block.attention.to_q", width, width),
        **_linear("block.attention.to_k", width, sizes["text"]),
        **_linear("block.attention.to_v", width, sizes["text"]),
        **_linear("block.attention.to_out", width, width),
        **_conv("block.proj", width, width, 1),
        **_conv("conv_out", latent, width, 3),
    }


def kind_of(canonical: str, shape: tuple[int, ...]) -> str:
    """linear, conv1x1 or conv."""
    if len(shape) == 2:
        return "linear"
    return "conv1x1" if shape[2:] == (1, 1) else "conv"


def layers_of(base: Base, component: str) -> tuple[str, ...]:
    """Canonical names of the layers an adapter could go on."""
    shapes = shapes_of(component, base.architecture[component])
    return tuple(
        name.removesuffix(".weight") for name, shape in shapes.items() if len(shape) > 1 and "embedding" not in name
    )


def adapted_parameters(shapes: Shapes, rank: int, conv_rank: int | None) -> int:
    """Numbers in an adapter over these tensors: down [r, in, k, k] and up [out, r] for every layer."""
    total = 0
    for name, shape in shapes.items():
        if len(shape) < 2 or "embedding" in name:
            continue
        chosen = conv_rank if kind_of(name, shape) == "conv" else rank
        if chosen is not None:
            taps = shape[2] * shape[3] if len(shape) == 4 else 1
            total += chosen * (shape[1] * taps + shape[0])
    return total
