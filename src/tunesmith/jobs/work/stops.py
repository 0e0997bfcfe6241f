"""Why the work should stop at the next safe point: a signal, a request in `control/`, or the time that was given."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType

from tunesmith.jobs.control import Request, take_requests
from tunesmith.jobs.folder import JobFolder

_OVER = "the time given by length.max_minutes is over; `tunesmith train -r JOB length.max_minutes=null` lifts it"
_LOOK_EVERY_SECONDS = 0.1
# SIGHUP comes when a terminal or an ssh connection is gone; Windows does not know it.
_SIGNALS = (signal.SIGTERM, signal.SIGINT, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))


@dataclass(frozen=True)
class Stop:
    """What to end as: `paused` or `cancelled`, why, and the process's exit status."""

    state: str
    reason: str
    exit_code: int


@dataclass
class Stops:
    """Collects reasons to stop and requests to answer. Asking is cheap enough to do at every step."""

    folder: JobFolder
    deadline_seconds: float | None = None
    clock: Callable[[], float] = time.monotonic
    stop: Stop | None = None
    _pending: list[Request] = field(default_factory=list)
    _looked: float = float("-inf")

    def __call__(self) -> bool:
        """Whether to stop now."""
        now = self.clock()
        if now - self._looked >= _LOOK_EVERY_SECONDS:
            self._looked = now
            for request in take_requests(self.folder):
                self._take(request)
        if self.stop is None and self.deadline_seconds is not None and now >= self.deadline_seconds:
            self.stop = Stop("paused", _OVER, 0)
        return self.stop is not None

    def pending(self) -> list[Request]:
        """Requests other than stopping, each handed out once."""
        found, self._pending = self._pending, []
        return found

    def signalled(self, name: str) -> None:
        """Take note of a signal; a second one does not change the reason."""
        if self.stop is None:
            self.stop = Stop("paused", f"stopped by {name}", 130)

    def _take(self, request: Request) -> None:
        if request.action == "cancel":
            self.stop = Stop("cancelled", "cancelled on request", 130)
        elif request.action == "stop" and self.stop is None:
            self.stop = Stop("paused", "paused on request", 130)
        elif request.action in ("save", "sample"):
            self._pending.append(request)


@contextlib.contextmanager
def signals_caught(stops: Stops) -> Iterator[None]:
    """SIGTERM and SIGINT finish the step at hand and save; a second SIGINT ends the process at once.

    Only the main thread may do this; elsewhere the signals stay with whoever owns the process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        del frame
        if number == signal.SIGINT and stops.stop is not None:
            raise KeyboardInterrupt
        stops.signalled(signal.Signals(number).name)

    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
