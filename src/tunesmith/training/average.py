"""The exponential moving average of the weights (Polyak & Juditsky, 1992)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tunesmith.training.state import TrainState


def decay_at(decay: float, step: int) -> float:
    """The decay of update `step`, counted from 1: min(decay, step / (9 + step)), and 0 for the first.

    The average starts at the first trained weights and young averages forget quickly (diffusers' EMAModel does the
    same), so a short run is averaged over itself and not over its start.
    """
    return 0.0 if step <= 1 else min(decay, step / (9 + step))


@torch.no_grad()
def update_average(state: TrainState, decay: float) -> None:
    """Move the average towards the weights of step `state.step`."""
    if state.ema is not None:
        weights: list[torch.Tensor] = [*state.parameters.values()]
        torch._foreach_lerp_(list(state.ema.values()), weights, 1.0 - decay_at(decay, state.step))


@contextmanager
def averaged(state: TrainState) -> Iterator[str]:
    """Inside, the live weights are the average where there is one; yields which they are, "ema" or "raw".

    Storage is exchanged, not copied: nothing is rounded and no memory is taken.
    """
    if state.ema is None:
        yield "raw"
        return
    _exchange(state)
    try:
        yield "ema"
    finally:
        _exchange(state)


def _exchange(state: TrainState) -> None:
    assert state.ema is not None
    for name, parameter in state.parameters.items():
        parameter.data, state.ema[name] = state.ema[name], parameter.data
