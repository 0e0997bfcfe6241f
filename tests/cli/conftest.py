"""A command line run in this process, its exit code and what it wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tunesmith.cli.main import main


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """stdout as the one JSON document it must be."""
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The error line; fails unless there is exactly one line of it, and no traceback anywhere."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err + self.out
        return lines[0]


@pytest.fixture
def tunesmith(capfd: pytest.CaptureFixture[str], home: Path) -> Callable[..., Ran]:
    """`tunesmith("jobs", "list")`; the home folder is the test's own."""

    def call(*words: object) -> Ran:
        capfd.readouterr()
        code = main([str(word) for word in words])
        written = capfd.readouterr()
        return Ran(code, written.out, written.err)

    return call
