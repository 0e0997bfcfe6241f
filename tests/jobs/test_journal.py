from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunesmith.errors import DiskFull, JobBusy, JobError
from tunesmith.events import RolledBack, StateSaved, StepDone, Validated, Warned
from tunesmith.jobs import journal as journal_module
from tunesmith.jobs.folder import JobFolder, create_job
from tunesmith.jobs.journal import Journal, drop_superseded, read_events, read_lines
from tunesmith.jobs.lock import hold
from tunesmith.jobs.records import Resumed
from tunesmith.recipe.schema import Recipe


def step(number: int, loss: float = 0.5) -> StepDone:
    return StepDone(number, number * 2, loss, {"denoiser": 1e-4}, 1.0, 0.1)


@pytest.fixture
def writer(job: JobFolder) -> Iterator[Journal]:
    with hold(job) as attempt:
        journal = Journal(job, attempt, clock=lambda: 5.0)
        yield journal
        journal.close()


def test_lines_carry_their_envelope(job: JobFolder, writer: Journal) -> None:
    writer.append(step(1))
    line = writer.append(Warned("careful"))
    assert (line["seq"], line["time"], line["kind"], line["message"]) == (2, 5.0, "warning", "careful")
    assert [entry["seq"] for entry in read_events(job)] == [1, 2]
    assert len({entry["token"] for entry in read_events(job)}) == 1
    assert writer.offset_bytes == job.events_file.stat().st_size


def test_numbers_that_json_lacks_survive(job: JobFolder, writer: Journal) -> None:
    writer.append(step(1, float("nan")))
    assert read_events(job)[0]["loss"] == "nan"


def test_text_that_is_no_utf8_survives(job: JobFolder, writer: Journal) -> None:
    writer.append(Warned("bad name \udcff, 名"))
    assert read_events(job)[0]["message"] == "bad name \udcff, 名"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 10_000), rubbish=st.sampled_from([b"", b'{"seq": 9', b"\0" * 50, b"\0\0\n\0", b"{}\n"]))
def test_a_torn_tail_is_cut_wherever_it_tore(
    tmp_path_factory: pytest.TempPathFactory, recipe: Recipe, cut: int, rubbish: bytes
) -> None:
    job = create_job(tmp_path_factory.mktemp("home"), "train", recipe)
    with hold(job) as attempt:
        journal = Journal(job, attempt)
        for number in range(1, 6):
            journal.append(step(number))
        journal.close()
    whole = job.events_file.read_bytes()
    length = cut % (len(whole) + 1)
    job.events_file.write_bytes(whole[:length] + rubbish)
    survivors = whole[:length].count(b"\n")
    assert [line["step"] for line in read_events(job)] == list(range(1, survivors + 1))
    with hold(job) as attempt:
        journal = Journal(job, attempt)
        journal.append(Resumed(survivors))
        for number in range(survivors + 1, 7):
            journal.append(step(number))
        journal.close()
    raw = [json.loads(row) for row in job.events_file.read_bytes().splitlines()]
    assert [line["seq"] for line in raw] == list(range(1, 8))
    assert [line["step"] for line in read_events(job) if line["kind"] == "step"] == [1, 2, 3, 4, 5, 6]


def test_a_last_line_longer_than_the_window_is_found(job: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "_TAIL_BYTES", 16)
    with hold(job) as attempt:
        journal = Journal(job, attempt)
        for number in range(1, 4):
            journal.append(Warned(f"{number}" * 300))
        journal.close()
    with job.events_file.open("ab") as stream:
        stream.write(b"x" * 500)
    with hold(job) as attempt:
        journal = Journal(job, attempt)
        assert journal.append(Warned("next"))["seq"] == 4
        journal.close()
    assert len(read_events(job)) == 4


def test_damage_in_the_middle_is_an_error(job: JobFolder, writer: Journal) -> None:
    for number in range(1, 4):
        writer.append(step(number))
    rows = job.events_file.read_bytes().splitlines(keepends=True)
    job.events_file.write_bytes(rows[0] + b"rubbish\n" + rows[2])
    with pytest.raises(JobError, match=f"damaged at byte {len(rows[0])}"):
        read_events(job)


def test_superseded_steps_are_left_out() -> None:
    def lines(*parts: tuple[str, int]) -> list[dict[str, object]]:
        return [{"kind": kind, ("to_step" if kind == "rolled_back" else "step"): at} for kind, at in parts]

    log = lines(
        ("step", 1), ("step", 2), ("state_saved", 2), ("step", 3), ("validated", 3), ("resumed", 2),
        ("step", 3), ("step", 4), ("rolled_back", 3), ("resumed", 1),
        ("step", 2), ("step", 3),
    )  # fmt: skip
    kept = drop_superseded(log)
    assert [line["step"] for line in kept if line["kind"] == "step"] == [1, 2, 3]
    assert not [line for line in kept if line["kind"] in ("validated", "state_saved")]
    assert [line for line in kept if line["kind"] == "resumed"] == lines(("resumed", 2), ("resumed", 1))


def test_only_the_newest_attempt_writes(job: JobFolder, writer: Journal) -> None:
    writer.append(step(1))
    # As on a file system whose locks cannot be trusted: another host believes it holds the folder.
    newer = json.loads(job.attempt_file.read_text()) | {"token": "other", "number": 2, "host": "elsewhere"}
    replacement = job.path / "x.json"
    replacement.write_text(json.dumps(newer))
    replacement.replace(job.attempt_file)
    with pytest.raises(JobBusy, match="on elsewhere since"):
        writer.append(step(2))
    assert [line["step"] for line in read_events(job)] == [1]


def test_a_full_disk_takes_the_line_back(job: JobFolder, writer: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    writer.append(step(1))
    before = job.events_file.read_bytes()

    class Full:
        """Writes the first bytes, then has no room, as a disk does."""

        def __init__(self, file: object) -> None:
            self.file = file
            self.calls = 0

        def write(self, data: bytes) -> int:
            self.calls += 1
            if self.calls > 1:
                raise OSError(28, "No space left on device")
            return self.file.write(data[:7])  # type: ignore[attr-defined, no-any-return]

        def fileno(self) -> int:
            return self.file.fileno()  # type: ignore[attr-defined, no-any-return]

    real = writer._file
    monkeypatch.setattr(writer, "_file", Full(real))
    with pytest.raises(DiskFull):
        writer.append(step(2))
    assert job.events_file.read_bytes() == before
    monkeypatch.setattr(writer, "_file", real)
    writer.append(step(2))
    assert [line["seq"] for line in read_events(job)] == [1, 2]


def test_reading_goes_on_from_an_offset(job: JobFolder, writer: Journal) -> None:
    for entry in (step(1), Validated(1, 0.4), StateSaved(1, "states/1", 5), RolledBack(2, 1, "nan")):
        writer.append(entry)
    everything = list(read_lines(job.events_file))
    for index, (_, offset) in enumerate(everything):
        assert list(read_lines(job.events_file, offset)) == everything[index + 1 :]


def test_sync_reaches_the_kernel(writer: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    writer.append(step(1))
    assert not synced
    writer.sync()
    assert len(synced) == 1
