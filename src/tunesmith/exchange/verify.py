"""Proof that a written file says what went in: read back by the target's own key rules, tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from tunesmith.adapters.adapter import Adapter, Pair
from tunesmith.adapters.describe import describe_adapter
from tunesmith.adapters.files import DTYPES, read_adapter
from tunesmith.engines.protocol import Base, Engine
from tunesmith.errors import ExchangeError, TunesmithError
from tunesmith.recipe.schema import BaseSection

# Half a unit in the last place of each dtype, twice over: one rounding when writing, one of the folded alpha.
ROUNDING: Mapping[str, float] = {"F32": 2.0**-22, "F16": 2.0**-10, "BF16": 2.0**-7}
# Below this, fp16 numbers lose digits (subnormals step by 2^-24); the others reach far lower.
SMALLEST: Mapping[str, float] = {"F32": 1e-37, "F16": 2.0**-24, "BF16": 1e-37}


@dataclass(frozen=True)
class Verification:
    """What reading back found. `matched` counts layers (adapters) or tensors (bases), `leftover` names keys of none.

    `largest_difference` is the largest absolute difference between a number that went in and what came back.
    """

    matched: int
    leftover: tuple[str, ...]
    largest_difference: float
    layout: str


def verify_adapter(path: Path, engine: Engine, *, base: Base, adapter: Adapter) -> Verification:
    """Compare the adapter file at `path` with the adapter that went in.

    Where the layout fuses layers, one comes back with the factors of all of them; then its change is compared. Raises
    ExchangeError where a key names no layer, a layer is missing, or a number differs by more than the rounding of the
    file's dtype.
    """
    try:
        facts = describe_adapter(path)
        found = read_adapter(path, engine.layouts, base)
    except ExchangeError:
        raise
    except TunesmithError as error:
        raise ExchangeError(f"{path.name} does not load back: {error.message}", do="report this") from error
    missing = [layer for layer in adapter.layers if layer not in found.layers]
    leftover = [layer for layer in found.layers if layer not in adapter.layers]
    if missing or leftover:
        component, name = (missing or leftover)[0]
        raise ExchangeError(
            f"{path.name} came back with {len(missing)} layers missing and {len(leftover)} left over, "
            f"the first {name} of {component}",
            do="report this",
        )
    if len(facts["dtypes"]) != 1 or facts["dtypes"][0] not in ROUNDING:
        raise ExchangeError(f"{path.name} is in {', '.join(facts['dtypes'])}", expected=f"one of {', '.join(ROUNDING)}")
    dtype = facts["dtypes"][0]
    largest = 0.0
    for (component, name), pair in adapter.layers.items():
        differences = _differences(pair, found.layers[component, name], dtype)
        for what, (difference, limit) in differences.items():
            if not difference <= limit:
                raise ExchangeError(
                    f"{what} of {name} came back from {path.name} changed by {difference:.2g}",
                    expected=f"at most the rounding of {dtype}, {limit:.2g}",
                    do="report this",
                )
            largest = max(largest, difference)
    return Verification(len(adapter.layers), (), largest, facts["layout"])


def _differences(given: Pair, back: Pair, dtype: str) -> dict[str, tuple[float, float]]:
    """Largest difference of each factor and what rounding allows; layouts may move alpha / rank into `up`."""
    if (given.magnitude is None) != (back.magnitude is None):
        return {"the magnitude": (float("inf"), 0.0)}
    if given.down.shape != back.down.shape and given.down.shape[1:] == back.down.shape[1:]:
        found = {"the change": _change_difference(given, back, dtype)}
    else:
        scaled = (given.up.float() * given.scale, back.up.float() * back.scale)
        found = {"down": _limited(given.down, back.down, dtype), "up": _limited(*scaled, dtype)}
    if given.magnitude is not None and back.magnitude is not None:
        found["magnitude"] = _limited(given.magnitude, back.magnitude, dtype)
    return found


def _limited(one: torch.Tensor, other: torch.Tensor, dtype: str) -> tuple[float, float]:
    difference, size = _difference(one, other)
    return difference, ROUNDING[dtype] * size + SMALLEST[dtype]


def _change_difference(given: Pair, back: Pair, dtype: str) -> tuple[float, float]:
    """The difference of (alpha / rank) up @ down, and what rounding both factors allows, at the worst number."""
    one, other = (
        (pair.up.detach().cpu().double().flatten(1) * pair.scale, pair.down.detach().cpu().double().flatten(1))
        for pair in (given, back)
    )
    if one[0].shape[0] != other[0].shape[0]:
        return float("inf"), 0.0
    (up, down), (up_rounding, down_rounding) = (
        tuple(factor.abs() for factor in one),
        tuple(ROUNDING[dtype] * factor.abs() + SMALLEST[dtype] for factor in one),
    )
    limit = up_rounding @ down + up @ down_rounding + up_rounding @ down_rounding
    difference = (one[0] @ one[1] - other[0] @ other[1]).abs()
    worst = int((difference - limit).nan_to_num(float("inf")).argmax())
    return float(difference.flatten()[worst]), float(limit.flatten()[worst])


def _difference(one: torch.Tensor, other: torch.Tensor) -> tuple[float, float]:
    if one.numel() != other.numel():
        return float("inf"), 0.0
    wide = one.detach().cpu().double().flatten()
    if wide.numel() == 0:
        return 0.0, 0.0
    return float((wide - other.double().flatten()).abs().max()), float(wide.abs().max())


def verify_base(
    path: Path, engine: Engine, *, expected: Mapping[str, Mapping[str, torch.Tensor]], dtype: str
) -> Verification:
    """Open the base at `path` and compare the parts in `expected` with it, one tensor at a time.

    `expected` is role -> canonical name -> tensor, asked for name by name (`MergedPart` computes them then); each is
    compared after rounding to `dtype` (fp32, fp16, bf16), bit for bit. Raises ExchangeError.
    """
    try:
        base = engine.open(BaseSection(path=str(path)))
        matched, largest = 0, 0.0
        for role, wanted in expected.items():
            seen = set()
            for name, back in engine.tensors(base, role):
                if name not in wanted:
                    raise ExchangeError(f"{path.name} has {name} in its {role}, which nothing asked for")
                given = wanted[name]
                seen.add(name)
                rounded = given.detach().cpu().to(DTYPES[dtype]) if given.is_floating_point() else given.cpu()
                if not torch.equal(rounded, back.to(rounded.dtype)):
                    difference, _ = _difference(rounded, back)
                    raise ExchangeError(f"{name} came back from {path.name} changed by {difference:.2g}")
                if given.dtype != back.dtype:
                    largest = max(largest, float((given.float() - back.float()).abs().max()) if given.numel() else 0.0)
                matched += 1
            lost = [name for name in wanted if name not in seen]
            if lost:
                raise ExchangeError(f"{path.name} came back without {lost[0]} ({len(lost)} tensors)")
    except ExchangeError:
        raise
    except TunesmithError as error:
        raise ExchangeError(f"{path.name} does not open again: {error.message}", do="report this") from error
    return Verification(matched, (), largest, next(iter(base.parts.values())).layout)
