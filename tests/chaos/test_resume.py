"""Kill -9 at any moment, work again: weights, optimiser and story equal those of an undisturbed run, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from job_cases import World, checkpoint_files, final_state, losses, raw_lines, write_world
from job_killing import Nursery, moments, more_encoded, more_steps, open_nursery, state_half_written
from tunesmith.jobs.folder import JobFolder
from tunesmith.jobs.journal import read_events
from tunesmith.jobs.status import read_status

METHODS = ("lora", "full", "scratch")
STEPS = 40
# Enough work between two states that a kill loses some of it.
RUN = {"length__steps": STEPS, "output__state_every_steps": 6, "output__save_every_steps": 16}
RUN |= {"optimiser__ema_decay": 0.9, "optimiser__schedule": "cosine", "length__accumulation": 2}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with open_nursery() as opened:
        yield opened


@pytest.fixture(scope="module")
def undisturbed(world: World, nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> dict[str, JobFolder]:
    """Method -> a job that nobody disturbed."""
    jobs = {}
    for method in METHODS:
        job = world.job(tmp_path_factory.mktemp("calm"), method, **RUN)
        assert nursery.finish(job) == 0
        jobs[method] = job
    return jobs


def kill_until(nursery: Nursery, job: JobFolder, kills: int, *, seed: int, whole_bytes: int) -> list[str]:
    """Kill `kills` attempts; those that got away in time are made up for while the job is unfinished."""
    hits: list[str] = []
    chances = moments(job, seed, whole_bytes)
    while len(hits) < kills:
        wanted, trigger = next(chances)
        shot = nursery.shoot(job, wanted, trigger)
        if shot.hit:
            hits.append(shot.wanted)
        else:
            assert shot.code == 0, shot
            return hits
    return hits


def assert_one_story(job: JobFolder, calm: JobFolder) -> None:
    """No gap, no conflict, one writer at a time, and the numbers of the undisturbed run."""
    raw = raw_lines(job)
    assert [line["seq"] for line in raw] == list(range(1, len(raw) + 1))
    # Equal weights would not prove it: an attempt whose token was replaced must never write again.
    tokens = [line["token"] for line in raw]
    changes = [token for index, token in enumerate(tokens) if index == 0 or tokens[index - 1] != token]
    assert len(changes) == len(set(changes))
    # Starting over would give the same numbers, too: every attempt goes on from the last state there was.
    saved = 0
    for line in raw:
        if line["kind"] == "state_saved":
            saved = line["step"]
        elif line["kind"] == "resumed":
            assert line["step"] >= saved
            assert line["fresh"] is (line["step"] == 0)
    assert losses(job) == losses(calm)
    assert [step for step, _ in losses(job)] == list(range(1, STEPS + 1))
    for kind in ("validated", "registered", "state_saved"):
        ours, theirs = ([line for line in read_events(one) if line["kind"] == kind] for one in (job, calm))
        told = "loss" if kind == "validated" else "step"
        assert dict.fromkeys((line["step"], line[told]) for line in ours) == dict.fromkeys(
            (line["step"], line[told]) for line in theirs
        )
    status = read_status(job)
    assert (status.state, status.step) == ("completed", STEPS)
    assert [m.step for m in status.validations] == [m.step for m in read_status(calm).validations]


def assert_same_results(job: JobFolder, calm: JobFolder) -> None:
    assert final_state(job) == final_state(calm)
    assert {state.name for state in job.states.iterdir()} == {state.name for state in calm.states.iterdir()}
    assert len(list(calm.states.iterdir())) in (2, 3)
    ours, theirs = read_status(job).checkpoints, read_status(calm).checkpoints
    assert len(ours) == len(theirs) >= 3
    for one, other in zip(ours, theirs, strict=True):
        files = checkpoint_files(job, one)
        assert files == checkpoint_files(calm, other)
        assert files
    leftovers = [path for path in job.path.rglob(".*") if path.name not in (".lock",)]
    leftovers += [path for path in (job.home / "checkpoints").glob(".*") if path.name != ".lock"]
    assert not leftovers


def check(nursery: Nursery, make: Callable[[int], JobFolder], calm: JobFolder, *, kills: int, seed: int) -> None:
    """`kills` kills, spread over as many jobs as it takes: one that gets to its end is judged, and another begins."""
    whole_bytes, done, job = calm.events_file.stat().st_size, 0, make(0)
    while done < kills:
        done += len(kill_until(nursery, job, kills - done, seed=seed + done, whole_bytes=whole_bytes))
        if done < kills:
            assert_one_story(job, calm)
            assert_same_results(job, calm)
            job = make(done)
    assert nursery.finish(job) == 0, job.log_file.read_text()
    assert_one_story(job, calm)
    assert_same_results(job, calm)


@pytest.mark.parametrize("method", METHODS)
def test_three_kills_change_nothing(
    world: World, nursery: Nursery, tmp_path: Path, undisturbed: dict[str, JobFolder], method: str
) -> None:
    def make(number: int) -> JobFolder:
        return world.job(tmp_path / str(number), method, **RUN)

    check(nursery, make, undisturbed[method], kills=3, seed=METHODS.index(method))


@pytest.mark.long
@pytest.mark.parametrize("method", METHODS)
def test_twenty_kills_change_nothing(
    world: World, nursery: Nursery, tmp_path: Path, undisturbed: dict[str, JobFolder], method: str
) -> None:
    def make(number: int) -> JobFolder:
        return world.job(tmp_path / str(number), method, **RUN)

    check(nursery, make, undisturbed[method], kills=20, seed=100 + METHODS.index(method))


def test_encoding_goes_on_after_a_kill(
    world: World, nursery: Nursery, tmp_path: Path, undisturbed: dict[str, JobFolder]
) -> None:
    job = world.job(tmp_path, "lora", **RUN)
    assert nursery.shoot(job, "some encoded items", more_encoded(job, 3)).hit
    cache = job.home / "cache" / "encoded"
    # A new file would have a new inode; the time changes when an entry is used.
    kept = {path: path.stat().st_ino for path in cache.rglob("*.safetensors")}
    assert len(kept) >= 3
    assert nursery.finish(job) == 0
    assert {path: path.stat().st_ino for path in kept} == kept
    assert_one_story(job, undisturbed["lora"])
    assert_same_results(job, undisturbed["lora"])


def test_a_state_killed_within_its_writing_leaves_the_one_before(
    world: World, nursery: Nursery, tmp_path: Path, undisturbed: dict[str, JobFolder]
) -> None:
    job = world.job(tmp_path, "full", **RUN)
    assert nursery.shoot(job, "12 steps", more_steps(job, 13)).hit
    before = {path.name for path in job.states.glob("step-*")}
    assert before
    assert nursery.shoot(job, "a state half written", state_half_written).hit
    assert before <= {path.name for path in job.states.glob("step-*")}
    assert nursery.finish(job) == 0
    assert_one_story(job, undisturbed["full"])
    assert_same_results(job, undisturbed["full"])
