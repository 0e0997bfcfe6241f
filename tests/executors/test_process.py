"""The process executor with children that need no torch: they hold the folder and do what a test wants."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from tunesmith.errors import JobError
from tunesmith.executors.process import ProcessExecutor, default_command
from tunesmith.jobs.control import take_requests
from tunesmith.jobs.executor import Handle
from tunesmith.jobs.folder import JobFolder, create_job
from tunesmith.jobs.journal import Journal
from tunesmith.jobs.lock import hold
from tunesmith.jobs.records import Started, StateChanged
from tunesmith.jobs.status import read_status
from tunesmith.recipe.schema import OutputSection, Recipe

WORKER = """
import signal, subprocess, sys, time
from pathlib import Path
from tunesmith.jobs.control import take_requests
from tunesmith.jobs.folder import JobFolder
from tunesmith.jobs.journal import Journal
from tunesmith.jobs.lock import hold
from tunesmith.jobs.records import Started, StateChanged
job, manner = JobFolder(Path(sys.argv[1])), sys.argv[2]
if manner == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); "
                              "print('grandchild', flush=True); time.sleep(600)"])
stopped = []
if manner == "polite":
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
with hold(job) as attempt:
    journal = Journal(job, attempt)
    journal.append(Started(attempt.number, attempt.pid, attempt.host, "test"))
    print("at work", flush=True)
    while not stopped:
        time.sleep(0.002)
    reason = "asked" if any(one.action == "cancel" for one in take_requests(job)) else "signalled"
    journal.append(StateChanged("cancelled", reason, 130))
    journal.close()
"""


@dataclass(frozen=True)
class NoKnobs:
    """An engine section without knobs."""


@pytest.fixture
def job(tmp_path: Path) -> JobFolder:
    return create_job(tmp_path, "train", Recipe("none", NoKnobs(), output=OutputSection(name="x")))


def worker(manner: str, grace_seconds: float = 60.0) -> ProcessExecutor:
    return ProcessExecutor(lambda folder: [sys.executable, "-c", WORKER, str(folder), manner], grace_seconds)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def at_work(executor: ProcessExecutor, job: JobFolder) -> Handle:
    handle = executor.submit(job.path, {})
    until(lambda: "at work" in executor.log(handle))
    return handle


def test_the_command_is_the_one_entry_point(tmp_path: Path) -> None:
    assert default_command(tmp_path) == [sys.executable, "-m", "tunesmith", "work", str(tmp_path)]


def test_a_child_is_detached_and_polled_by_its_lock(job: JobFolder) -> None:
    executor = worker("polite")
    handle = executor.submit(job.path, {"SOME_DEVICE": "3"})
    pid = int(handle.reference)
    assert os.getsid(pid) == pid != os.getsid(0)
    assert executor.poll(handle).phase in ("queued", "running")
    until(lambda: executor.poll(handle).phase == "running")
    assert psutil.Process(pid).environ()["SOME_DEVICE"] == "3"  # by now it is surely past exec
    executor.cancel(handle)
    assert not psutil.pid_exists(pid)
    assert (read_status(job).state, read_status(job).reason) == ("cancelled", "asked")
    assert executor.poll(handle).exit_code == 130
    before = job.events_file.read_bytes()
    executor.cancel(handle)
    assert job.events_file.read_bytes() == before
    assert take_requests(job) == []


def test_one_that_does_not_listen_is_killed_with_all_it_started(job: JobFolder) -> None:
    executor = worker("deaf", grace_seconds=0.05)
    handle = at_work(executor, job)
    until(lambda: "grandchild" in executor.log(handle))
    (grandchild,) = psutil.Process(int(handle.reference)).children()
    executor.cancel(handle)
    until(lambda: not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE)
    status = read_status(job)
    assert (status.state, executor.poll(handle).phase) == ("cancelled", "ended")


def test_one_that_vanished_is_unknown_and_can_be_cancelled(job: JobFolder) -> None:
    executor = worker("polite")
    handle = at_work(executor, job)
    os.kill(int(handle.reference), signal.SIGKILL)
    until(lambda: executor.poll(handle).phase == "unknown")
    assert read_status(job).interrupted
    executor.cancel(handle)
    assert read_status(job).state == "cancelled"


def test_one_that_never_began_has_not_ended_as_the_attempt_before_it(job: JobFolder) -> None:
    with hold(job) as attempt:
        journal = Journal(job, attempt)
        journal.append(Started(attempt.number, attempt.pid, attempt.host, "test"))
        journal.append(StateChanged("paused", "the time is over", 0))
        journal.close()
    executor = ProcessExecutor(lambda folder: [sys.executable, "-c", "pass"])
    handle = executor.submit(job.path, {})
    until(lambda: executor.poll(handle).phase == "unknown")
    assert "before it began" in executor.poll(handle).detail
    executor.cancel(handle)
    assert executor.poll(handle).phase == "ended"


def test_a_reused_process_id_is_not_taken_for_the_child(job: JobFolder) -> None:
    executor = worker("polite")
    handle = at_work(executor, job)
    stranger = replace(handle, details={**handle.details, "started": "0.0"})
    os.kill(int(handle.reference), signal.SIGKILL)
    until(lambda: executor.poll(handle).phase == "unknown")
    # Our own process as the stranger: it must not be signalled.
    stranger = replace(stranger, details={**stranger.details, "pid": str(os.getpid())})
    assert executor.poll(stranger).phase == "unknown"
    executor.cancel(stranger)
    assert read_status(job).state == "cancelled"


def test_a_command_that_does_not_exist(job: JobFolder) -> None:
    executor = ProcessExecutor(lambda folder: [str(folder / "nothing-here")])
    with pytest.raises(JobError, match="no process could be started"):
        executor.submit(job.path, {})
