"""What a job itself has to say in its journal, beside the events of the work. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from tunesmith import events

STATES = ("queued", "running", "paused", "blocked", "completed", "failed", "cancelled")


@dataclass(frozen=True)
class Started:
    """An attempt took the folder over. `attempt` counts from 1."""

    kind: ClassVar[str] = "started"
    attempt: int
    pid: int
    host: str
    version: str


@dataclass(frozen=True)
class Planned:
    """The plan of this attempt: how far the run goes, counted in steps."""

    kind: ClassVar[str] = "planned"
    steps: int


@dataclass(frozen=True)
class Resumed:
    """Training goes on from `step`: every earlier line about a later step is superseded. `fresh` says that there was no
    state, so that the lines about step 0 are superseded, too."""

    kind: ClassVar[str] = "resumed"
    step: int
    notes: tuple[str, ...] = ()
    fresh: bool = False


@dataclass(frozen=True)
class PhaseEnded:
    """A phase is over. `peak_bytes` is the process's largest resident size within it where the kernel tells
    (VmHWM, or the device's own count); `peak_scope` is `phase`, or `process` where it could not be reset."""

    kind: ClassVar[str] = "phase_ended"
    name: str
    seconds: float
    peak_bytes: int
    peak_scope: str = "phase"
    device_peak_bytes: int = 0


@dataclass(frozen=True)
class Registered:
    """A checkpoint is in the catalog."""

    kind: ClassVar[str] = "registered"
    step: int
    checkpoint: str
    name: str
    final: bool
    measures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Exported:
    """A file for another tool was written and read back."""

    kind: ClassVar[str] = "exported"
    step: int
    path: str
    layout: str


@dataclass(frozen=True)
class StateChanged:
    """The job's state, one of STATES, with the reason in one line. `exit_code` where the process ends with it."""

    kind: ClassVar[str] = "state"
    state: str
    reason: str = ""
    exit_code: int | None = None


Record = Started | Planned | Resumed | PhaseEnded | Registered | Exported | StateChanged
Entry = Record | events.Event


def to_json(entry: Entry) -> dict[str, Any]:
    """The entry as a JSON-ready mapping with its `kind` first."""
    return {"kind": entry.kind, **asdict(entry)}


def finite(value: Any) -> Any:
    """`value` with NaN and Inf, which JSON lacks, as the texts `nan`, `inf`, `-inf`; `float` reads them back."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return value
