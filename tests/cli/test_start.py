"""A job that was asked for is done, whatever becomes of whoever reads the output."""

from __future__ import annotations

import errno
import io
import sys
from pathlib import Path
from typing import Any

import pytest

from tunesmith.cli.main import main
from tunesmith.errors import NonFinite
from tunesmith.jobs.folder import list_jobs
from tunesmith.jobs.status import read_status


class Leaving(io.StringIO):
    """A pipe whose reader leaves as soon as it has seen `wanted`."""

    def __init__(self, wanted: str) -> None:
        super().__init__()
        self._wanted = wanted

    def write(self, text: str) -> int:
        if self._wanted in self.getvalue():
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")
        return super().write(text)


@pytest.fixture
def read_until(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`read_until(wanted, *words)` runs a command line for a reader that leaves; its exit code and what was read."""

    def call(wanted: str, *words: object) -> tuple[int, str]:
        pipe = Leaving(wanted)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", pipe)
            code = main([str(word) for word in words])
            assert sys.stdout is not pipe  # so that nothing is flushed into it at the end
            sys.stdout.close()
        return code, pipe.getvalue()

    return call


def states(home: Path) -> list[str]:
    return [read_status(job).state for job in list_jobs(home)]


@pytest.mark.parametrize("wanted", ["trains", "job 2", "load\n", "completed"])
def test_a_job_in_this_process_is_finished(read_until, workshop, home: Path, capfd, wanted: str) -> None:
    code, read = read_until(wanted, "train", workshop.recipe, "--on", "inline")
    assert code == 0
    assert wanted in read
    assert "Next:" not in read
    assert states(home) == ["completed"]
    assert capfd.readouterr().err == ""


def test_the_exit_code_is_the_jobs(read_until, workshop, home: Path, monkeypatch, capfd) -> None:
    def failing(*_: object) -> None:
        raise NonFinite("the loss is NaN")

    monkeypatch.setattr("tunesmith.jobs.work.train_job.train_live", failing)
    code, _ = read_until("trains", "train", workshop.recipe, "--on", "inline")
    assert (code, states(home)) == (NonFinite.exit_code, ["failed"])
    assert "the loss is NaN" in capfd.readouterr().err


def test_a_plan_that_nobody_reads_starts_nothing(read_until, workshop, home: Path) -> None:
    code, read = read_until("", "train", workshop.recipe, "--on", "inline")
    assert (code, read) == (0, "")
    assert states(home) == []


def test_a_job_of_its_own_goes_on_and_says_so(read_until, tunesmith, workshop, home: Path, capfd) -> None:
    code, _ = read_until("trains", "train", workshop.recipe, "--on", "local")
    (job,) = list_jobs(home)
    assert code == 0
    assert capfd.readouterr().err == f"{job.id} goes on by itself; see it with: tunesmith jobs watch {job.id}\n"
    assert tunesmith("jobs", "watch", job.id).code == 0
    assert states(home) == ["completed"]


@pytest.mark.parametrize("words", [("jobs", "list"), ("jobs", "list", "--json")])
def test_a_list_that_is_read_in_part_is_no_error(read_until, words: tuple[str, ...], capfd) -> None:
    assert read_until("", *words) == (0, "")
    assert capfd.readouterr().err == ""
