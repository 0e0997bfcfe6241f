"""What a running job says: on a terminal, in a log, to a script."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tunesmith.cli.report import JsonReport, LiveReport, PlainReport, SilentReport, follow, pace, report_for, sentence
from tunesmith.cli.screen import Screen
from tunesmith.jobs.folder import JobFolder
from tunesmith.jobs.status import Status, fold

STEP = {"kind": "step", "position_items": 2, "rates": {"denoiser": 1e-4}, "gradient_norm": 1.0, "seconds": 1.5}


def story() -> list[dict[str, Any]]:
    """A short run, as a journal tells it."""
    lines: list[dict[str, Any]] = [
        {"kind": "started", "attempt": 1, "pid": os.getpid(), "host": "here", "version": "0"},
        {"kind": "planned", "steps": 4, "start_step": 0},
        {"kind": "phase", "name": "encode", "detail": "image: 6 to encode"},
        {"kind": "progress", "done": 3, "total": 6, "unit": "inputs"},
        {"kind": "phase", "name": "train", "detail": ""},
        {"kind": "resumed", "step": 0, "notes": []},
        {**STEP, "step": 1, "loss": 0.5},
        {"kind": "validated", "step": 1, "loss": 0.4, "per_concept": {"peter": 0.3, "maria": 0.5}, "weights": "raw"},
        {**STEP, "step": 2, "loss": 0.25},
        {"kind": "rolled_back", "from_step": 2, "to_step": 1, "reason": "loss is NaN in 3.png"},
        {"kind": "warning", "message": "few items"},
        {"kind": "sampled", "step": 2, "path": "samples/2.png"},
        {"kind": "registered", "step": 2, "checkpoint": "peter-2-abc", "name": "peter", "final": True, "measures": {}},
        {"kind": "exported", "step": 2, "path": "peter.safetensors", "layout": "kohya"},
        {"kind": "state", "state": "completed", "reason": "", "exit_code": 0},
    ]
    return [{"seq": index, "token": "t", "time": float(index), **line} for index, line in enumerate(lines, 1)]


def statuses(lines: list[dict[str, Any]]) -> list[Status]:
    status, found = Status(), []
    for line in lines:
        status = fold([line], status)
        found.append(status)
    return found


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("validated", "step 1: held-out loss 0.4000 (peter 0.3000, maria 0.5000)"),
        ("rolled_back", "went back from step 2 to 1: loss is NaN in 3.png"),
        ("warning", "warning: few items"),
        ("sampled", "step 2: wrote samples/2.png"),
        ("registered", "step 2: checkpoint peter (peter-2-abc)"),
        ("exported", "exported peter.safetensors (kohya), read back"),
        ("state", "completed"),
        ("resumed", None),
        ("started", None),
        ("planned", None),
        ("step", None),
    ],
)
def test_sentences(kind: str, words: str | None) -> None:
    assert sentence(next(line for line in story() if line["kind"] == kind)) == words


def test_a_resume_is_said_with_its_notes() -> None:
    line = {"kind": "resumed", "step": 7, "notes": ["not bit-exact: threads were 2, are 1"]}
    assert sentence(line) == "goes on from step 7: not bit-exact: threads were 2, are 1"


def test_pace_counts_what_the_phase_counts() -> None:
    found = {line["kind"]: status for line, status in zip(story()[:9], statuses(story()[:9]), strict=True)}
    assert pace(found["progress"]).startswith("inputs 3/6  ")
    words = pace(found["step"])
    assert re.match(r"step 2/4  loss 0\.4750  1\.50 s/step  left 0:0\d  \d", words)
    assert words.endswith(("MiB", "GiB"))
    assert pace(Status()) == "start 0/?"


def test_plain_lines_come_every_ten_seconds(capsys) -> None:
    now = [0.0]
    report = PlainReport(Screen(), clock=lambda: now[0])
    for line, status in zip(story(), statuses(story()), strict=True):
        report.take(line, status)
        now[0] += 4
    report.close()
    out = capsys.readouterr().out
    assert out.count("s/step") == 2 - 1  # the second step comes eight seconds after the first
    assert "held-out loss 0.4000" in out
    assert "\x1b" not in out


def test_the_live_bar_shows_phase_loss_and_time_left() -> None:
    screen = Screen()
    written = io.StringIO()
    screen.__dict__["console"] = Console(file=written, force_terminal=True, width=120, markup=False)
    report = LiveReport(screen)
    for line, status in zip(story(), statuses(story()), strict=True):
        report.take(line, status)
        report._progress.refresh()
    report.close()
    out = written.getvalue()
    assert "train" in out
    assert "loss 0.5000" in out
    assert "left 0:0" in out
    assert "checkpoint peter" in out


def test_json_lines_are_the_journal(capsys) -> None:
    report = JsonReport(Screen(as_json=True))
    for line, status in zip(story(), statuses(story()), strict=True):
        report.take(line, status)
    report.close()
    assert [json.loads(row) for row in capsys.readouterr().out.splitlines()] == story()


def test_the_report_fits_where_the_words_go(capsys) -> None:
    assert isinstance(report_for(Screen(as_json=True), json_lines=True), JsonReport)
    assert isinstance(report_for(Screen(as_json=True)), SilentReport)
    assert isinstance(report_for(Screen()), PlainReport)
    screen = Screen()
    screen.__dict__["console"] = Console(file=io.StringIO(), force_terminal=True)
    live = report_for(screen)
    assert isinstance(live, LiveReport)
    live.close()


class Kept:
    """A report that keeps what it was handed."""

    def __init__(self) -> None:
        self.kinds: list[str] = []

    def take(self, line, status: Status) -> None:
        self.kinds.append(line["kind"])

    def close(self) -> None:
        pass


def test_following_shows_what_is_new_and_stops_at_the_end(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    rows = [json.dumps(line) + "\n" for line in story()]
    folder.events_file.write_text("".join(rows[:5]))
    left = [rows[5:9], rows[9:]]

    def wait(_: float) -> None:
        with folder.events_file.open("a") as file:
            file.writelines(left.pop(0))

    report = Kept()
    follow(folder, report, lambda: not left, wait=wait)
    assert report.kinds == [line["kind"] for line in story()[5:]]
