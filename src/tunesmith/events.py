"""Event records: what a long piece of work says while it runs. A leaf: no torch.

The training loop, encoders and samplers yield these; a job appends them to `events.jsonl` (one JSON object a line,
`{"kind": ..., **fields}` plus the envelope `seq`, `token`, `time`), and everyone else reads that file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True)
class Phase:
    """A job entered a phase: plan, encode, load, train, preview, save, register, generate."""

    kind: ClassVar[str] = "phase"
    name: str
    detail: str = ""


@dataclass(frozen=True)
class Progress:
    """`done` of `total` units within the current phase. `total` is None while unknown."""

    kind: ClassVar[str] = "progress"
    done: int
    total: int | None
    unit: str


@dataclass(frozen=True)
class StepDone:
    """One optimiser step. `loss` is the mean over the step's items; rates are per component; `seconds` wall time."""

    kind: ClassVar[str] = "step"
    step: int
    position_items: int
    loss: float
    rates: Mapping[str, float]
    gradient_norm: float
    seconds: float
    named: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Validated:
    """Held-out loss at `step`, over fixed noise and timesteps; per concept where there are several."""

    kind: ClassVar[str] = "validated"
    step: int
    loss: float
    per_concept: Mapping[str, float] = field(default_factory=dict)
    weights: str = "raw"  # "raw" or "ema": which weights were measured


@dataclass(frozen=True)
class StateSaved:
    """A state was written, verified and renamed into place."""

    kind: ClassVar[str] = "state_saved"
    step: int
    path: str
    size_bytes: int


@dataclass(frozen=True)
class RolledBack:
    """A NaN or Inf stopped a step; the run went back to the last good state."""

    kind: ClassVar[str] = "rolled_back"
    from_step: int
    to_step: int
    reason: str


@dataclass(frozen=True)
class Warned:
    """Something the user should know that does not stop the work."""

    kind: ClassVar[str] = "warning"
    message: str


@dataclass(frozen=True)
class Sampled:
    """A preview or a generated file was written."""

    kind: ClassVar[str] = "sampled"
    step: int
    path: str


Event = Phase | Progress | StepDone | Validated | StateSaved | RolledBack | Warned | Sampled


def to_json(event: Event) -> dict[str, Any]:
    """The event as a JSON-ready mapping with its `kind` first."""
    return {"kind": event.kind, **asdict(event)}
