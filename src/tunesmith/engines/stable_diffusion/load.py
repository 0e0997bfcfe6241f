"""Modules from parts: built without memory, filled tensor by tensor, or created from a seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from tunesmith.engines.protocol import Base, Part
from tunesmith.engines.stable_diffusion.names import live_layer, stored_names
from tunesmith.engines.stable_diffusion.shapes import tensor_shapes
from tunesmith.errors import WeightsError
from tunesmith.weights.files import open_tensors
from tunesmith.weights.modules import created_module, filled_module


def build_module(role: str, sizes: Mapping[str, Any]) -> nn.Module:
    """The module of a part with its sizes, weights as the library initialises them (or on the current device)."""
    if role == "text_encoder":
        from transformers import CLIPTextConfig, CLIPTextModel

        return CLIPTextModel(CLIPTextConfig(**sizes))  # type: ignore[no-any-return]
    if role == "denoiser":
        from diffusers import UNet2DConditionModel

        return UNet2DConditionModel(**sizes)  # type: ignore[no-any-return]
    from diffusers import AutoencoderKL

    return AutoencoderKL(**sizes)  # type: ignore[no-any-return]


def read_part(part: Part, sizes: Mapping[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """(canonical name, tensor in the file's dtype) of every tensor of a part, read one by one."""
    if part.path is None:
        raise WeightsError(
            f"the {part.role} has no weights yet",
            expected="a part with a file",
            do=f"train it first, or name one in base.parts.{part.role}",
        )
    shapes = tensor_shapes(part.role, sizes)
    with open_tensors(part.path) as file:
        stored = stored_names(part.role, part.layout, part.prefix, file.names, sizes)
        for canonical, name in stored.items():
            # Older autoencoders keep their attention as 1x1 convolutions: the same numbers in another shape.
            yield canonical, file.read(name).reshape(shapes[canonical])


def load_part(
    part: Part, sizes: Mapping[str, Any], device: torch.device, dtype: torch.dtype, seed: int | None = None
) -> nn.Module:
    """One module of a part, its parameters in `dtype` on `device`; peak memory is about the module's own size.

    A part without a file is created from `seed`.
    """
    if part.path is None:
        if seed is None:
            next(read_part(part, sizes))
        created = create_part(part.role, sizes, int(seed or 0))
        # torch's own `to`: diffusers' override warns about modules to keep in float32, of which these have none.
        return nn.Module.to(created, device=device, dtype=dtype)
    named = ((live_layer(part.role, name), tensor) for name, tensor in read_part(part, sizes))
    return filled_module(
        lambda: build_module(part.role, sizes), named, device, dtype, source=f"the {part.role} in {part.path}"
    )


def create_part(role: str, sizes: Mapping[str, Any], seed: int) -> nn.Module:
    """A new module in float32, a function of role, sizes and seed only.

    The last layer of every residual branch of a denoiser starts at zero, as in latent diffusion's own code, so that
    it begins as the identity.
    """
    module = created_module(lambda: build_module(role, sizes), [role, seed, sizes])
    if role == "denoiser":
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                layer = name.rpartition(".")[0]
                if layer == "conv_out" or layer.endswith((".conv2", ".proj_out")):
                    parameter.zero_()
    return module


def part_module(base: Base, role: str, device: torch.device, dtype: torch.dtype, seed: int | None = None) -> nn.Module:
    """The module of one role of a base."""
    return load_part(base.parts[role], base.architecture[role], device, dtype, seed)


def home_of(denoiser: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Device and dtype of a denoiser's own weights, read from a layer that nothing wraps or packs."""
    weight = denoiser.get_parameter("conv_norm_out.weight")
    return weight.device, weight.dtype


def canonical_tensors(role: str, module: nn.Module) -> dict[str, torch.Tensor]:
    """Canonical name -> parameter of a running module, also of one that an adapter library has wrapped."""
    root = "text_model." if role == "text_encoder" else ""
    return {
        root + name.replace(".base_layer.", "."): parameter.detach()
        for name, parameter in module.named_parameters()
        if ".lora_" not in name
    }
