from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict

import pytest

from tunesmith.events import Phase, Progress, Sampled, StateSaved, StepDone, Validated, Warned
from tunesmith.jobs.folder import JobFolder
from tunesmith.jobs.journal import Journal, read_lines
from tunesmith.jobs.lock import hold
from tunesmith.jobs.records import (
    STATES,
    Entry,
    Exported,
    PhaseEnded,
    Planned,
    Registered,
    Resumed,
    Started,
    StateChanged,
)
from tunesmith.jobs.status import Measured, Status, fold, read_status, rebuild, to_json, write_status

STORY: tuple[Entry, ...] = (
    Started(1, 77, "here", "0.1.0"),
    Phase("encode"),
    Progress(3, 12, "items"),
    PhaseEnded("encode", 2.0, 1000),
    Planned(10),
    Phase("train"),
    StepDone(1, 2, 0.9, {"denoiser": 1e-4}, 1.5, 2.0),
    StepDone(2, 4, 0.7, {"denoiser": 1e-4}, 1.4, 1.0),
    Validated(2, 0.8),
    StateSaved(2, "states/2", 100),
    StepDone(3, 6, 0.6, {"denoiser": 1e-4}, 1.3, 1.0),
    Validated(3, 0.1),
    Sampled(3, "samples/3.png"),
    Started(2, 78, "here", "0.1.0"),
    Resumed(2),
    StepDone(3, 6, float("nan"), {"denoiser": 1e-4}, 1.3, 1.0),
    Warned("odd"),
    Warned("odd"),
    Registered(3, "c-3", "peter", True),
    Registered(3, "c-3", "peter", True),
    Exported(3, "results/peter.safetensors", "kohya"),
    StateChanged("failed", "a NaN", 3),
)


@pytest.fixture
def journal(job: JobFolder) -> Iterator[Journal]:
    with hold(job) as attempt:
        writer = Journal(job, attempt, clock=lambda: 9.0)
        yield writer
        writer.close()


def test_the_story_folds_into_one_status(job: JobFolder, journal: Journal) -> None:
    for entry in STORY:
        journal.append(entry)
    status = read_status(job)
    assert (status.state, status.reason, status.exit_code, status.last_error) == ("failed", "a NaN", 3, "a NaN")
    assert (status.attempt, status.pid, status.phase) == (2, 78, "train")
    assert (status.step, status.steps, status.position_items) == (3, 10, 6)
    # What attempt 1 measured at step 3 was done again and is forgotten.
    assert status.validations == (Measured(2, 0.8),)
    assert status.best == status.first_validation == Measured(2, 0.8)
    assert status.checkpoints == ("c-3",)
    assert status.exports == ("results/peter.safetensors",)
    assert status.peak_bytes == {"encode": 1000}
    assert status.warnings == ("odd",)
    assert status.updated_unix == 9.0


def test_eta_counts_what_happens_between_steps() -> None:
    def line(step: int, time: float) -> dict[str, object]:
        event = StepDone(step, step, 0.5, {}, 1.0, 2.0)
        return {"kind": "step", "seq": step, "token": "t", "time": time, **asdict(event)}

    planned = {"kind": "planned", "seq": 1, "token": "t", "time": 0.0, "steps": 10}
    status = fold([planned, line(1, 100.0), line(2, 103.0), line(3, 110.0)])
    # Two steps in ten seconds, seven left, although a step itself takes two.
    assert status.eta_seconds == pytest.approx(35.0)
    assert fold([planned, line(1, 100.0), line(2, 40.0)]).eta_seconds == pytest.approx(16.0)


def test_eta_follows_the_pace(job: JobFolder, journal: Journal) -> None:
    for entry in STORY[:8]:
        journal.append(entry)
    status = read_status(job)
    assert status.seconds_per_step == pytest.approx(2.0 + 0.1 * (1.0 - 2.0))
    assert status.eta_seconds == pytest.approx(8 * 1.9)
    assert (status.phase, status.loss, status.loss_mean) == ("train", 0.7, pytest.approx(0.88))


@pytest.mark.parametrize("covered", range(len(STORY) + 1))
def test_a_stale_status_file_changes_nothing(job: JobFolder, journal: Journal, covered: int) -> None:
    for entry in STORY:
        journal.append(entry)
    lines = list(read_lines(job.events_file))
    offset = lines[covered - 1][1] if covered else 0
    write_status(job, fold(line for line, _ in lines[:covered]), offset)
    assert to_json(read_status(job)) == to_json(fold(line for line, _ in lines))


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"format": 99}', '{"format": 1, "covers_bytes": 5}', "covers more than there is"]
)
def test_a_useless_status_file_is_rebuilt(job: JobFolder, journal: Journal, content: str) -> None:
    for entry in STORY:
        journal.append(entry)
    expected = to_json(read_status(job))
    if content.startswith("covers"):
        write_status(job, Status(), 1 << 40)
    else:
        job.status_file.write_text(content)
    assert to_json(read_status(job)) == expected
    assert to_json(rebuild(job)) == expected
    assert json.loads(job.status_file.read_text())["covers_bytes"] == job.events_file.stat().st_size


def test_a_job_that_was_never_started_is_queued(job: JobFolder) -> None:
    assert read_status(job) == Status()
    assert Status().state in STATES


def test_a_killed_job_says_so(job: JobFolder) -> None:
    with hold(job) as attempt:
        writer = Journal(job, attempt)
        for entry in STORY[:8]:
            writer.append(entry)
        assert read_status(job).state == "running"
        writer.close()
    status = read_status(job)
    assert status.interrupted
    assert status.state == "paused"
    assert "resume" in status.reason
    assert status.step == 2
