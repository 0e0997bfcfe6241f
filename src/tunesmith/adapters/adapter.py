"""The canonical form of an adapter: LoRA factors by (component, canonical layer name).

A layer's weight W becomes W + (alpha / rank) * up @ down (Hu et al., 2021, arXiv 2106.09685, section 4.1). With a
magnitude m it becomes m * V / |V|, V being that sum and the norm taken over all but the output axis (DoRA: Liu et
al., 2024, arXiv 2402.09353, equation 5).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from tunesmith.errors import AdapterError

Layer = tuple[str, str]  # (component, canonical name)


@dataclass(frozen=True)
class Pair:
    """Factors of one layer.

    `down` is [rank, in] (linear) or [rank, in, *kernel] (convolution), `up` [out, rank] or [out, rank, 1 ...],
    `magnitude` [out] where the layer is DoRA. `alpha` divided by the rank is the factor of the sum.
    """

    down: torch.Tensor
    up: torch.Tensor
    alpha: float
    magnitude: torch.Tensor | None = None

    @property
    def rank(self) -> int:
        """Rank of the pair."""
        return int(self.down.shape[0])

    @property
    def scale(self) -> float:
        """alpha / rank."""
        return self.alpha / self.rank

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """Down, up and, for DoRA, the magnitude."""
        return (self.down, self.up) if self.magnitude is None else (self.down, self.up, self.magnitude)


@dataclass(frozen=True)
class Adapter:
    """LoRA factors by (component, canonical layer name), and the text that came with them."""

    layers: Mapping[Layer, Pair]
    metadata: Mapping[str, str] = field(default_factory=dict)

    def rank_of(self, layer: Layer) -> int:
        """Rank on one layer."""
        return self.layers[layer].rank

    @property
    def parameters(self) -> int:
        """How many numbers it holds."""
        return sum(tensor.numel() for pair in self.layers.values() for tensor in pair.tensors)

    @property
    def components(self) -> tuple[str, ...]:
        """The components it has layers on, in the order of the layers."""
        return tuple(dict.fromkeys(component for component, _ in self.layers))


def usual_rank_and_alpha(pairs: Mapping[str, Pair]) -> tuple[int, float]:
    """The (rank, alpha) that most layers have, the smaller name winning a tie; file headers name it."""
    counts = Counter((pairs[name].rank, pairs[name].alpha) for name in sorted(pairs))
    return counts.most_common(1)[0][0]


def delta(pair: Pair, weight: torch.Tensor | None = None) -> torch.Tensor:
    """What a pair adds to the frozen weight, float32, in the weight's shape [out, in, *kernel].

    For DoRA `weight` is needed, since the magnitude rescales the whole. Computed on the device of the factors.
    """
    added = pair.scale * (pair.up.float().flatten(1) @ pair.down.float().flatten(1))
    added = added.reshape(pair.up.shape[0], *pair.down.shape[1:])
    if weight is not None:
        added = added.reshape(weight.shape)
    if pair.magnitude is None:
        return added
    if weight is None:
        raise AdapterError("the change of a DoRA layer depends on its weight", do="pass the weight")
    frozen = weight.to(added.device, torch.float32)
    return normalised(frozen + added) * column(pair.magnitude.float(), added.dim()) - frozen


def row_norm(weight: torch.Tensor) -> torch.Tensor:
    """Euclidean norm of each output row of [out, in, *kernel]: [out]."""
    norm: torch.Tensor = torch.linalg.vector_norm(weight.flatten(1), dim=1)
    return norm


def normalised(weight: torch.Tensor) -> torch.Tensor:
    """Every output row of [out, in, *kernel] divided by its norm."""
    return weight / column(row_norm(weight), weight.dim())


def column(values: torch.Tensor, dimensions: int) -> torch.Tensor:
    """[out] as [out, 1, ...] with so many axes, to multiply rows by."""
    return values.reshape(-1, *[1] * (dimensions - 1))


def check_pair(name: str, pair: Pair, shape: torch.Size | tuple[int, ...]) -> None:
    """Raise AdapterError naming the layer where a pair does not fit a weight of `shape` [out, in, *kernel]."""
    fits = (
        pair.up.shape[0] == shape[0]
        and pair.down.shape[1:].numel() == torch.Size(shape[1:]).numel()
        and pair.down.shape[1] == shape[1]
        and (pair.magnitude is None or pair.magnitude.numel() == shape[0])
    )
    if not fits:
        raise AdapterError(
            f"the LoRA is for another base: on {name} it is for a weight of {_size(pair)}, the base has {list(shape)}",
            expected="an adapter trained on this base or on one of the same sizes",
            do="choose the base that the LoRA was trained on",
        )


def _size(pair: Pair) -> list[int]:
    return [pair.up.shape[0], *pair.down.shape[1:]]


def check_whole(name: str, pair: Pair) -> None:
    """Raise AdapterError where a pair's factors disagree on the rank, or hold a NaN or an Inf."""
    if pair.rank == 0 or pair.up.dim() < 2 or pair.up.shape[1] != pair.rank or pair.up[0].numel() != pair.rank:
        raise AdapterError(
            f"the factors of {name} disagree: down {list(pair.down.shape)}, up {list(pair.up.shape)}",
            expected="down [rank, in, ...] and up [out, rank]",
            do="this file is damaged; get it again",
        )
    # A sum is NaN or Inf where any number is, and needs no mask in memory; float64 cannot overflow here.
    if not all(bool(torch.isfinite(tensor.double().sum())) for tensor in pair.tensors):
        raise AdapterError(
            f"the LoRA holds NaN or Inf in {name}",
            expected="finite numbers",
            do="use an earlier checkpoint; training diverged before this one",
        )
