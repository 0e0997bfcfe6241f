"""The process executor: one detached child per attempt, which outlives whoever started it.

Whether the work runs is told by the kernel's lock on the job's folder. The process id is only a hint for the moment
before the child has taken the lock, together with the process's start time, so that a reused id is not mistaken for it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from tunesmith.errors import JobBusy, JobError
from tunesmith.jobs.control import cancel as cancel_job
from tunesmith.jobs.control import clear_requests
from tunesmith.jobs.executor import Handle, Poll
from tunesmith.jobs.folder import JobFolder
from tunesmith.jobs.lock import is_held, read_attempt
from tunesmith.jobs.status import read_status

_POLL_SECONDS = 0.02


def default_command(folder: Path) -> list[str]:
    """What every executor starts."""
    return [sys.executable, "-m", "tunesmith", "work", str(folder)]


@dataclass(frozen=True)
class ProcessExecutor:
    """Starts `command(folder)` in a session of its own, its output in the job's log.

    A cancelled process gets a request and SIGTERM, then `grace_seconds` to save its state, then SIGKILL for its group.
    """

    command: Callable[[Path], list[str]] = default_command
    grace_seconds: float = 60.0
    name: str = "process"

    def submit(self, folder: Path, resources: Mapping[str, str]) -> Handle:
        """Start the child and return. `resources` are added to its environment, such as CUDA_VISIBLE_DEVICES."""
        job = JobFolder(folder)
        job.manifest()
        if is_held(job):
            holder = read_attempt(job)
            who = f" by process {holder.pid} on {holder.host} since {holder.since_utc}" if holder else ""
            raise JobBusy(f"{job.id} is being worked on already{who}", do="watch it with `tunesmith jobs watch`")
        clear_requests(job)
        before = read_attempt(job)
        try:
            with job.log_file.open("ab") as log:
                child = subprocess.Popen(
                    self.command(folder),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=folder,
                    env={**os.environ, **resources},
                    start_new_session=True,
                )
        except OSError as problem:
            raise JobError(f"no process could be started for {job.id}: {problem}") from None
        details = {
            "pid": str(child.pid),
            "started": _started(child.pid),
            "folder": str(folder),
            "attempts_before": str(before.number if before is not None else 0),
        }
        return Handle(self.name, str(child.pid), details)

    def poll(self, handle: Handle) -> Poll:
        """By the lock; before the child took it, by whether the child lives."""
        folder = _folder(handle)
        if is_held(folder):
            return Poll("running")
        process = _process(handle)
        if process is not None:
            return Poll("queued", detail="starting")
        status, newest = read_status(folder), read_attempt(folder)
        begun = newest is not None and newest.number > int(handle.details.get("attempts_before", 0))
        if not begun and status.state != "cancelled":
            return Poll("unknown", detail="the process was gone before it began to work; its log may say why")
        if status.state == "queued" or status.interrupted:
            return Poll("unknown", detail="the process is gone and left no result; its log may say why")
        return Poll("ended", status.exit_code, status.reason)

    def cancel(self, handle: Handle) -> None:
        """Ask, then insist; returns when no process of the group is left. Idempotent."""
        folder = _folder(handle)
        cancel_job(folder)
        process = _process(handle)
        if process is not None:
            self._end(handle, process)
            # What the process did not live to say is said for it.
            cancel_job(folder)
        clear_requests(folder)

    def _end(self, handle: Handle, process: psutil.Process) -> None:
        """Wait for the child to obey, then end its group."""
        _signal(process, signal.SIGTERM)
        deadline = time.monotonic() + self.grace_seconds
        while _process(handle) is not None:
            if time.monotonic() > deadline:
                _kill_group(process)
                process.wait(timeout=10)
                return
            time.sleep(_POLL_SECONDS)

    def log(self, handle: Handle) -> str:
        """What the job printed so far, all attempts."""
        file = _folder(handle).log_file
        return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""


def _folder(handle: Handle) -> JobFolder:
    return JobFolder(Path(handle.details["folder"]))


def _started(pid: int) -> str:
    try:
        return repr(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return ""


def _process(handle: Handle) -> psutil.Process | None:
    """The child while it lives; None where the id is free, a zombie, or belongs to somebody else by now."""
    try:
        process = psutil.Process(int(handle.details["pid"]))
        if repr(process.create_time()) != handle.details["started"]:
            return None
        if process.status() == psutil.STATUS_ZOMBIE:
            _reap(process.pid)
            return None
    except psutil.NoSuchProcess:
        return None
    return process


def _reap(pid: int) -> None:
    """Collect a dead child of ours; a no-op for a process that somebody else started."""
    if hasattr(os, "WNOHANG"):
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            return


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def _kill_group(process: psutil.Process) -> None:
    """The child leads its own session, so its group is it and all that it started."""
    if os.name == "nt":
        for one in (*process.children(recursive=True), process):
            _signal(one, signal.SIGTERM)
        return
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
