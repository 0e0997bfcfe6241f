from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys

import pytest

from tunesmith.errors import JobBusy, JobError
from tunesmith.jobs.folder import JobFolder
from tunesmith.jobs.lock import check_token, hold, is_held, read_attempt

HOLDER = """
import sys
from pathlib import Path
from tunesmith.jobs.folder import JobFolder
from tunesmith.jobs.lock import hold
with hold(JobFolder(Path(sys.argv[1]))) as attempt:
    print(attempt.token, flush=True)
    sys.stdin.read()
"""


def start_holder(job: JobFolder) -> tuple[subprocess.Popen[str], str]:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(job.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    return child, child.stdout.readline().strip()


def test_attempts_count_and_their_tokens_never_repeat(job: JobFolder) -> None:
    tokens = set()
    for number in (1, 2, 3):
        with hold(job) as attempt:
            assert attempt.number == number
            assert is_held(job)
            assert read_attempt(job) == attempt
            tokens.add(attempt.token)
        assert not is_held(job)
    assert len(tokens) == 3


def test_the_loser_is_told_who_holds_the_folder(job: JobFolder) -> None:
    child, token = start_holder(job)
    try:
        with pytest.raises(JobBusy) as caught, hold(job, patience_seconds=0.02):
            pytest.fail("two processes hold one folder")
        holder = read_attempt(job)
        assert holder is not None
        assert holder.token == token
        assert f"process {child.pid} on {holder.host} since {holder.since_utc}" in str(caught.value)
    finally:
        child.communicate("")
    assert not is_held(job)


def test_the_kernel_releases_the_lock_of_a_killed_holder(job: JobFolder) -> None:
    child, token = start_holder(job)
    child.kill()
    child.communicate()
    assert not is_held(job)
    with hold(job) as attempt:
        assert attempt.token != token
        assert attempt.number == 2
        assert attempt.pid == os.getpid()


def test_a_superseded_attempt_is_fenced_off(job: JobFolder) -> None:
    with hold(job) as first:
        check_token(job, first)
    with hold(job):
        pass
    with pytest.raises(JobBusy, match="being worked on by process"):
        check_token(job, first)


def test_looking_does_not_disturb(job: JobFolder) -> None:
    assert not is_held(job)
    assert not job.lock_file.exists()
    assert read_attempt(job) is None


def test_a_damaged_attempt_file_is_one_clear_line(job: JobFolder) -> None:
    job.attempt_file.write_text("{")
    with pytest.raises(JobError, match="damaged"), hold(job):
        pytest.fail("unreachable")
    assert not is_held(job)


CONTENDER = """
import sys
from pathlib import Path
from tunesmith.errors import JobBusy
from tunesmith.events import Warned
from tunesmith.jobs.folder import JobFolder
from tunesmith.jobs.journal import Journal
from tunesmith.jobs.lock import hold
job, won = JobFolder(Path(sys.argv[1])), 0
sys.stdin.readline()
while won < 8:
    try:
        with hold(job, patience_seconds=0.001) as attempt:
            journal = Journal(job, attempt)
            for number in range(20):
                journal.append(Warned(f"{attempt.number} {number}"))
            journal.close()
            won += 1
    except JobBusy:
        pass
"""


def test_contenders_never_write_at_once(job: JobFolder) -> None:
    command = [sys.executable, "-c", CONTENDER, str(job.path)]
    contenders = [subprocess.Popen(command, stdin=subprocess.PIPE, text=True) for _ in range(3)]
    for contender in contenders:
        assert contender.stdin is not None
        contender.stdin.write("go\n")
        contender.stdin.flush()
    assert [contender.wait(timeout=120) for contender in contenders] == [0, 0, 0]
    lines = [json.loads(row) for row in job.events_file.read_bytes().splitlines()]
    assert [line["seq"] for line in lines] == list(range(1, 3 * 8 * 20 + 1))
    # Runs of one token, never coming back, are what one writer at a time looks like.
    runs = [token for token, _ in itertools.groupby(line["token"] for line in lines)]
    assert len(runs) == len(set(runs)) == 24
    numbers = [line["message"] for line in lines]
    assert numbers == [f"{attempt} {number}" for attempt in range(1, 25) for number in range(20)]
