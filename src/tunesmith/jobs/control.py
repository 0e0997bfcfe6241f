"""Requests to a running job: one file each, because only the journal's writer may write the journal. No torch."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tunesmith.errors import JobBusy, JobError
from tunesmith.jobs.folder import JobFolder
from tunesmith.jobs.journal import Journal
from tunesmith.jobs.lock import hold
from tunesmith.jobs.records import StateChanged
from tunesmith.jobs.status import ENDED, fold, last_status, write_status
from tunesmith.weights.atomic import write_json

ACTIONS = ("stop", "cancel", "save", "sample")


@dataclass(frozen=True)
class Request:
    """`stop` saves the state and pauses, `cancel` saves and gives up, `save` and `sample` go on afterwards."""

    action: str
    details: Mapping[str, Any] = field(default_factory=dict)


def request(folder: JobFolder, action: str, *, details: Mapping[str, Any] = {}) -> None:
    """Ask the running process; it answers between two steps."""
    if action not in ACTIONS:
        raise JobError(f"a job cannot be asked to {action!r}", expected=f"one of {', '.join(ACTIONS)}")
    folder.control.mkdir(exist_ok=True)
    name = f"{time.time_ns():020d}-{secrets.token_hex(4)}.json"
    write_json(folder.control / name, {"action": action, "details": dict(details)})


def take_requests(folder: JobFolder) -> list[Request]:
    """The requests so far, oldest first; each is handed out once. Only for the process that holds the folder."""
    if not folder.control.is_dir():
        return []
    taken = []
    for file in sorted(folder.control.glob("*.json")):
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            found = Request(content["action"], content.get("details", {}))
        except (ValueError, KeyError, TypeError):
            found = None  # not written by us; nothing to obey
        file.unlink(missing_ok=True)
        if found is not None and found.action in ACTIONS:
            taken.append(found)
    return taken


def clear_requests(folder: JobFolder) -> None:
    """Forget requests made to an earlier attempt: whoever starts a job wants it to run."""
    take_requests(folder)


def cancel(folder: JobFolder) -> bool:
    """Cancel a job in whatever state it is; True where it is cancelled now, False where its process was asked to.

    What has ended stays as it is. A process that was started but does not hold the folder yet finds the request when
    it does, and stops; starting the job again through an executor forgets it. Idempotent.
    """
    try:
        with hold(folder) as attempt:
            status = last_status(folder)
            clear_requests(folder)
            request(folder, "cancel")
            if status.state in ENDED:
                return True
            journal = Journal(folder, attempt)
            try:
                line = journal.append(StateChanged("cancelled", "cancelled while no process was working on it"))
                write_status(folder, fold([line], status), journal.offset_bytes)
            finally:
                journal.close()
            return True
    except JobBusy:
        request(folder, "cancel")
        return False
