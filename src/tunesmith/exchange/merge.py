"""Adapters baked into a full checkpoint: W + sum of weight * change, computed in float32 and rounded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from tunesmith.adapters.adapter import Adapter, Layer, Pair, check_pair
from tunesmith.adapters.files import DTYPES
from tunesmith.engines.protocol import Base, Engine
from tunesmith.errors import AdapterError, ExchangeError
from tunesmith.exchange.parts import MergedPart, StoredPart
from tunesmith.exchange.settling import check_target, settle, weights_target
from tunesmith.exchange.verify import verify_base
from tunesmith.weights.atomic import reserve


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
    path = weights_target(Path(path), layout)
    check_target(path, base)
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
        role, part = _part_with(engine, base, component, layers)
        changes = {}
        for name, pairs in layers.items():
            for pair, _ in pairs:
                check_pair(name, pair, part.shapes[f"{name}.weight"])
            changes[f"{name}.weight"] = pairs
        if role in merged:
            raise ExchangeError(f"two components of the adapter lie in the part {role}", do="merge them one by one")
        merged[role] = MergedPart(part, changes, dtype)
    return merged


def _part_with(engine: Engine, base: Base, component: str, layers: Mapping[str, object]) -> tuple[str, StoredPart]:
    """The part that holds a component's layers: of the same name, or the one that has them."""
    roles = [component] if component in base.parts else list(base.parts)
    absent = next(iter(layers))
    for role in roles:
        if base.parts[role].path is None:
            continue
        part = StoredPart(engine, base, role)
        absent = next((name for name in layers if f"{name}.weight" not in part), "")
        if not absent:
            return role, part
    raise AdapterError(
        f"the base has no layer {absent} for the adapter's {component}",
        expected="the base that the adapter was trained on",
        do="choose that base",
    )
