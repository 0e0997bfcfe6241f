"""Who may work in a job's folder: a lock the kernel releases when its holder dies, and the token of the attempt.

The lock answers whether somebody works here now; it needs no heartbeat and cannot go stale. The token says whose lines
are whose in the journal, and fences off a process that wrongly believes it holds the lock (flock is not dependable on
every shared file system): a writer whose token is no longer the newest one stops.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from tunesmith.errors import JobBusy, JobError
from tunesmith.jobs.folder import JobFolder
from tunesmith.weights.atomic import write_json

# A status reader that looks whether the lock is free holds it for microseconds; a holder must outlast that.
_PATIENCE_SECONDS = 0.3
_POLL_SECONDS = 0.005


@dataclass(frozen=True)
class Attempt:
    """One process working on a job. `number` counts from 1; `token` is random and never used again."""

    token: str
    number: int
    pid: int
    host: str
    since_utc: str


@contextlib.contextmanager
def hold(
    folder: JobFolder, *, clock: Callable[[], float] = time.time, patience_seconds: float = _PATIENCE_SECONDS
) -> Iterator[Attempt]:
    """Hold the folder for one attempt. Raises JobBusy naming who does where somebody else works here."""
    lock = _lock(folder)
    try:
        lock.acquire(timeout=patience_seconds, poll_interval=_POLL_SECONDS)
    except Timeout:
        raise _busy(folder, read_attempt(folder)) from None
    except (OSError, NotImplementedError) as problem:
        raise JobError(
            f"{folder.path} cannot be locked: {problem}",
            expected="a folder on a file system with kernel locks",
            do="put the home folder on a local disk",
        ) from None
    try:
        before = read_attempt(folder)
        attempt = Attempt(
            token=secrets.token_hex(8),
            number=before.number + 1 if before else 1,
            pid=os.getpid(),
            host=socket.gethostname(),
            since_utc=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(clock())),
        )
        write_json(folder.attempt_file, asdict(attempt))
        yield attempt
    finally:
        lock.release()


def is_held(folder: JobFolder) -> bool:
    """Whether a living process works in this folder right now."""
    if not folder.lock_file.exists():
        return False
    lock = _lock(folder)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        return False
    lock.release()
    return False


def read_attempt(folder: JobFolder) -> Attempt | None:
    """The newest attempt, whether or not it still runs; None before the first."""
    return _read(folder.attempt_file)


def check_token(folder: JobFolder, attempt: Attempt) -> None:
    """Raise JobBusy where a newer attempt owns the folder: this one may not write any more."""
    newest = read_attempt(folder)
    if newest is None or newest.token != attempt.token:
        raise _busy(folder, newest)


def _lock(folder: JobFolder) -> FileLock:
    # A soft lock would go stale, so where the file system has no kernel locks we say so instead.
    return FileLock(folder.lock_file, fallback_to_soft=False, preserve_lock_file=True, thread_local=False)


def _read(file: Path) -> Attempt | None:
    try:
        return Attempt(**json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as problem:
        raise JobError(f"{file} is damaged: {problem}", do="remove that file if nothing works on the job") from None


def _busy(folder: JobFolder, holder: Attempt | None) -> JobBusy:
    who = f"process {holder.pid} on {holder.host} since {holder.since_utc}" if holder else "another process"
    return JobBusy(
        f"{folder.id} is being worked on by {who}",
        do="watch it with `tunesmith jobs watch`, or stop it with `tunesmith jobs cancel`",
    )
