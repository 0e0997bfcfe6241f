"""One attempt at a job: its journal, status, log and stops, in the hands of the one process that may write them."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from tunesmith.errors import DiskFull, Stopped
from tunesmith.events import Event, Phase, Warned
from tunesmith.jobs.folder import JobFolder
from tunesmith.jobs.journal import Journal
from tunesmith.jobs.records import Entry, PhaseEnded
from tunesmith.jobs.status import Status, fold, last_status, write_status
from tunesmith.jobs.work.memory import device_peak_bytes, peak_bytes, reset_peak
from tunesmith.jobs.work.stops import Stops
from tunesmith.weights.atomic import explained

_STATUS_EVERY_SECONDS = 1.0
_QUIET_KINDS = frozenset({"step", "progress"})
# Room kept aside so that a job that ran out of disk can still say so.
_BALLAST_BYTES = 1 << 18


@dataclass
class Run:
    """What every part of the work needs. `clock` is monotonic seconds."""

    folder: JobFolder
    journal: Journal
    stops: Stops
    clock: Callable[[], float] = time.monotonic
    status: Status = field(default_factory=Status)
    started_seconds: float = 0.0
    _written: float = float("-inf")

    def open(self) -> None:
        """Fold what earlier attempts said, and clear away what they left half-made."""
        self.started_seconds = self.clock()
        self.status = last_status(self.folder)
        shutil.rmtree(self.folder.work, ignore_errors=True)
        self.folder.work.mkdir()
        for leftover in (*self.folder.path.glob(".*.tmp"), *self.folder.path.glob(".*.old")):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        ballast = self.folder.work / "ballast"
        with explained(ballast):
            ballast.write_bytes(bytes(_BALLAST_BYTES))

    def emit(self, entry: Entry) -> None:
        """Append to the journal and keep the status up to date, at most once a second for small news."""
        line = self.journal.append(entry)
        self.status = fold([line], self.status)
        now = self.clock()
        if entry.kind not in _QUIET_KINDS or now - self._written >= _STATUS_EVERY_SECONDS:
            self._written = now
            write_status(self.folder, self.status, self.journal.offset_bytes)

    def emit_all(self, events: Iterable[Event]) -> None:
        """Emit each as it comes."""
        for event in events:
            self.emit(event)

    def warn(self, message: str) -> None:
        """Say once what the user should know."""
        if message not in self.status.warnings:
            self.emit(Warned(message))
            self.log(f"warning: {message}")

    def check_stop(self) -> None:
        """Raise Stopped where somebody asked to stop; for places where nothing needs saving first."""
        if self.stops():
            raise Stopped(self.stops.stop.reason if self.stops.stop else "stopped")

    def log(self, text: str) -> None:
        """Add to logs.txt; a full disk only costs the log."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with contextlib.suppress(OSError), self.folder.log_file.open("a", encoding="utf-8", errors="replace") as log:
            log.write(f"{stamp} {text}\n")

    @contextlib.contextmanager
    def phase(self, name: str, detail: str = "") -> Iterator[None]:
        """Announce a phase, and at its end how long it took and how much memory at most."""
        self.emit(Phase(name, detail))
        scoped = reset_peak()
        started = self.clock()
        yield
        ended = PhaseEnded(
            name,
            seconds=round(self.clock() - started, 3),
            peak_bytes=peak_bytes(),
            peak_scope="phase" if scoped else "process",
            device_peak_bytes=device_peak_bytes(),
        )
        self.emit(ended)

    def end(self, entry: Entry) -> None:
        """The last word of the attempt; it finds room on a full disk, too."""
        try:
            self.emit(entry)
        except DiskFull:
            (self.folder.work / "ballast").unlink(missing_ok=True)
            # Somebody else may have taken that room, too; then the job reads as interrupted, which it was.
            with contextlib.suppress(DiskFull):
                self.emit(entry)
        shutil.rmtree(self.folder.work, ignore_errors=True)
