"""SIGKILL at chosen moments: a process works on a job, its folder is watched, and it is shot when something is seen.

Attempts are real processes, forked from one that has imported everything: that spares each of them the seconds that
importing torch takes. `tests/contracts/test_executors.py` starts them the long way.
"""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from job_cases import child_environment
from tunesmith.jobs.folder import JobFolder

TICK_SECONDS = 0.0005
PATIENCE_SECONDS = 300.0

Trigger = Callable[[JobFolder], bool]

NURSERY = """
import os, sys
from pathlib import Path
from tunesmith.jobs.work import work
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        os.setsid()
        log = os.open(Path(line.strip()) / "printed.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os._exit(work(Path(line.strip())))
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class Shot:
    """What became of one attempt: `code` is its exit code, -9 where it was shot in time."""

    code: int
    wanted: str

    @property
    def hit(self) -> bool:
        return self.code == -signal.SIGKILL


@dataclass(frozen=True)
class Nursery:
    """Starts attempts, one at a time."""

    process: subprocess.Popen[str]

    def shoot(self, job: JobFolder, wanted: str, trigger: Trigger) -> Shot:
        """Start an attempt and kill it as soon as `trigger` sees its moment; an attempt that ends before is not hit."""
        child, deadline = self._start(job), time.monotonic() + PATIENCE_SECONDS
        try:
            while not select.select([self._said], [], [], TICK_SECONDS)[0]:
                if trigger(job):
                    # A pidfd: never another process, whatever became of the number.
                    signal.pidfd_send_signal(child, signal.SIGKILL)
                    break
                assert time.monotonic() < deadline, f"no {wanted} within {PATIENCE_SECONDS} s"
        except ProcessLookupError:
            pass
        finally:
            os.close(child)
        return Shot(int(self._said.readline()), wanted)

    def finish(self, job: JobFolder) -> int:
        """Let an attempt run to its end; its exit code."""
        os.close(self._start(job))
        return int(self._said.readline())

    def _start(self, job: JobFolder) -> int:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{job.path}\n")
        self.process.stdin.flush()
        return os.pidfd_open(int(self._said.readline()))

    @property
    def _said(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout


@contextmanager
def open_nursery() -> Iterator[Nursery]:
    """A process that has imported what the work needs."""
    command = [sys.executable, "-c", NURSERY]
    with subprocess.Popen(
        command, env=child_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Nursery(process)
        assert process.stdin is not None
        process.stdin.close()


def more_bytes(job: JobFolder, count: int) -> Trigger:
    """The journal has grown by `count` bytes: any moment at all, also within an append."""
    start = _size(job.events_file)
    return lambda job: _size(job.events_file) >= start + count


def more_steps(job: JobFolder, count: int) -> Trigger:
    """`count` steps more were logged."""
    start = _steps(job)
    return lambda job: _steps(job) >= start + count


def state_half_written(job: JobFolder) -> bool:
    """A state is being written aside at this moment."""
    return any(_names(job.states / name) for name in _names(job.states) if name.startswith(".step-"))


def checkpoint_half_made(job: JobFolder) -> bool:
    """A checkpoint is being put together."""
    # Listed, not globbed: an attempt that begins makes the folder anew, and it may be gone at this moment.
    return any(name.startswith("register-") for name in _names(job.work))


def more_encoded(job: JobFolder, count: int) -> Trigger:
    """`count` entries more are in the cache, or are being written to it."""
    cache = job.home / "cache" / "encoded"
    start = _entries(cache)
    return lambda job: _entries(cache) >= start + count


def moments(job: JobFolder, seed: int, whole_bytes: int) -> Iterator[tuple[str, Trigger]]:
    """Endless moments to kill at, the four kinds in turn; `whole_bytes` is the journal of an undisturbed run."""
    draw = random.Random(seed)
    while True:
        yield "a state half written", state_half_written
        yield "some bytes of the journal", more_bytes(job, draw.randrange(1, max(2, whole_bytes // 3)))
        yield "a checkpoint half made", checkpoint_half_made
        yield "some steps", more_steps(job, draw.randrange(1, 6))


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _steps(job: JobFolder) -> int:
    return job.events_file.read_bytes().count(b'"kind": "step"') if job.events_file.exists() else 0


def _entries(cache: Path) -> int:
    return sum(name.endswith(".safetensors") for _, _, names in os.walk(cache) for name in names)
