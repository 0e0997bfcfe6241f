"""The loop. Every engine, method and place to run goes through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tunesmith.errors import DeviceError, NonFinite
from tunesmith.events import Event, RolledBack, StepDone
from tunesmith.training.batches import Batches
from tunesmith.training.snapshot import roll_back
from tunesmith.training.state import TrainState
from tunesmith.training.step import Step


@dataclass(frozen=True)
class Until:
    """Where a run ends: after `steps` steps in all, or after `minutes` of this attempt."""

    steps: int
    minutes: float | None = None

    def late(self, seconds: float) -> bool:
        """Whether `seconds` of this attempt are all it may take."""
        return self.minutes is not None and seconds >= 60 * self.minutes


def train(
    state: TrainState,
    batches: Batches,
    *,
    step: Step,
    until: Until,
    should_stop: Callable[[], bool],
    clock: Callable[[], float],
) -> Iterator[Event]:
    """One StepDone per optimiser step, until the end, the time limit or a request to stop, agreed by all ranks.

    Between two events the state is whole: whoever consumes them saves, validates and draws previews there. A NaN or
    Inf yields RolledBack, with the state back at the last good step, and raises NonFinite. Raises DeviceError when
    memory runs out, the state likewise at the last good step.
    """
    started = clock()
    while state.step < until.steps:
        if state.world.any(should_stop() or until.late(clock() - started)):
            return
        began = clock()
        try:
            result = step(state, batches.microbatches(state.batch_index))
        except DeviceError:
            roll_back(state)
            raise
        except NonFinite as error:
            yield RolledBack(from_step=state.step + 1, to_step=roll_back(state), reason=error.found)
            raise
        named = dict(result.named) if result.moved else {**result.named, "overflow": 1.0}
        yield StepDone(
            step=state.step,
            position_items=state.position_items,
            loss=result.loss,
            rates=result.rates,
            gradient_norm=result.gradient_norm,
            seconds=clock() - began,
            named=named,
        )
