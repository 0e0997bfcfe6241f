"""Learning rates as a function of the step. Pure Python: the plan draws them on machines without torch.

The curves are those of diffusers' and transformers' `get_scheduler`, which other trainers use too: step 0 is the first
update, warm-up starts at 0, and the decay spans what is left after the warm-up.
"""

from __future__ import annotations

import math
from typing import Protocol

INVERSE_SCALE_STEPS = 10_000  # where there is no warm-up, the rate has fallen by sqrt(2) after this many steps


class Schedule(Protocol):
    """The fields of a recipe's optimiser section that shape the rate."""

    @property
    def schedule(self) -> str:
        """constant, linear, cosine, cosine_restarts or inverse."""
        ...

    @property
    def warmup_steps(self) -> int:
        """Steps of linear warm-up."""
        ...

    @property
    def restarts(self) -> int:
        """Cosine cycles of cosine_restarts."""
        ...


def rate_factor(section: Schedule, step: int, steps: int) -> float:
    """What the learning rate of update `step` (from 0) is multiplied by in a run of `steps` updates, in [0, 1]."""
    warmup = section.warmup_steps
    if step < warmup:
        return step / max(1, warmup)
    progress = (step - warmup) / max(1, steps - warmup)
    match section.schedule:
        case "constant":
            return 1.0
        case "linear":
            return max(0.0, (steps - step) / max(1, steps - warmup))
        case "cosine":
            return max(0.0, 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress))))
        case "cosine_restarts":
            cycle = (section.restarts * progress) % 1.0
            return 0.0 if progress >= 1.0 else max(0.0, 0.5 * (1.0 + math.cos(math.pi * cycle)))
        case "inverse":
            scale = warmup or INVERSE_SCALE_STEPS
            return 1.0 / math.sqrt((step + scale - warmup) / scale)
        case other:
            raise ValueError(f"no schedule is called {other!r}")
