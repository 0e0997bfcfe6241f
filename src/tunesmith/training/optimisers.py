"""Update rules, each from the library that keeps it best: torch, bitsandbytes, pytorch_optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tunesmith.errors import PlanRefused
from tunesmith.recipe.schema import OptimiserSection
from tunesmith.training.state import Group

_DEFAULTS = OptimiserSection()
# Knobs that a rule has no use for. Turning one is refused: a knob that does nothing misleads.
_UNUSED = {"adafactor": ("betas", "eps"), "lion": ("eps",)}


def make_optimiser(section: OptimiserSection, groups: Sequence[Group], device: torch.device) -> torch.optim.Optimizer:
    """One parameter group per component, in order, at its own rate.

    Raises PlanRefused where a library is missing or a knob means nothing to the chosen rule.
    """
    check_knobs(section, [group.rate for group in groups])
    tensors: list[dict[str, Any]] = [{"params": list(group.parameters.values()), "lr": group.rate} for group in groups]
    betas, decay = (section.betas[0], section.betas[1]), section.weight_decay
    match section.name:
        case "adamw":
            # Fused kernels exist on both; element by element, so their bits do not depend on the order of tensors.
            fused = device.type in ("cpu", "cuda")
            return torch.optim.AdamW(tensors, betas=betas, eps=section.eps, weight_decay=decay, fused=fused)
        case "adamw8bit":
            return _adamw8bit(section, tensors)
        case "adafactor":
            return torch.optim.Adafactor(tensors, weight_decay=decay)
        case "lion":
            from pytorch_optimizer import Lion

            return Lion(tensors, betas=betas, weight_decay=decay)  # type: ignore[no-any-return]
        case "prodigy":
            from pytorch_optimizer import Prodigy

            # Its authors advise the safeguard wherever there is a warm-up.
            safeguard = section.warmup_steps > 0
            return Prodigy(  # type: ignore[no-any-return]
                tensors, betas=betas, eps=section.eps, weight_decay=decay, safeguard_warmup=safeguard
            )
        case other:
            raise PlanRefused(f"no optimiser is called {other!r}", do="see the choices of optimiser.name")


def check_knobs(section: OptimiserSection, rates: Sequence[float]) -> None:
    """Raises PlanRefused where a knob was turned that the chosen rule would ignore."""
    if len(section.betas) != 2 or not all(0 <= beta < 1 for beta in section.betas):
        raise PlanRefused(f"optimiser.betas is {list(section.betas)}", expected="two numbers in [0, 1)")
    for name in _UNUSED.get(section.name, ()):
        if getattr(section, name) != getattr(_DEFAULTS, name):
            raise PlanRefused(
                f"optimiser.{name} means nothing to {section.name}", do=f"leave optimiser.{name} out, or use adamw"
            )
    if section.name == "prodigy" and len(set(rates)) > 1:
        raise PlanRefused(
            "prodigy finds one rate for everything that trains, so components cannot have their own",
            do="remove optimiser.rates (0 still leaves a component out), or use adamw",
        )


def _adamw8bit(section: OptimiserSection, tensors: list[dict[str, Any]]) -> torch.optim.Optimizer:
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise PlanRefused(
            "optimiser.name is adamw8bit, but bitsandbytes is not installed",
            do="install it (pip install 'tunesmith[adamw8bit]'), or set optimiser.name=adamw",
        ) from error
    betas = (section.betas[0], section.betas[1])
    return AdamW8bit(  # type: ignore[no-any-return]
        tensors, betas=betas, eps=section.eps, weight_decay=section.weight_decay
    )
