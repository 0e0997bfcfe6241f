"""Adapters baked into a full checkpoint: W + sum of weight * change, computed in float32 and rounded once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from tunesmith.adapters.adapter import Adapter, Layer, Pair, check_pair, delta
from tunesmith.adapters.files import DTYPES
from tunesmith.engines.protocol import Base, Engine
from tunesmith.errors import AdapterError, ExchangeError
from tunesmith.exchange.settling import settle
from tunesmith.exchange.verify import verify_base
from tunesmith.weights.atomic import reserve


class MergedPart(Mapping[str, torch.Tensor]):
    """One part of a base with adapters added, computed tensor by tensor when asked for.

    What is kept are the base's own tensors, which lie in the mapped file where it is safetensors.
    """

    def __init__(
        self,
        tensors: Mapping[str, torch.Tensor],
        changes: Mapping[str, Sequence[tuple[Pair, float]]],
        dtype: torch.dtype,
    ) -> None:
        self._tensors = tensors
        self._changes = changes
        self._dtype = dtype

    def __getitem__(self, name: str) -> torch.Tensor:
        tensor = self._tensors[name]
        changes = self._changes.get(name, ())
        if not changes:
            return tensor.to(self._dtype) if tensor.is_floating_point() else tensor
        total = tensor.float()
        for pair, weight in changes:
            total = total + weight * delta(pair, tensor).reshape(tensor.shape)
        return total.to(self._dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def merge_adapters(
    engine: Engine,
    base: Base,
    *,
    adapters: Sequence[tuple[Adapter, float]],
    path: Path,
    layout: str,
    dtype: str,
) -> Path:
    """Write a complete base equal to `base` plus every adapter at its weight; returns the path to open.

    It is read back and compared bit for bit before it appears at `path`. Raises AdapterError where an adapter does
    not fit the base, ExchangeError where the proof fails, DiskFull.
    """
    if not adapters:
        raise ExchangeError("there is nothing to merge", expected="at least one adapter")
    if layout not in engine.layouts.weight_layouts or dtype not in DTYPES:
        raise ExchangeError(
            f"{engine.facts.name} writes no base as {layout} in {dtype}",
            expected=f"{', '.join(engine.layouts.weight_layouts)} in {', '.join(DTYPES)}",
        )
    merged = merged_parts(engine, base, adapters, DTYPES[dtype])

    def prove(draft: Path) -> None:
        verify_base(draft, engine, expected=merged, dtype=dtype)

    reserve(Path(path).parent, sum(part.parameters for part in base.parts.values()) * DTYPES[dtype].itemsize)
    opened, _ = settle(path, lambda draft: engine.write_base(base, merged, draft, layout, dtype), prove)
    return opened


def merged_parts(
    engine: Engine, base: Base, adapters: Sequence[tuple[Adapter, float]], dtype: torch.dtype
) -> dict[str, MergedPart]:
    """role -> the part with the adapters added, for every part that an adapter changes."""
    wanted: dict[Layer, list[tuple[Pair, float]]] = {}
    for adapter, weight in adapters:
        for layer, pair in adapter.layers.items():
            wanted.setdefault(layer, []).append((pair, weight))
    merged: dict[str, MergedPart] = {}
    for component in dict.fromkeys(component for component, _ in wanted):
        layers = {name: pairs for (owner, name), pairs in wanted.items() if owner == component}
        role, tensors = _part_with(engine, base, component, layers)
        changes = {}
        for name, pairs in layers.items():
            for pair, _ in pairs:
                check_pair(name, pair, tensors[f"{name}.weight"].shape)
            changes[f"{name}.weight"] = pairs
        if role in merged:
            raise ExchangeError(f"two components of the adapter lie in the part {role}", do="merge them one by one")
        merged[role] = MergedPart(tensors, changes, dtype)
    return merged


def _part_with(
    engine: Engine, base: Base, component: str, layers: Mapping[str, object]
) -> tuple[str, dict[str, torch.Tensor]]:
    """The part that holds a component's layers: of the same name, or the one that has them."""
    roles = [component] if component in base.parts else list(base.parts)
    absent = next(iter(layers))
    for role in roles:
        if base.parts[role].path is None:
            continue
        tensors = dict(engine.tensors(base, role))
        absent = next((name for name in layers if f"{name}.weight" not in tensors), "")
        if not absent:
            return role, tensors
    raise AdapterError(
        f"the base has no layer {absent} for the adapter's {component}",
        expected="the base that the adapter was trained on",
        do="choose that base",
    )
