"""What went wrong in a step, in words a person can act on: NaN traced to item and tensor, memory that ran out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from tunesmith.errors import DeviceError, NonFinite
from tunesmith.recipe.schema import Recipe
from tunesmith.training.batches import Microbatch
from tunesmith.training.device import Precision

_OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")


@contextmanager
def explained_memory(recipe: Recipe, device: torch.device, doing: str = "in a training step") -> Iterator[None]:
    """Turn every way of running out of memory into a DeviceError that names what helps this recipe."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        words = str(error).lower()
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not any(w in words for w in _OUT_OF_MEMORY):
            raise
        raise DeviceError(
            f"{device} ran out of memory {doing}; what was saved is kept", do=memory_advice(recipe)
        ) from error


def memory_advice(recipe: Recipe) -> str:
    """The changes that would need less memory, those that cost least first; only ones this recipe has not made."""
    length, method = recipe.length, recipe.method
    advice = []
    if length.batch_items > 1:
        steps = length.batch_items * length.accumulation
        advice.append(f"set length.batch_items=1 length.accumulation={steps} (same result, more time)")
    if recipe.resources.precision == "fp32":
        advice.append("set resources.precision=bf16")
    if not method.gradient_checkpointing:
        advice.append("set method.gradient_checkpointing=true (about a third slower)")
    if method.name in ("full", "scratch"):
        advice.append("use method.name=lora" if method.name == "full" else "use a smaller base.architecture")
    elif method.rank > 4:
        advice.append("lower method.rank")
    return ", or ".join((*advice, "use a lower resolution or shorter crops"))


def non_finite(bad: Sequence[str], tensor: str, precision: Precision, recipe: Recipe) -> NonFinite:
    """The error for a NaN or Inf that appeared with the items `bad` (file names) and in `tensor`."""
    items = ", ".join(dict.fromkeys(bad)) or "items of another process"
    changes = []
    if precision.name == "fp16":
        changes.append("set resources.precision=bf16 (or fp32 where that is missing)")
    elif precision.autocast is not None:
        changes.append("set resources.precision=fp32")
    changes.append(f"lower optimiser.rate (now {recipe.optimiser.rate:g})")
    if recipe.optimiser.clip_norm is None:
        changes.append("set optimiser.clip_norm=1")
    changes.append("if it is always the same item, look at its file")
    return NonFinite(f"a NaN or Inf appeared in {tensor} with {items}", do="; ".join(changes))


def bad_items(microbatches: Sequence[Microbatch], per_item: Sequence[torch.Tensor]) -> list[str]:
    """Names of the items whose own loss is not finite."""
    found = []
    for microbatch, losses in zip(microbatches, per_item, strict=True):
        flags = (~torch.isfinite(losses)).tolist()
        found += [name for name, bad in zip(microbatch.names, flags, strict=True) if bad]
    return found


def first_bad_gradient(parameters: dict[str, torch.nn.Parameter]) -> str | None:
    """The first tensor whose gradient holds a NaN or Inf."""
    for name, parameter in parameters.items():
        if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
            return name
    return None
