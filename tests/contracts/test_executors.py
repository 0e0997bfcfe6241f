"""The contract of every executor: a folder goes in, a job comes out, whatever happened in between."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from job_cases import World, write_world
from tunesmith.errors import JobBusy, JobError
from tunesmith.executors.index import executor_named
from tunesmith.jobs.control import request
from tunesmith.jobs.executor import Executor, Handle, Poll
from tunesmith.jobs.lock import hold, is_held
from tunesmith.jobs.status import read_status

NAMES = ("inline", "process")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(params=NAMES)
def executor(request: pytest.FixtureRequest) -> Executor:
    return executor_named(request.param)


def ended(executor: Executor, handle: Handle, *, seconds: float = 120) -> Poll:
    deadline = time.monotonic() + seconds
    while (poll := executor.poll(handle)).phase != "ended":
        assert poll.phase in ("queued", "running"), poll
        assert time.monotonic() < deadline, executor.log(handle)
        time.sleep(0.005)
    return poll


def test_a_job_is_done_and_told(world: World, tmp_path: Path, executor: Executor) -> None:
    job = world.job(tmp_path, length__steps=3)
    handle = executor.submit(job.path, {})
    # What an executor needs to find its work again survives being written down.
    handle = Handle(**json.loads(json.dumps(asdict(handle))))
    assert handle.executor == executor.name
    assert ended(executor, handle) == Poll("ended", 0, "")
    assert read_status(job).state == "completed"
    assert "attempt 1 by process" in executor.log(handle)
    assert not is_held(job)
    before = job.events_file.read_bytes()
    executor.cancel(handle)
    executor.cancel(handle)
    assert job.events_file.read_bytes() == before
    assert executor.poll(handle).exit_code == 0


def test_a_refused_job_ends_with_its_exit_code(world: World, tmp_path: Path, executor: Executor) -> None:
    job = world.job(tmp_path, resources__memory_limit_bytes=1000)
    poll = ended(executor, executor.submit(job.path, {}))
    assert poll.exit_code == 2
    assert "memory" in read_status(job).reason


def test_submitting_forgets_old_requests(world: World, tmp_path: Path, executor: Executor) -> None:
    job = world.job(tmp_path, length__steps=3)
    request(job, "stop")
    assert ended(executor, executor.submit(job.path, {})).exit_code == 0
    assert read_status(job).state == "completed"


def test_a_folder_at_work_is_not_started_again(world: World, tmp_path: Path, executor: Executor) -> None:
    job = world.job(tmp_path)
    with hold(job), pytest.raises(JobBusy, match=f"process {os.getpid()}"):
        executor.submit(job.path, {})
    assert not job.events_file.exists()


def test_a_folder_that_is_no_job_is_refused(tmp_path: Path, executor: Executor) -> None:
    with pytest.raises(JobError, match=r"no manifest\.json"):
        executor.submit(tmp_path, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("asked", "name"), [("inline", "inline"), ("process", "process"), ("local", "process")])
def test_executors_are_found_by_name(asked: str, name: str) -> None:
    assert executor_named(asked).name == name


def test_an_unknown_executor_gets_the_nearest_name() -> None:
    with pytest.raises(JobError, match="Did you mean 'process'"):
        executor_named("proces")
