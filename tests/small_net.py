"""A small net with every kind of layer an adapter goes on, and name tables for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from tunesmith.adapters.adapter import Adapter, Pair
from tunesmith.recipe.schema import MethodSection


@dataclass(frozen=True)
class Spot:
    """As an engine's Target."""

    component: str
    canonical: str
    live: str
    kind: str


@dataclass(frozen=True)
class Model:
    """As an engine's Model."""

    components: Mapping[str, nn.Module]


class Net(nn.Module):
    """[batch, 3, 8, 8] -> [batch, 5]; `twin.linear` ends like `linear` on purpose."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.point = nn.Conv2d(6, 4, 1)
        self.linear = nn.Linear(4, 5, bias=False)
        self.line = nn.Conv1d(5, 5, 3, padding=1)
        self.twin = nn.ModuleDict({"linear": nn.Linear(5, 5)})
        self.raw = nn.Parameter(torch.eye(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Through all of them."""
        x = self.linear(self.point(self.conv(x)).flatten(2).mean(2))
        x = self.line(x.unsqueeze(2)).squeeze(2)
        out: torch.Tensor = self.twin["linear"](x) @ self.raw
        return out


SPOTS = (
    Spot("body", "old.conv", "conv", "conv"),
    Spot("body", "old.point", "point", "conv1x1"),
    Spot("body", "old.linear", "linear", "linear"),
    Spot("body", "old.line", "line", "conv"),
)


@dataclass(frozen=True)
class Tables:
    """Name tables: two components, the second with a prefix that live names lack."""

    folders: Mapping[str, str] = field(default_factory=lambda: {"body": "unet", "words": "text_encoder"})
    literal_peft: bool = False

    def adapter_stem(self, layout: str, component: str, canonical: str) -> str:
        """kohya with underscores, the others with dots."""
        if layout == "kohya":
            return f"lora_{self.folders[component]}_{canonical.replace('.', '_')}"
        if layout == "peft" and self.literal_peft:
            return f"base_model.model.{canonical}"
        return f"{self.folders[component]}.{canonical}"

    @property
    def prefixes(self) -> Mapping[str, tuple[str, ...]]:
        """Folders, and peft's own start."""
        return {"peft": ("base_model.model.",), "diffusers": tuple(f"{name}." for name in self.folders.values())}

    def adapter_layers(self, layout: str, stem: str, base: Any) -> tuple[tuple[str, str], ...]:
        """By trying all of the base's layers."""
        for component, layers in base.items():
            for canonical in layers:
                if self.adapter_stem(layout, component, canonical) == stem:
                    return ((component, canonical),)
        return ()

    def metadata(self, layout: str, base: Any) -> Mapping[str, str]:
        """One line for kohya."""
        return {"ss_base_model_version": "net_v1"} if layout == "kohya" else {}


BASE = {"body": ("old.conv", "old.point", "old.linear", "old.line"), "words": ("text.layer",)}


def make_net(dtype: torch.dtype = torch.float32) -> Net:
    """Weights by formula."""
    net = Net().eval()
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.4)
    return net.to(dtype)


def make_pair(shape: tuple[int, ...], rank: int, alpha: float, seed: int, dora: bool = False) -> Pair:
    """Factors for a weight of `shape`, none of them zero."""
    draw = torch.Generator().manual_seed(seed)
    down = torch.randn((rank, *shape[1:]), generator=draw) * 0.3
    up = torch.randn((shape[0], rank, *[1] * (len(shape) - 2)), generator=draw) * 0.3
    magnitude = torch.rand(shape[0], generator=draw) + 0.5 if dora else None
    return Pair(down, up, alpha, magnitude)


def make_adapter(net: Net, *, dora: bool = False, words: bool = False) -> Adapter:
    """A different rank and alpha on every layer."""
    layers = {
        (spot.component, spot.canonical): make_pair(
            tuple(net.get_submodule(spot.live).weight.shape), 2 + index, 1.5 + index, index, dora
        )
        for index, spot in enumerate(SPOTS)
    }
    if words:
        layers["words", "text.layer"] = make_pair((7, 6), 3, 3.0, 99, dora)
    return Adapter(layers)


def picture() -> torch.Tensor:
    """[2, 3, 8, 8]."""
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(5))


def lora(**knobs: Any) -> MethodSection:
    """A method section."""
    return MethodSection(**{"name": "lora", "rank": 2, "alpha": 1.0, "conv_rank": 3, "conv_alpha": 6.0, **knobs})
