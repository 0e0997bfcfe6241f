"""The Executor protocol: where a job's process runs. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Handle:
    """What an executor needs to find its work again; JSON-ready, kept in the job's manifest."""

    executor: str
    reference: str
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Poll:
    """`phase` is queued, running, ended or unknown. Unknown never means done: the job's own files decide."""

    phase: str
    exit_code: int | None = None
    detail: str = ""


class Executor(Protocol):
    """Starts `python -m tunesmith work <folder>` somewhere. Knows a folder path, nothing else of the job."""

    @property
    def name(self) -> str:
        """What `--on` calls it."""
        ...

    def submit(self, folder: Path, resources: Mapping[str, str]) -> Handle:
        """Start the work; returns at once except for the inline executor, which runs it to its end."""
        ...

    def poll(self, handle: Handle) -> Poll:
        """Where the work stands, as the place it runs sees it."""
        ...

    def cancel(self, handle: Handle) -> None:
        """Ask it to stop at a safe point; idempotent, also for a process that is gone."""
        ...

    def log(self, handle: Handle) -> str:
        """What the work printed so far."""
        ...
