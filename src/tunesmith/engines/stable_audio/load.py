"""Modules from parts: built without memory, filled tensor by tensor, or created from a seed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from tunesmith.engines.protocol import Base, Part
from tunesmith.engines.stable_audio.names import stored_names
from tunesmith.engines.stable_audio.shapes import tensor_shapes
from tunesmith.errors import WeightsError
from tunesmith.weights.files import open_tensors
from tunesmith.weights.modules import created_module, filled_module

# The last layer of every residual branch of a new denoiser starts at zero, so that each block begins as the identity.
_ZERO_ENDS = (".attn1.to_out.0.weight", ".attn2.to_out.0.weight", ".ff.net.2.weight", ".ff.net.2.bias")
_ZERO_LAYERS = ("preprocess_conv.weight", "postprocess_conv.weight", "proj_out.weight")


def build_module(role: str, sizes: Mapping[str, Any]) -> nn.Module:
    """The module of a part with its sizes, weights as the library initialises them (or on the current device)."""
    if role == "text_encoder":
        from transformers import T5Config, T5EncoderModel

        return T5EncoderModel(T5Config(**sizes, dropout_rate=0.0))  # type: ignore[no-any-return]
    import diffusers

    if role == "denoiser":
        return diffusers.StableAudioDiTModel(**sizes)  # type: ignore[no-any-return]
    if role == "projection":
        from diffusers.pipelines.stable_audio.modeling_stable_audio import StableAudioProjectionModel

        return StableAudioProjectionModel(**sizes)  # type: ignore[no-any-return]
    with _quiet_weight_norm():
        return diffusers.AutoencoderOobleck(**sizes)  # type: ignore[no-any-return]


@contextmanager
def _quiet_weight_norm() -> Iterator[None]:
    """diffusers builds its autoencoder with torch's older weight normalisation, which says so at every layer."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*weight_norm.*is deprecated", category=FutureWarning)
        yield


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
        for canonical, at in stored_names(part.role, part.layout, part.prefix, file.names, sizes).items():
            tensor = file.read(at.name)
            if at.parts > 1:  # a copy, so that the fused matrix is not kept alive by its rows
                tensor = tensor.chunk(at.parts, dim=0)[at.part].clone()
            yield canonical, tensor.reshape(shapes[canonical])


def load_part(
    part: Part, sizes: Mapping[str, Any], device: torch.device, dtype: torch.dtype, seed: int | None = None
) -> nn.Module:
    """One module of a part, its parameters in `dtype` on `device`; a part without a file is created from `seed`."""
    if part.path is None:
        if seed is None:
            next(read_part(part, sizes))
        # torch's own `to`: diffusers' override warns about modules to keep in float32, of which these have none.
        return nn.Module.to(create_part(part.role, sizes, int(seed or 0)), device=device, dtype=dtype)
    return filled_module(
        lambda: build_module(part.role, sizes),
        read_part(part, sizes),
        device,
        dtype,
        source=f"the {part.role} in {part.path}",
    )


def create_part(role: str, sizes: Mapping[str, Any], seed: int) -> nn.Module:
    """A new module in float32, a function of role, sizes and seed only."""
    module = created_module(lambda: build_module(role, sizes), [role, seed, dict(sizes)])
    if role == "denoiser":
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                if name.endswith(_ZERO_ENDS) or name in _ZERO_LAYERS:
                    parameter.zero_()
    return module


def part_module(base: Base, role: str, device: torch.device, dtype: torch.dtype, seed: int | None = None) -> nn.Module:
    """The module of one role of a base."""
    return load_part(base.parts[role], base.architecture[role], device, dtype, seed)


def home_of(denoiser: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Device and dtype of a denoiser's own weights, read from a layer that nothing wraps."""
    weight = denoiser.get_parameter("preprocess_conv.weight")
    return weight.device, weight.dtype


def canonical_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Canonical name -> parameter of a running module, also of one that an adapter library has wrapped."""
    return {
        name.replace(".base_layer.", "."): parameter.detach()
        for name, parameter in module.named_parameters()
        if ".lora_" not in name
    }
