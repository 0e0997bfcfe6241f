"""Where a job stands: a fold over its events, kept in `status.json` with the byte it covers. No torch.

The journal is the truth; the status file spares a reader from reading all of it. A reader folds what came after the
covered byte by itself, so a stale or missing file costs time, never correctness.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith.jobs.folder import JobFolder
from tunesmith.jobs.journal import read_lines, went_back_to
from tunesmith.jobs.lock import is_held
from tunesmith.jobs.records import finite
from tunesmith.weights.atomic import explained

FORMAT = 1
ENDED = frozenset({"completed", "failed", "cancelled"})
# Weight of the newest step in the running figures; about the last twenty steps count.
_NEWEST = 0.1


@dataclass(frozen=True)
class Measured:
    """A held-out loss at a step."""

    step: int
    loss: float


@dataclass(frozen=True)
class Status:
    """One screenful about a job. `loss` is of the newest step, `loss_mean` a running mean; seconds are wall time.

    `eta_seconds` is for what is left of the training steps, at the pace of this attempt with all that happens between
    steps (validation, previews, states), counted since `paced_from_step`; None while unknown. `peak_bytes` is by phase.
    `interrupted` says that the process is gone without having said why (kill, power cut); running it again goes on.
    """

    state: str = "queued"
    reason: str = ""
    exit_code: int | None = None
    interrupted: bool = False
    attempt: int = 0
    pid: int | None = None
    host: str = ""
    phase: str = ""
    phase_done: int = 0
    phase_total: int | None = None
    phase_unit: str = ""
    step: int = 0
    steps: int | None = None
    position_items: int = 0
    loss: float | None = None
    loss_mean: float | None = None
    rates: Mapping[str, float] = field(default_factory=dict)
    gradient_norm: float | None = None
    seconds_per_step: float | None = None
    eta_seconds: float | None = None
    paced_from_step: int | None = None
    paced_from_unix: float | None = None
    validations: tuple[Measured, ...] = ()
    saved_step: int = 0
    checkpoints: tuple[str, ...] = ()
    exports: tuple[str, ...] = ()
    last_sample: str = ""
    peak_bytes: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    last_error: str = ""
    started_unix: float | None = None
    updated_unix: float | None = None

    @property
    def best(self) -> Measured | None:
        """The lowest held-out loss."""
        finite = (measured for measured in self.validations if math.isfinite(measured.loss))
        return min(finite, key=lambda measured: (measured.loss, measured.step), default=None)

    @property
    def first_validation(self) -> Measured | None:
        """The held-out loss nearest the start: what the others are compared to."""
        return self.validations[0] if self.validations else None


def fold(lines: Iterable[Mapping[str, Any]], start: Status | None = None) -> Status:
    """The status after `lines`, as written in the journal, on top of `start`."""
    status = start if start is not None else Status()
    for line in lines:
        status = dataclasses.replace(_fold_one(status, line), updated_unix=line.get("time"))
    return status


def read_status(folder: JobFolder) -> Status:
    """The status now, whether or not its process lives."""
    status = last_status(folder)
    # A state of `running` without a process is a job that was killed; look twice, since it may just have ended.
    if status.state == "running" and not is_held(folder):
        status = last_status(folder)
        if status.state == "running" and not is_held(folder):
            reason = "its process is gone; resume it to go on from the last state"
            status = dataclasses.replace(status, state="paused", reason=reason, interrupted=True)
    return status


def last_status(folder: JobFolder) -> Status:
    """What the journal says, whatever became of the process that wrote it."""
    start, offset = _stored(folder)
    return fold((line for line, _ in read_lines(folder.events_file, offset)), start)


def write_status(folder: JobFolder, status: Status, offset_bytes: int) -> None:
    """Keep `status`, which covers the journal's first `offset_bytes`. For the journal's writer only."""
    content = {"format": FORMAT, "covers_bytes": offset_bytes, "status": to_json(status)}
    # Renamed so that nobody reads half of it, but not synced: after a power cut it is rebuilt from the journal.
    temporary = folder.path / f".status.{os.getpid()}.tmp"
    with explained(folder.status_file):
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False), encoding="utf-8")
        temporary.replace(folder.status_file)


def rebuild(folder: JobFolder) -> Status:
    """Fold the journal from its first line and keep the result."""
    status, offset = Status(), 0
    for line, after in read_lines(folder.events_file):
        status, offset = fold([line], status), after
    write_status(folder, status, offset)
    return status


def to_json(status: Status) -> dict[str, Any]:
    """JSON-ready, with the best validation beside the fields."""
    best = status.best
    content = {**dataclasses.asdict(status), "best": dataclasses.asdict(best) if best else None}
    return dict(finite(content))


def _stored(folder: JobFolder) -> tuple[Status, int]:
    """(status, bytes covered) of the status file; the start where there is none that fits the journal."""
    content = _read_json(folder.status_file)
    if content is None or content.get("format") != FORMAT:
        return Status(), 0
    try:
        fields = dict(content["status"])
        fields.pop("best", None)
        for name in ("checkpoints", "exports", "warnings"):
            fields[name] = tuple(fields[name])
        fields["validations"] = tuple(Measured(m["step"], float(m["loss"])) for m in fields["validations"])
        for name in ("loss", "loss_mean", "gradient_norm"):
            fields[name] = None if fields[name] is None else float(fields[name])
        status, offset = Status(**fields), int(content["covers_bytes"])
        size = folder.events_file.stat().st_size
    except (KeyError, TypeError, ValueError, FileNotFoundError):
        return Status(), 0
    return (status, offset) if offset <= size else (Status(), 0)


def _read_json(file: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _fold_one(status: Status, line: Mapping[str, Any]) -> Status:
    kind = line["kind"]
    back_to = went_back_to(dict(line))
    if back_to is not None:
        status = _gone_back(status, back_to)
    if kind == "step":
        return _after_step(status, line)
    if kind == "started":
        return dataclasses.replace(
            status,
            state="running",
            reason="",
            exit_code=None,
            interrupted=False,
            attempt=line["attempt"],
            pid=line["pid"],
            host=line["host"],
            seconds_per_step=None,
            eta_seconds=None,
            paced_from_step=None,
            paced_from_unix=None,
            started_unix=line.get("time"),
        )
    if kind == "phase":
        return dataclasses.replace(status, phase=line["name"], phase_done=0, phase_total=None, phase_unit="")
    if kind == "progress":
        return dataclasses.replace(status, phase_done=line["done"], phase_total=line["total"], phase_unit=line["unit"])
    if kind == "planned":
        return dataclasses.replace(status, steps=line["steps"])
    return _fold_result(status, line)


def _fold_result(status: Status, line: Mapping[str, Any]) -> Status:
    kind = line["kind"]
    if kind == "validated":
        measured = Measured(line["step"], _number(line["loss"]))
        return dataclasses.replace(status, validations=(*status.validations, measured))
    if kind == "state_saved":
        return dataclasses.replace(status, saved_step=line["step"])
    if kind == "registered":
        known = tuple(name for name in status.checkpoints if name != line["checkpoint"])
        return dataclasses.replace(status, checkpoints=(*known, line["checkpoint"]))
    if kind == "exported":
        known = tuple(path for path in status.exports if path != line["path"])
        return dataclasses.replace(status, exports=(*known, line["path"]))
    if kind == "sampled":
        return dataclasses.replace(status, last_sample=line["path"])
    if kind == "phase_ended":
        peaks = {**status.peak_bytes, line["name"]: line["peak_bytes"]}
        return dataclasses.replace(status, peak_bytes=peaks)
    if kind == "warning":
        known = tuple(text for text in status.warnings if text != line["message"])
        return dataclasses.replace(status, warnings=(*known, line["message"])[-20:])
    if kind == "state":
        error = line["reason"] if line["state"] in ("failed", "blocked") else status.last_error
        eta = 0.0 if line["state"] == "completed" else None
        return dataclasses.replace(
            status,
            state=line["state"],
            reason=line["reason"],
            exit_code=line["exit_code"],
            last_error=error,
            eta_seconds=eta,
        )
    return status


def _after_step(status: Status, line: Mapping[str, Any]) -> Status:
    loss, seconds = _number(line["loss"]), _number(line["seconds"])
    mean = loss if status.loss_mean is None else status.loss_mean + _NEWEST * (loss - status.loss_mean)
    pace = status.seconds_per_step
    pace = seconds if pace is None else pace + _NEWEST * (seconds - pace)
    first = status.paced_from_step is None
    from_step, from_unix = (line["step"], line["time"]) if first else (status.paced_from_step, status.paced_from_unix)
    return dataclasses.replace(
        status,
        step=line["step"],
        position_items=line["position_items"],
        loss=loss,
        loss_mean=mean,
        rates=dict(line["rates"]),
        gradient_norm=_number(line["gradient_norm"]),
        seconds_per_step=pace,
        eta_seconds=_left_seconds(status, line, pace),
        paced_from_step=from_step,
        paced_from_unix=from_unix,
    )


def _left_seconds(status: Status, line: Mapping[str, Any], pace: float) -> float | None:
    if status.steps is None:
        return None
    left = max(0, status.steps - int(line["step"]))
    if status.paced_from_step is None or status.paced_from_unix is None:
        return left * pace
    done, passed = int(line["step"]) - status.paced_from_step, float(line["time"]) - status.paced_from_unix
    # A clock that was set back says nothing; then the steps alone have to do.
    return left * (max(pace, passed / done) if done > 0 and passed > 0 else pace)


def _gone_back(status: Status, step: int) -> Status:
    """Forget what was said about steps after `step`; they are done again."""
    kept = tuple(measured for measured in status.validations if measured.step <= step)
    return dataclasses.replace(
        status,
        step=max(0, step),
        saved_step=max(0, min(status.saved_step, step)),
        validations=kept,
        loss=None,
        loss_mean=None,
    )


def _number(value: Any) -> float:
    return float(value)  # also of the texts `nan` and `inf`, which the journal uses
