"""The journal `events.jsonl`: one JSON object a line, one writer, readers that agree on what happened. No torch.

A line is `{"seq": n, "token": attempt, "time": unix seconds, "kind": ..., ...}`. Three rules make the log one story
although processes die at any moment:

1. Only the process that holds the folder's lock and whose token is the newest one appends. A writer opening the file
   first cuts off what a dead one left unfinished: bytes after the last whole line. `seq` never repeats or jumps.
2. What training says before a state is saved reaches the disk before the state does, so no state knows of a step that
   the journal does not.
3. An attempt that goes on from step S says so with `resumed`. Every earlier line about a step after S is superseded,
   and `read_events` leaves it out: those steps are done again and say the same once more. Within one attempt
   `rolled_back` does the same. What stays has each step exactly once, in order.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tunesmith.errors import JobBusy, JobError
from tunesmith.jobs.folder import JobFolder
from tunesmith.jobs.lock import Attempt, check_token
from tunesmith.jobs.records import Entry, finite, to_json
from tunesmith.weights.atomic import explained

# Kinds whose `step` places them on the run's own time line.
STEP_KINDS = frozenset({"step", "validated", "sampled", "state_saved", "registered", "exported"})
_TAIL_BYTES = 1 << 16


class Journal:
    """The one writer. `append` returns the line as written, so that its caller can fold it into the status."""

    def __init__(self, folder: JobFolder, attempt: Attempt, *, clock: Callable[[], float] = time.time) -> None:
        check_token(folder, attempt)
        self._folder = folder
        self._attempt = attempt
        self._clock = clock
        self._seal = _identity(folder.attempt_file)
        self._seq = _mend(folder.events_file)
        # Unbuffered: a line is either handed to the kernel or it is not, also when the process dies here.
        self._file = folder.events_file.open("ab", buffering=0)

    def append(self, entry: Entry) -> dict[str, Any]:
        """Add one line. Raises JobBusy where a newer attempt has taken over, DiskFull (the line taken back)."""
        self._check()
        line = {
            "seq": self._seq + 1,
            "token": self._attempt.token,
            "time": round(self._clock(), 3),
            **finite(to_json(entry)),
        }
        # A file name may hold bytes that are no text; JSON can only spell them as escapes.
        text = json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n"
        data = text.encode(errors="backslashreplace")
        start = self.offset_bytes
        with explained(self._folder.events_file):
            try:
                while data:
                    data = data[self._file.write(data) :]
            except OSError:
                os.ftruncate(self._file.fileno(), start)
                raise
        self._seq += 1
        return line

    def sync(self) -> None:
        """Make everything appended survive a power cut."""
        os.fsync(self._file.fileno())

    @property
    def offset_bytes(self) -> int:
        """Length of the journal: what a status that has seen every line covers."""
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Sync and close; further appends fail."""
        if not self._file.closed:
            self.sync()
            self._file.close()

    def _check(self) -> None:
        # The name, not the content: an attempt file is replaced, never rewritten, so one stat tells.
        if _identity(self._folder.attempt_file) == self._seal:
            return
        check_token(self._folder, self._attempt)
        raise JobBusy(f"{self._folder.attempt_file} was replaced while this process worked")


def read_lines(file: Path, start: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
    """(line, offset after it) of every whole line from byte `start`; a torn tail is left out.

    Raises JobError naming the line where one in the middle is damaged: nothing of ours writes such a file.
    """
    try:
        data = file.read_bytes()[start:] if start == 0 else _read_from(file, start)
    except FileNotFoundError:
        return
    offset = start
    rows = data.split(b"\n")
    for number, row in enumerate(rows[:-1], 1):
        line = _parse(row)
        if line is None:
            # A power cut can leave unwritten blocks at the end; in the middle it is damage.
            if all(_parse(later) is None for later in rows[number:]):
                return
            raise JobError(f"{file} is damaged at byte {offset}", do="restore the file from a copy, or start a new job")
        offset += len(row) + 1
        yield line, offset


def read_events(folder: JobFolder) -> list[dict[str, Any]]:
    """The events as one story: no torn tail, and nothing that a later attempt did again."""
    return drop_superseded([line for line, _ in read_lines(folder.events_file)])


def drop_superseded(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`lines` without those about a step after the one that a later line went back to."""
    kept: list[dict[str, Any]] = []
    lowest: int | None = None
    for line in reversed(lines):
        if line["kind"] in STEP_KINDS and lowest is not None and line["step"] > lowest:
            continue
        kept.append(line)
        back_to = went_back_to(line)
        if back_to is not None:
            lowest = back_to if lowest is None else min(lowest, back_to)
    kept.reverse()
    return kept


def went_back_to(line: dict[str, Any]) -> int | None:
    """The last step that still counts after a line that goes back, -1 for none at all; None for other lines."""
    if line["kind"] == "resumed":
        return -1 if line.get("fresh") else int(line["step"])
    if line["kind"] == "rolled_back":
        return int(line["to_step"])
    return None


def _read_from(file: Path, start: int) -> bytes:
    with file.open("rb") as stream:
        stream.seek(start)
        return stream.read()


def _mend(file: Path) -> int:
    """Cut what is after the last whole line; the last line's seq (0 for an empty file)."""
    try:
        size = file.stat().st_size
    except FileNotFoundError:
        return 0
    window = _TAIL_BYTES
    while True:
        start = max(0, size - window)
        tail = _read_from(file, start)
        end = len(tail)
        while (cut := tail.rfind(b"\n", 0, end)) >= 0:
            begin = tail.rfind(b"\n", 0, cut) + 1
            if begin == 0 and start > 0:
                break  # this line begins before the window
            line = _parse(tail[begin:cut])
            if line is not None:
                _truncate(file, start + cut + 1, size)
                return int(line["seq"])
            end = cut
        if start == 0:
            _truncate(file, 0, size)
            return 0
        window *= 2


def _truncate(file: Path, length: int, size: int) -> None:
    if length != size:
        with file.open("r+b") as stream:
            stream.truncate(length)
            os.fsync(stream.fileno())


def _parse(row: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(row)
    except ValueError:
        return None
    whole = isinstance(line, dict) and isinstance(line.get("seq"), int) and isinstance(line.get("kind"), str)
    return line if whole else None


def _identity(file: Path) -> tuple[int, int]:
    try:
        status = file.stat()
    except FileNotFoundError:
        return (0, 0)
    return (status.st_ino, status.st_mtime_ns)
