"""One optimiser step: gradients of several batches added up, checked, clipped, and the weights moved once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from tunesmith.engines.protocol import Batch, Engine, Loss, Model
from tunesmith.errors import NonFinite
from tunesmith.numeric.rates import rate_factor
from tunesmith.numeric.rng import BatchRng, generator
from tunesmith.recipe.schema import Recipe
from tunesmith.training.average import update_average
from tunesmith.training.batches import Microbatch
from tunesmith.training.device import Precision
from tunesmith.training.failures import bad_items, explained_memory, first_bad_gradient, non_finite
from tunesmith.training.state import TrainState

OVERFLOWS_ALLOWED = 20  # fp16 steps skipped in a row: enough to find a scale from its start, 2**16, down to below 1


@dataclass(frozen=True)
class StepResult:
    """What one step did. `loss` is the mean over the step's items on all ranks, `totals` each batch's weighted loss.

    `rates` are those used, by component; `moved` is false where fp16 gradients overflowed and the step was skipped.
    """

    loss: float
    totals: tuple[float, ...]
    named: Mapping[str, float]
    gradient_norm: float
    rates: Mapping[str, float]
    moved: bool = True


class Step(Protocol):
    """Moves a state by one step."""

    def __call__(self, state: TrainState, microbatches: Sequence[Microbatch]) -> StepResult:
        """Raises NonFinite (weights not moved) and DeviceError."""
        ...


def make_step(engine: Engine, model: Model, *, recipe: Recipe, precision: Precision, steps: int) -> Step:
    """The step of a run of `steps` steps, which the learning rates are spread over. `recipe` is settled."""
    return TrainingStep(engine, model, recipe=recipe, precision=precision, steps=steps)


@dataclass(frozen=True)
class TrainingStep:
    """Implements Step."""

    engine: Engine
    model: Model
    recipe: Recipe = field(kw_only=True)
    precision: Precision = field(kw_only=True)
    steps: int = field(kw_only=True)

    def __call__(self, state: TrainState, microbatches: Sequence[Microbatch]) -> StepResult:
        """Gradients, check, clip, move. The only wait for the device is the check."""
        state.optimiser.zero_grad(set_to_none=True)
        with explained_memory(self.recipe, state.device):
            losses = [self.gradients(state, microbatch, len(microbatches)) for microbatch in microbatches]
            state.world.sum_gradients(state.parameters.values())
            if state.scaler is not None:
                state.scaler.unscale_(state.optimiser)
            norm = self._norm(state)
            result = self._measured(state, microbatches, losses, norm)
            moves = self._check(state, microbatches, losses, result)
            self._move(state, microbatches, norm)
        return replace(result, moved=moves)

    def gradients(self, state: TrainState, microbatch: Microbatch, count: int) -> Loss | None:
        """Add one batch's gradients, as one of `count`; None where this rank has no item of it."""
        if microbatch.batch is None:
            return None
        seed_modules(microbatch.rng, state.device)
        with autocast(self.precision, state.device):
            loss = self.engine.loss(self.model, on_device(microbatch.batch, state.device), self.recipe, microbatch.rng)
        total = loss.total * (microbatch.share / count)
        (total if state.scaler is None else state.scaler.scale(total)).backward()  # type: ignore[no-untyped-call]
        named = {name: value.detach() for name, value in loss.named.items()}
        return Loss(loss.total.detach(), loss.per_item.detach(), named)

    def _norm(self, state: TrainState) -> torch.Tensor:
        gradients = [value.grad for value in state.parameters.values() if value.grad is not None]
        return get_total_norm(gradients)

    def _measured(
        self,
        state: TrainState,
        microbatches: Sequence[Microbatch],
        losses: Sequence[Loss | None],
        norm: torch.Tensor,
    ) -> StepResult:
        """Every number the host wants, fetched in one go."""
        own = [loss for loss in losses if loss is not None]
        zero = torch.zeros((), device=state.device)
        items = sum(microbatch.items for microbatch in microbatches)
        loss_sum = state.world.reduce(sum((loss.per_item.float().sum() for loss in own), zero.clone()))
        names = list(dict.fromkeys(name for loss in own for name in loss.named))
        means = [torch.stack([loss.named[n].float() for loss in own if n in loss.named]).mean() for n in names]
        rows = [loss_sum / items, norm.float(), *means, *(zero if x is None else x.total.float() for x in losses)]
        values = torch.stack([row.to(state.device) for row in rows]).tolist()
        rates = {group.component: group.rate * self.factor(state.step) for group in state.groups}
        named, totals = values[2 : 2 + len(names)], values[2 + len(names) :]
        return StepResult(values[0], tuple(totals), dict(zip(names, named, strict=True)), values[1], rates)

    def _check(
        self, state: TrainState, microbatches: Sequence[Microbatch], losses: Sequence[Loss | None], result: StepResult
    ) -> bool:
        """Whether the weights may move; raises NonFinite where something is broken rather than out of range."""
        finite = torch.isfinite(torch.tensor([result.loss, result.gradient_norm, *result.totals])).tolist()
        if all(finite):
            state.overflows = 0
            return True
        state.overflows += 1
        loss_finite = finite[0] and all(finite[2:])
        if state.scaler is not None and loss_finite and state.overflows <= OVERFLOWS_ALLOWED:
            return False  # fp16 gradients overflowed: the scaler skips the step and halves its scale
        raise self._explained(state, microbatches, losses, loss_finite)

    def _explained(
        self, state: TrainState, microbatches: Sequence[Microbatch], losses: Sequence[Loss | None], loss_finite: bool
    ) -> NonFinite:
        weight = state.first_bad()
        if weight is not None:
            names = [name for microbatch in microbatches for name in microbatch.names]
            return non_finite(names, f"the weights of {weight}", self.precision, self.recipe)
        gradient = first_bad_gradient(state.parameters)
        drawn = [(m, loss) for m, loss in zip(microbatches, losses, strict=True) if loss is not None]
        items = bad_items([m for m, _ in drawn], [loss.per_item for _, loss in drawn])
        if not items:
            items = self._blamed(state, [m for m, _ in drawn])
        where = f"the gradient of {gradient}" if gradient else "the gradient norm"
        return non_finite(items, where if loss_finite else f"the loss and {where}", self.precision, self.recipe)

    def _blamed(self, state: TrainState, microbatches: Sequence[Microbatch]) -> list[str]:
        """The items of the first batch whose own gradients are bad: each is computed once more, alone."""
        for microbatch in microbatches:
            state.optimiser.zero_grad(set_to_none=True)
            self.gradients(state, microbatch, 1)
            if first_bad_gradient(state.parameters) is not None:
                return list(microbatch.names)
        return [name for microbatch in microbatches for name in microbatch.names]

    def _move(self, state: TrainState, microbatches: Sequence[Microbatch], norm: torch.Tensor) -> None:
        if self.recipe.optimiser.clip_norm is not None:
            clip_grads_with_norm_(state.parameters.values(), self.recipe.optimiser.clip_norm, norm)
        factor = self.factor(state.step)
        for group, tensors in zip(state.groups, state.optimiser.param_groups, strict=True):
            tensors["lr"] = group.rate * factor
        state.updating = True
        moved = state.overflows == 0
        if state.scaler is None:
            state.optimiser.step()
        else:
            state.scaler.step(state.optimiser)
            state.scaler.update()
        state.step += 1
        state.batch_index += len(microbatches)
        state.position_items += sum(microbatch.items for microbatch in microbatches)
        if moved and self.recipe.optimiser.ema_decay is not None:
            update_average(state, self.recipe.optimiser.ema_decay)
        state.updating = False
        state.optimiser.zero_grad(set_to_none=True)

    def factor(self, step: int) -> float:
        """What the rates of step `step` (from 0) are multiplied by."""
        return rate_factor(self.recipe.optimiser, step, self.steps)


def seed_modules(rng: BatchRng, device: torch.device) -> None:
    """Set the global generators, which dropout inside modules draws from, by position: then they need no state either.

    Each on its own: torch.manual_seed formats a stack trace for every kind of device that is absent.
    """
    seed = generator(rng.seed, rng.positions[0], "dropout").initial_seed()
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """Arithmetic in the precision's dtype, where it is narrower than the weights that train."""
    if precision.autocast is None:
        return nullcontext()
    return torch.autocast(device.type, dtype=precision.autocast)


def on_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on `device`."""
    if device.type == "cpu":
        return batch
    tensors = {
        name: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
        for name, value in batch.tensors.items()
    }
    return replace(batch, tensors=tensors, weights=batch.weights.to(device, non_blocking=True))
