"""Starting a job's work and staying with it: what `train` and `jobs resume` share."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tunesmith.cli.onward import onward
from tunesmith.cli.report import follow, report_for
from tunesmith.cli.screen import Screen, hush

if TYPE_CHECKING:
    from tunesmith.jobs.executor import Executor, Handle
    from tunesmith.jobs.folder import JobFolder
    from tunesmith.jobs.status import Status

FOREGROUND = "inline"


def start(folder: JobFolder, on: str, screen: Screen, *, detach: bool = False) -> int:
    """Hand the job to an executor and show its progress until it ends; returns the job's exit code.

    With `detach` it returns at once and the job goes on (not for the inline executor, which has no background).
    A job that is there is done, also where whoever reads the output (`| head -1`) has left.
    """
    from tunesmith.executors.index import executor_named

    executor = executor_named(on)
    with _heard_or_not():
        screen.say(f"job {folder.id} in {folder.path}")
    if executor.name == FOREGROUND:
        return conclude(folder, run_to_its_end(folder, screen, executor), screen)
    handle = executor.submit(folder.path, {})
    try:
        if not detach:
            return _beside(folder, executor, handle, screen)
        if screen.as_json:
            screen.document({"job": folder.id, "folder": folder.path, "handle": handle})
        screen.next_steps(f"tunesmith jobs watch {folder.id}", f"tunesmith jobs cancel {folder.id}")
    except BrokenPipeError:
        sys.stderr.write(f"{folder.id} goes on by itself; see it with: tunesmith jobs watch {folder.id}\n")
        hush()
    return 0


@contextmanager
def _heard_or_not() -> Iterator[None]:
    """What is said to a reader who has left is lost, and nothing else is."""
    try:
        yield
    except BrokenPipeError:
        hush()


def run_to_its_end(folder: JobFolder, screen: Screen, executor: Executor | None = None) -> int:
    """Do a job in this process and show its progress; returns its exit code.

    The work keeps the main thread, because signals arrive there; a second thread reads the journal aloud.
    """
    from tunesmith.executors.index import executor_named

    executor = executor or executor_named(FOREGROUND)
    over = threading.Event()
    report = report_for(screen)

    def read_aloud() -> None:
        with _heard_or_not():
            follow(folder, report, over.is_set)

    reader = threading.Thread(target=read_aloud, name="report", daemon=True)
    reader.start()
    try:
        handle = executor.submit(folder.path, {})
    finally:
        over.set()
        reader.join(timeout=10)
        report.close()
    return executor.poll(handle).exit_code or 0


def _beside(folder: JobFolder, executor: Executor, handle: Handle, screen: Screen) -> int:
    """Follow a job that runs elsewhere. The first Ctrl-C asks it to save its state, the second leaves it alone."""
    from tunesmith.jobs.control import request

    report = report_for(screen)

    def ended() -> bool:
        return executor.poll(handle).phase in ("ended", "unknown")

    try:
        follow(folder, report, ended)
    except KeyboardInterrupt:
        request(folder, "stop")
        screen.say("stopping; the state is saved first (Ctrl-C again to leave it to itself)")
        follow(folder, report, ended)
    finally:
        report.close()
    poll = executor.poll(handle)
    if poll.phase == "unknown":
        sys.stderr.write(f"error: {folder.id}: {poll.detail}\n")
        screen.next_steps(f"tunesmith jobs logs {folder.id}", f"tunesmith jobs resume {folder.id}")
        return 1
    return conclude(folder, poll.exit_code, screen)


def conclude(folder: JobFolder, exit_code: int | None, screen: Screen) -> int:
    """One line on how the job ended where that is not well, what to do now, and the exit code."""
    from tunesmith.jobs.status import read_status, to_json

    status = read_status(folder)
    code = exit_code if exit_code is not None else (0 if status.state == "completed" else 1)
    if status.state in ("paused", "cancelled"):
        sys.stderr.write(f"{folder.id}: {status.reason or status.state}\n")
    elif code != 0:
        sys.stderr.write(f"error: {folder.id} {status.state}: {status.reason or 'its log may say why'}\n")
    with _heard_or_not():
        if screen.as_json:
            screen.document({"job": folder.id, "folder": folder.path, "status": to_json(status)})
        suggest(folder, status, screen)
    return code


def suggest(folder: JobFolder, status: Status, screen: Screen) -> None:
    """What to do now, by how the job ended."""
    if status.state == "completed" and status.checkpoints:
        screen.next_steps(f"tunesmith jobs show {folder.id}", *onward(folder.home, status.checkpoints[-1]))
    elif status.state != "completed":
        screen.next_steps(f"tunesmith jobs show {folder.id}", f"tunesmith jobs resume {folder.id}")
