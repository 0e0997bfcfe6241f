"""An optimiser's state as named tensors and plain JSON, whatever the library: no pickles, floats exact to the bit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from tunesmith.errors import JobError
from tunesmith.training.state import TrainState
from tunesmith.weights.files import TensorFile

# How an update is computed, not what it is: chosen for the device at hand, never taken from a state.
_HOW = ("foreach", "fused", "capturable", "differentiable", "maximize", "params")


def packed(value: Any) -> Any:
    """JSON for bool, int, float, str, None, tuples, lists and dicts; floats in hexadecimal, so they come back exact."""
    match value:
        case bool() | int() | str() | None:
            return value
        case float():
            return {"float": value.hex() if math.isfinite(value) else str(value)}
        case tuple():
            return {"tuple": [packed(one) for one in value]}
        case list():
            return [packed(one) for one in value]
        case dict():
            return {"dict": {str(key): packed(one) for key, one in value.items()}}
    raise JobError(f"the optimiser keeps a {type(value).__name__}, which a state file cannot hold")


def unpacked(value: Any) -> Any:
    """The inverse of `packed`."""
    match value:
        case {"float": str(text)}:
            return float.fromhex(text)
        case {"tuple": list(entries)}:
            return tuple(unpacked(one) for one in entries)
        case {"dict": dict(entries)}:
            return {key: unpacked(one) for key, one in entries.items()}
        case list():
            return [unpacked(one) for one in value]
    return value


def groups_record(state: TrainState) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The optimiser's state: tensors by file name, and all other values as JSON."""
    document = state.optimiser.state_dict()
    tensors: dict[str, torch.Tensor] = {}
    names = list(state.parameters)
    per_parameter: dict[str, Any] = {}
    for index, entries in document["state"].items():
        per_parameter[names[index]] = _sorted_out(f"optimiser/{names[index]}", entries, tensors)
    groups = [
        _sorted_out(f"group/{at}", {key: value for key, value in group.items() if key not in _HOW}, tensors)
        for at, group in enumerate(document["param_groups"])
    ]
    return tensors, {"rule": type(state.optimiser).__name__, "state": per_parameter, "groups": groups}


def restore_optimiser(state: TrainState, numbers: Mapping[str, Any], file: TensorFile) -> None:
    """Restore through the optimiser's own `load_state_dict`. Raises JobError where it is another's."""
    fresh, rule = state.optimiser.state_dict(), type(state.optimiser).__name__
    if numbers["rule"] != rule or len(fresh["param_groups"]) != len(numbers["groups"]):
        raise JobError(
            f"the state was saved by {numbers['rule']} over {len(numbers['groups'])} components",
            expected=f"{rule} over {len(fresh['param_groups'])}",
            do="resume with the recipe that the state was saved with",
        )
    tensors: dict[str, dict[str, torch.Tensor]] = {}
    for name in file.names:
        if name.startswith(("optimiser/", "group/")):
            place, _, key = name.rpartition("/")
            tensors.setdefault(place, {})[key] = file.read(name).clone()
    entries = {}
    for index, name in enumerate(state.parameters):
        kept = {**unpacked(numbers["state"].get(name, {"dict": {}})), **tensors.get(f"optimiser/{name}", {})}
        if kept:
            entries[index] = kept
    groups = []
    for at, (group, recorded) in enumerate(zip(fresh["param_groups"], numbers["groups"], strict=True)):
        moved = {key: value.to(state.device) for key, value in tensors.get(f"group/{at}", {}).items()}
        groups.append({**group, **unpacked(recorded), **moved})
    state.optimiser.load_state_dict({"state": entries, "param_groups": groups})


def _sorted_out(place: str, entries: Mapping[str, Any], tensors: dict[str, torch.Tensor]) -> Any:
    """Tensors go to `tensors` under `place`, the rest comes back packed."""
    tensors.update({f"{place}/{key}": value for key, value in entries.items() if isinstance(value, torch.Tensor)})
    return packed({key: value for key, value in entries.items() if not isinstance(value, torch.Tensor)})
