"""SIGKILL at chosen moments: a child works on a job, its folder is watched, and it is shot when something is seen."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from job_cases import child_environment, work_command
from tunesmith.jobs.folder import JobFolder

TICK_SECONDS = 0.0005
PATIENCE_SECONDS = 120.0

Trigger = Callable[[JobFolder], bool]


@dataclass(frozen=True)
class Shot:
    """What became of one attempt: `code` is its exit code, -9 where it was shot in time."""

    code: int
    wanted: str

    @property
    def hit(self) -> bool:
        return self.code == -9


def shoot(job: JobFolder, wanted: str, trigger: Trigger) -> Shot:
    """Start an attempt and kill it as soon as `trigger` sees its moment; an attempt that ends before is not hit."""
    with subprocess.Popen(work_command(job), env=child_environment(), stdout=subprocess.PIPE) as child:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while child.poll() is None:
            if trigger(job):
                child.kill()
                break
            assert time.monotonic() < deadline, f"no {wanted} within {PATIENCE_SECONDS} s"
            time.sleep(TICK_SECONDS)
        return Shot(child.wait(), wanted)


def finish(job: JobFolder) -> subprocess.CompletedProcess[bytes]:
    """Let an attempt run to its end."""
    return subprocess.run(work_command(job), env=child_environment(), capture_output=True, check=False)


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
    return any(any(folder.iterdir()) for folder in job.states.glob(".step-*"))


def checkpoint_half_made(job: JobFolder) -> bool:
    """A checkpoint is being put together."""
    return any(job.work.glob("register-*"))


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


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _steps(job: JobFolder) -> int:
    return job.events_file.read_bytes().count(b'"kind": "step"') if job.events_file.exists() else 0


def _entries(cache: Path) -> int:
    return sum(1 for _ in cache.rglob("*.safetensors")) if cache.is_dir() else 0
