"""`work(folder)`: the one entry point that every executor starts. Running it again goes on where it stopped."""

from __future__ import annotations

import errno
import os
import socket
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tunesmith import __version__
from tunesmith.errors import DiskFull, JobBusy, JobError, Stopped, TunesmithError
from tunesmith.jobs.folder import JobFolder
from tunesmith.jobs.journal import Journal
from tunesmith.jobs.lock import hold
from tunesmith.jobs.records import Started, StateChanged
from tunesmith.jobs.work.encode_job import do_encode
from tunesmith.jobs.work.evaluate_job import do_evaluate
from tunesmith.jobs.work.run import Run
from tunesmith.jobs.work.stops import Stops, signals_caught
from tunesmith.jobs.work.train_job import do_train

_KINDS: dict[str, Callable[[Run], None]] = {"train": do_train, "encode": do_encode, "evaluate": do_evaluate}
_DEFECT_CODE = 1
_FULL = (errno.ENOSPC, errno.EDQUOT)


def work(folder: Path, *, clock: Callable[[], float] = time.monotonic) -> int:
    """Do the job in `folder` to its end or to a stop; the exit code says how it went, the status says why.

    Raises JobBusy where another process works there and JobError where there is no job. Everything later is told in
    the journal, in one line each; tracebacks of unexpected errors go to logs.txt.
    """
    job = JobFolder(Path(folder).absolute())
    kind = str(job.manifest()["kind"])
    if kind not in _KINDS:
        raise JobError(
            f"{job.id} is a job of kind {kind!r}", expected=f"one of {', '.join(_KINDS)}", do="update tunesmith"
        )
    with hold(job) as attempt:
        journal = Journal(job, attempt)
        try:
            run = Run(job, journal, Stops(job, clock=clock), clock)
            run.open()
            run.emit(Started(attempt.number, os.getpid(), socket.gethostname(), __version__))
            run.log(f"attempt {attempt.number} by process {os.getpid()} on {socket.gethostname()}")
            with signals_caught(run.stops), _Ending(run) as ending:
                started = clock()
                _KINDS[kind](run)
                run.log(f"completed after {clock() - started:.1f} s")
            return ending.exit_code
        finally:
            journal.close()


@dataclass
class _Ending:
    """Turns however the work ends into a state, a reason in one line, and an exit code."""

    run: Run
    exit_code: int = 0

    def __enter__(self) -> _Ending:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None:
            self.run.end(StateChanged("completed", exit_code=0))
            return True
        if isinstance(error, JobBusy):
            return False  # another attempt owns the folder now: nothing may be written there any more
        state, reason, self.exit_code = self._verdict(error)
        if self.exit_code == _DEFECT_CODE:
            self.run.log("".join(traceback.format_exception(kind, error, trace)))
        self.run.log(f"{state}: {reason}")
        self.run.end(StateChanged(state, reason, self.exit_code))
        return isinstance(error, Exception | KeyboardInterrupt)

    def _verdict(self, error: BaseException) -> tuple[str, str, int]:
        """(state, reason, exit code)."""
        stop = self.run.stops.stop
        if isinstance(error, Stopped):
            return (stop.state, stop.reason, stop.exit_code) if stop else ("paused", error.message, error.exit_code)
        if isinstance(error, KeyboardInterrupt):
            return "paused", "ended at once; the last saved state is kept", 130
        if isinstance(error, OSError) and error.errno in _FULL:
            return "blocked", f"disk: no room left while writing {error.filename or 'a file'}", DiskFull.exit_code
        if isinstance(error, DiskFull):
            return "blocked", f"disk: {error.message}", error.exit_code
        if isinstance(error, TunesmithError):
            return "failed", error.message, error.exit_code
        name = type(error).__name__
        return "failed", f"unexpected {name}; the details are in {self.run.folder.log_file}", _DEFECT_CODE
