from __future__ import annotations

import pytest

from tunesmith.errors import JobError
from tunesmith.jobs.control import Request, cancel, clear_requests, request, take_requests
from tunesmith.jobs.folder import JobFolder
from tunesmith.jobs.journal import Journal, read_events
from tunesmith.jobs.lock import hold
from tunesmith.jobs.records import StateChanged
from tunesmith.jobs.status import read_status


def test_requests_are_handed_out_once_and_in_order(job: JobFolder) -> None:
    request(job, "save")
    request(job, "sample", details={"prompt": "a cat"})
    request(job, "stop")
    assert take_requests(job) == [Request("save"), Request("sample", {"prompt": "a cat"}), Request("stop")]
    assert take_requests(job) == []


def test_an_unknown_request_is_refused(job: JobFolder) -> None:
    with pytest.raises(JobError, match="cannot be asked to"):
        request(job, "explode")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"action": "explode"}', '{"action": 5}'])
def test_foreign_files_are_not_obeyed(job: JobFolder, content: str) -> None:
    (job.control / "0.json").write_text(content)
    assert take_requests(job) == []
    assert not list(job.control.iterdir())


def test_old_requests_are_forgotten(job: JobFolder) -> None:
    request(job, "stop")
    clear_requests(job)
    assert take_requests(job) == []
    job.control.rmdir()
    assert take_requests(job) == []


def test_a_job_without_a_process_is_cancelled_at_once(job: JobFolder) -> None:
    assert cancel(job)
    assert read_status(job).state == "cancelled"
    before = job.events_file.read_bytes()
    assert cancel(job)
    assert job.events_file.read_bytes() == before


def test_a_running_job_is_asked(job: JobFolder) -> None:
    with hold(job):
        assert not cancel(job)
        assert [entry.action for entry in take_requests(job)] == ["cancel"]


def test_a_completed_job_stays_completed(job: JobFolder) -> None:
    with hold(job) as attempt:
        writer = Journal(job, attempt)
        writer.append(StateChanged("completed", exit_code=0))
        writer.close()
    assert cancel(job)
    assert [line["state"] for line in read_events(job)] == ["completed"]


def test_a_process_still_starting_finds_that_its_job_was_cancelled(job: JobFolder) -> None:
    assert cancel(job)
    assert cancel(job)
    with hold(job):
        assert [entry.action for entry in take_requests(job)] == ["cancel"]
