"""What commands write: tables and lines for a person, one document for a script."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.recipe.checks import is_control

if TYPE_CHECKING:
    from rich.console import Console

WIDTH_WITHOUT_TERMINAL = 160


@dataclasses.dataclass(frozen=True)
class Screen:
    """Where a command's words go. With `as_json`, stdout carries JSON and nothing else."""

    as_json: bool = False

    @cached_property
    def console(self) -> Console:
        """Standard output, or standard error while stdout belongs to JSON."""
        from rich.console import Console

        stream = sys.stderr if self.as_json else sys.stdout
        width = None if stream.isatty() else WIDTH_WITHOUT_TERMINAL
        console = Console(file=stream, markup=False, highlight=False, width=width, soft_wrap=True)
        console.on_broken_pipe = _left  # type: ignore[method-assign] # rich's own ends the process
        return console

    def say(self, *lines: str) -> None:
        """Lines for a person; silent when the answer is JSON."""
        if not self.as_json:
            for line in lines:
                self.console.print(shown(line))

    def warn(self, line: str) -> None:
        """A line on stderr, in either mode."""
        sys.stderr.write(f"warning: {shown(' '.join(line.split()))}\n")

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """A table; the last columns shrink first on a narrow terminal."""
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(shown(_cell(value)) for value in row))
        self.console.print(table)

    def fields(self, pairs: Mapping[str, object]) -> None:
        """Names and values, one a line."""
        width = max((len(name) for name in pairs), default=0)
        self.say(*(f"{name:<{width}}  {_cell(value)}" for name, value in pairs.items()))

    def document(self, value: object) -> None:
        """The JSON answer of the command, whole."""
        _write(json.dumps(plain(value), indent=2, ensure_ascii=False))

    def json_line(self, value: object) -> None:
        """One JSON line of a running answer."""
        _write(json.dumps(plain(value), ensure_ascii=False))

    def next_steps(self, *commands: str) -> None:
        """What to do now: every long command ends with this."""
        self.say("", "Next:", *(f"  {command}" for command in commands))


def _write(text: str) -> None:
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        _left()


def _left() -> None:
    """Whoever read the output has seen enough. Without the system's error number, at which typer ends the process."""
    raise BrokenPipeError("nobody reads this")


def hush() -> None:
    """After the reader of stdout has left: nothing more is written there, nor flushed when the interpreter ends."""
    if getattr(sys.stdout, "name", None) != os.devnull:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - open to the end


def shown(text: str) -> str:
    """`text` with control characters spelt out (`\\x1b`), so that no name or note steers the terminal."""
    if text.isprintable():
        return text
    return "".join(_spelt(letter) if letter not in "\n\t" and is_control(letter) else letter for letter in text)


def _spelt(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


def plain(value: Any) -> Any:
    """`value` in JSON's own types: dataclasses become mappings, paths strings, tuples lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and value != value:  # JSON has no NaN
        return None
    return str(value) if isinstance(value, Path) else value


def human_bytes(count: float) -> str:
    """1536 -> `1.5 KiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def human_seconds(seconds: float | None) -> str:
    """75 -> `1:15`; unknown -> `?`."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_cell(entry) for entry in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_cell(entry)}" for key, entry in value.items())
    return str(value)
