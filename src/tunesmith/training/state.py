"""TrainState: the one thing that changes while training."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from tunesmith.adapters.attached import Attached
from tunesmith.training.world import World


@dataclass(frozen=True)
class Group:
    """One component that trains: its rate, and its parameters by name, in the optimiser's order."""

    component: str
    rate: float
    parameters: dict[str, torch.nn.Parameter]


@dataclass
class TrainState:
    """Everything a run needs to go on: live tensors, optimiser, average and where it is.

    Names are `component/…`. `buffers` are those of components that train whole. `batch_index` counts batches drawn over
    all epochs, `position_items` items seen by all ranks. `overflows` counts fp16 steps skipped in a row. `updating` is
    true only while weights are being moved, so that an interrupted update is never taken for a good state;
    `last_file` is the last state known to be good on disk.
    """

    groups: tuple[Group, ...]
    optimiser: torch.optim.Optimizer
    seed: int
    buffers: dict[str, torch.Tensor] = field(default_factory=dict)
    ema: dict[str, torch.Tensor] | None = None
    attached: Attached | None = None
    scaler: torch.amp.GradScaler | None = None
    world: World = field(default_factory=World)
    step: int = 0
    batch_index: int = 0
    position_items: int = 0
    overflows: int = 0
    updating: bool = False
    last_file: Path | None = None

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """Every tensor that trains, by name, in the optimiser's order."""
        return {name: parameter for group in self.groups for name, parameter in group.parameters.items()}

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(iter(self.parameters.values())).device

    def first_bad(self) -> str | None:
        """What makes this state not worth keeping, or None: a tensor with a NaN or Inf, an update that broke off."""
        if self.updating:
            return "an update that broke off"
        named = {**self.parameters, **{f"average of {name}": tensor for name, tensor in (self.ema or {}).items()}}
        return next((name for name, tensor in named.items() if not bool(torch.isfinite(tensor).all())), None)
