"""Adapters for the test engines and for Stable Diffusion, filled with numbers that are nowhere zero."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from tunesmith.adapters.adapter import Adapter, Pair
from tunesmith.engines.protocol import Base


def adapter_for(
    shapes: Mapping[tuple[str, str], tuple[int, ...]], *, dora: bool = False, size: float = 0.1, ranks: int = 3
) -> Adapter:
    """A pair for every (component, layer) of weights of these shapes; ranks and alphas differ by layer."""
    draw = torch.Generator().manual_seed(1)
    layers = {}
    for index, (layer, shape) in enumerate(shapes.items()):
        rank = 1 + index % ranks
        down = torch.randn((rank, *shape[1:]), generator=draw) * size
        up = torch.randn((shape[0], rank, *[1] * (len(shape) - 2)), generator=draw) * size
        magnitude = torch.rand(shape[0], generator=draw) + 0.5 if dora else None
        layers[layer] = Pair(down, up, rank * (0.5 + index % 2), magnitude)
    return Adapter(layers)


def pictures_adapter(base: Base, *, dora: bool = False) -> Adapter:
    """For the engine `test_pictures`: every layer of both components."""
    from tunesmith_test_engines import picture_shapes

    shapes = {}
    for component in ("denoiser", "text_encoder"):
        tensors = picture_shapes.shapes_of(component, base.architecture[component])
        for layer in picture_shapes.layers_of(base, component):
            shapes[component, layer] = tensors[f"{layer}.weight"]
    return adapter_for(shapes, dora=dora)


def diffusion_adapter(
    base: Base, *, convolutions: bool = True, dora: bool = False, ranks: int = 3, components: tuple[str, ...] = ()
) -> Adapter:
    """For `stable_diffusion`: the layers that a LoRA of kohya's has, with `convolutions` those of a LoCon."""
    from tunesmith.engines.stable_diffusion.layouts import ADAPTED, adapter_layers
    from tunesmith.engines.stable_diffusion.shapes import tensor_shapes

    shapes = {}
    for component in components or ADAPTED:
        sizes = base.architecture[component]
        tensors = tensor_shapes(component, sizes)
        for layer in adapter_layers(component, sizes, convolutions=convolutions):
            shapes[component, layer] = tensors[f"{layer}.weight"]
    return adapter_for(shapes, dora=dora, ranks=ranks)
