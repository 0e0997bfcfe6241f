"""Parts of a base as mappings that hold next to nothing: tensors are read, and changed, when asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from tunesmith.adapters.adapter import Pair, delta
from tunesmith.engines.protocol import Base, Engine


class StoredPart(Mapping[str, torch.Tensor]):
    """One part of a base: canonical name -> tensor, read from its file when asked for.

    Asked in the engine's own order, one tensor is in memory at a time. Out of order, what was passed over is kept
    until it is asked for.
    """

    def __init__(self, engine: Engine, base: Base, role: str) -> None:
        self._engine, self._base, self._role = engine, base, role
        self.shapes = {name: tuple(tensor.shape) for name, tensor in engine.tensors(base, role)}
        self._stream: Iterator[tuple[str, torch.Tensor]] = iter(())
        self._passed: dict[str, torch.Tensor] = {}

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self.shapes:
            raise KeyError(name)
        found = self._next(name)
        if found is None:  # read before, or never begun: from the start again
            self._passed.clear()
            self._stream = self._engine.tensors(self._base, self._role)
            found = self._next(name)
        if found is None:
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def __contains__(self, name: object) -> bool:
        return name in self.shapes  # Mapping's own would read the tensor

    def _next(self, name: str) -> torch.Tensor | None:
        if name in self._passed:
            return self._passed.pop(name)
        for other, tensor in self._stream:
            if other == name:
                return tensor
            self._passed[other] = tensor
        return None


class MergedPart(Mapping[str, torch.Tensor]):
    """A part with adapters added: W + sum of weight * change, in float32, rounded once to `dtype`."""

    def __init__(
        self,
        part: StoredPart,
        changes: Mapping[str, Sequence[tuple[Pair, float]]],
        dtype: torch.dtype,
    ) -> None:
        self._part = part
        self._changes = changes
        self._dtype = dtype

    def __getitem__(self, name: str) -> torch.Tensor:
        tensor = self._part[name]
        changes = self._changes.get(name, ())
        if not changes:
            return tensor.to(self._dtype) if tensor.is_floating_point() else tensor
        total = tensor.float()
        for pair, weight in changes:
            total = total + weight * delta(pair, tensor).reshape(tensor.shape)
        return total.to(self._dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._part)

    def __len__(self) -> int:
        return len(self._part)

    def __contains__(self, name: object) -> bool:
        return name in self._part
