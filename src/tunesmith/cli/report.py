"""A job's progress for whoever reads it: a live line on a terminal, plain lines in a log, JSON lines for a script."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from tunesmith.cli.screen import Screen, human_bytes, human_seconds

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from tunesmith.jobs.folder import JobFolder
    from tunesmith.jobs.status import Status

Line = Mapping[str, Any]
POLL_SECONDS = 0.2
PLAIN_EVERY_SECONDS = 10.0


class Report(Protocol):
    """Takes a journal line by line, with the status after each."""

    def take(self, line: Line, status: Status) -> None:
        """Show one line."""
        ...

    def close(self) -> None:
        """Leave the screen as a person wants to find it."""
        ...


class JsonReport:
    """Every journal line as it is."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def take(self, line: Line, status: Status) -> None:
        """Write the line."""
        del status
        self._screen.json_line(line)

    def close(self) -> None:
        """Nothing to tidy."""


class SilentReport:
    """Nothing while it runs: the answer comes at the end, as one JSON document."""

    def take(self, line: Line, status: Status) -> None:
        """Say nothing."""
        del line, status

    def close(self) -> None:
        """Nothing to tidy."""


class PlainReport:
    """One plain line for everything notable, and one about the pace every few seconds."""

    def __init__(self, screen: Screen, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._screen = screen
        self._clock = clock
        self._last = -PLAIN_EVERY_SECONDS

    def take(self, line: Line, status: Status) -> None:
        """Write a line where there is something to say."""
        text = sentence(line)
        if text is not None:
            self._screen.say(text)
        elif line["kind"] in ("step", "progress") and self._due():
            self._screen.say(pace(status))

    def close(self) -> None:
        """Nothing to tidy."""

    def _due(self) -> bool:
        now = self._clock()
        if now - self._last < PLAIN_EVERY_SECONDS:
            return False
        self._last = now
        return True


class LiveReport:
    """A bar with loss, speed, time left and memory; notable lines scroll above it."""

    def __init__(self, screen: Screen) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self._progress: Progress = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[words]}"),
            console=screen.console,
            transient=True,
        )
        self._task: TaskID = self._progress.add_task("start", total=None, words="")
        self._progress.start()

    def take(self, line: Line, status: Status) -> None:
        """Move the bar, or write a line above it."""
        text = sentence(line)
        if text is not None:
            self._progress.console.print(text)
        done, total, _ = _extent(status)
        self._progress.update(
            self._task, description=status.phase or "start", completed=done, total=total, words=pace(status)
        )

    def close(self) -> None:
        """Remove the bar."""
        self._progress.stop()


def report_for(screen: Screen, *, json_lines: bool = False) -> Report:
    """The kind of report that fits where the words go; `json_lines` for those who follow the journal itself."""
    if screen.as_json:
        return JsonReport(screen) if json_lines else SilentReport()
    return LiveReport(screen) if screen.console.is_terminal else PlainReport(screen)


def follow(
    folder: JobFolder, report: Report, ended: Callable[[], bool], *, wait: Callable[[float], None] = time.sleep
) -> None:
    """Hand the job's journal to `report` line by line until `ended()` and nothing is left to read.

    Lines that are already there are not shown again; they only set the status the new ones build on.
    """
    from tunesmith.jobs.journal import read_lines
    from tunesmith.jobs.status import Status, fold

    status, offset = Status(), 0
    for line, after in read_lines(folder.events_file):
        status, offset = fold([line], status), after
    while True:
        last_look = ended()
        for line, after in read_lines(folder.events_file, offset):
            status, offset = fold([line], status), after
            report.take(line, status)
        if last_look:
            return
        wait(POLL_SECONDS)


def pace(status: Status) -> str:
    """`step 120/1200  loss 0.0873  1.31 s/step  left 23:35  1.9 GiB` or what of it is known."""
    done, total, unit = _extent(status)
    parts = [f"{unit} {done}/{'?' if total is None else total}"]
    if status.phase == "train":
        if status.loss_mean is not None:
            parts.append(f"loss {status.loss_mean:.4f}")
        if status.seconds_per_step is not None:
            parts.append(f"{status.seconds_per_step:.2f} s/step")
        parts.append(f"left {human_seconds(status.eta_seconds)}")
    memory = _memory_bytes(status.pid)
    if memory is not None:
        parts.append(human_bytes(memory))
    return "  ".join(parts)


def sentence(line: Line) -> str | None:
    """The line in words, or None where it only moves the bar."""
    told = _SENTENCES.get(line["kind"])
    return told(line) if told is not None else None


def _extent(status: Status) -> tuple[int, int | None, str]:
    if status.phase == "train":
        return status.step, status.steps, "step"
    return status.phase_done, status.phase_total, status.phase_unit or status.phase or "start"


def _memory_bytes(pid: int | None) -> int | None:
    """Resident size of the job's process on this machine; None once it is gone."""
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss) if pid else None
    except psutil.Error:
        return None


def _with(text: str, detail: str) -> str:
    return f"{text}: {detail}" if detail else text


def _resumed(line: Line) -> str | None:
    notes = "; ".join(line["notes"])
    if line["step"] == 0 and not notes:
        return None
    return _with(f"goes on from step {line['step']}", notes)


def _validated(line: Line) -> str:
    by_concept = ", ".join(f"{name} {float(loss):.4f}" for name, loss in line["per_concept"].items())
    return f"step {line['step']}: held-out loss {float(line['loss']):.4f}" + (f" ({by_concept})" if by_concept else "")


_SENTENCES: Mapping[str, Callable[[Line], str | None]] = {
    "phase": lambda line: _with(line["name"], line["detail"]),
    "resumed": _resumed,
    "validated": _validated,
    "rolled_back": lambda line: f"went back from step {line['from_step']} to {line['to_step']}: {line['reason']}",
    "warning": lambda line: f"warning: {line['message']}",
    "sampled": lambda line: f"step {line['step']}: wrote {line['path']}",
    "registered": lambda line: f"step {line['step']}: checkpoint {line['name']} ({line['checkpoint']})",
    "exported": lambda line: f"exported {line['path']} ({line['layout']}), read back",
    "state": lambda line: None if line["state"] == "running" else _with(line["state"], line["reason"]),
}
