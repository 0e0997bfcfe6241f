"""`tunesmith dataset prepare`: sounds with credits or captions become a dataset folder."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from tunesmith.cli.options import AsJson
from tunesmith.cli.screen import Screen

group = typer.Typer()

Inputs = Annotated[
    list[Path], typer.Option("--in", help="a folder of sounds, searched at any depth, never written to (repeatable)")
]
Family = Annotated[
    str,
    typer.Option("--family", "--concept", "--creature-family", metavar="KEY", help="what the sounds teach: a name"),
]
Rate = Annotated[int | None, typer.Option(metavar="HZ", help="rate of converted sounds [44100]; implies converting")]
Limit = Annotated[int | None, typer.Option(metavar="N", help="stop when N sounds were kept")]

_DRIVE = re.compile(r"([A-Za-z]):[\\/](.*)")
_PLAIN_EVERY_SECONDS = 10.0


@group.command(short_help="make a dataset folder of sounds")
def prepare(
    inputs: Inputs,
    out: Annotated[Path, typer.Option(help="the folder to make: audio/, metadata.jsonl and report.json")],
    family: Family,
    copy_audio: Annotated[bool, typer.Option("--copy-audio", help="copy the sounds; else the lines name them")] = False,
    convert_to_wav: Annotated[
        bool, typer.Option("--convert-to-wav", help="make WAV of the wanted rate of all that are not; implies copying")
    ] = False,
    limit: Limit = None,
    rate: Rate = None,
    force: Annotated[bool, typer.Option("--force", help="replace an earlier preparation at --out")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a dataset of sounds with credits (FILE.credits.json) or captions (a .txt of the same name) beside them.

    What cannot be used is left out and named with the reason. The folder appears whole or not at all.
    """
    from tunesmith.data.sound_intake import SoundWishes
    from tunesmith.data.sound_preparing import prepare_sounds

    screen = Screen(as_json)
    inputs = [_native(path, screen) for path in inputs]
    out = _native(out, screen)
    wishes = SoundWishes(
        family=family,
        copy_audio=copy_audio,
        convert_to_wav=convert_to_wav or rate is not None,
        limit=limit,
        **({} if rate is None else {"rate": rate}),
    )
    with _progress(screen) as told:
        prepared = prepare_sounds(inputs, out, wishes, force=force, on_progress=told)
    if as_json:
        screen.document({"out": out, **prepared.report})
        return
    screen.say(*prepared.sentences)
    if prepared.skipped:
        screen.say(f"all of them by name: {out / 'report.json'}")
    screen.next_steps(
        f"tunesmith dataset check {quote(str(out))}",
        f"tunesmith train --data {quote(str(out))} --base BASE --name {quote(family)} --concept {quote(family)} "
        "engine.name=stable_audio preset=family",
    )


def _native(path: Path, screen: Screen) -> Path:
    """The path as this system writes it: one copied from a Windows guide has backslashes, which are letters here."""
    from tunesmith.errors import DataError

    text = str(path)
    if os.name == "nt" or "\\" not in text or os.path.lexists(path):
        return path
    drive = _DRIVE.fullmatch(text)
    if drive:
        there = f"/mnt/{drive[1].lower()}/{drive[2]}".replace("\\", "/")
        raise DataError(f"{text} is a path of Windows", expected="one of this system", do=f"under WSL it is {there}")
    slashed = Path(text.replace("\\", "/"))
    screen.warn(f"{text} has backslashes, and there is nothing of that name: taken as {slashed}")
    return slashed


@contextmanager
def _progress(screen: Screen) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on a terminal, elsewhere a line now and then."""
    if screen.as_json:
        yield None
    elif screen.console.is_terminal:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("sounds"), BarColumn(bar_width=30), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=screen.console, transient=True) as bar:
            task = bar.add_task("sounds", total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
    else:
        last = time.monotonic()

        def say(done: int, total: int) -> None:
            nonlocal last
            if time.monotonic() - last >= _PLAIN_EVERY_SECONDS:
                last = time.monotonic()
                screen.say(f"{done} of {total} sounds")

        yield say
