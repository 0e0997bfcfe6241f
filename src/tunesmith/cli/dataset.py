"""`tunesmith dataset`: what a folder holds, what is wrong with it, and how it would be split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from tunesmith.cli import prepare
from tunesmith.cli.options import AsJson
from tunesmith.cli.screen import Screen

if TYPE_CHECKING:
    from tunesmith.data.findings import Finding
    from tunesmith.data.source import Reading

group = typer.Typer(help="folders of items: what is in them", no_args_is_help=True)
group.add_typer(prepare.group)

Folders = Annotated[list[Path], typer.Argument(help="folders of items, read in place and never written to")]
EngineName = Annotated[
    str | None, typer.Option("--engine", help="whose rules to check by; the usual engine's if left out")
]


@group.command()
def check(folders: Folders, engine: EngineName = None, as_json: AsJson = False) -> None:
    """Find what would hurt a training: pictures or sounds, captions, counts, duplicates."""
    from tunesmith.data.findings import examine
    from tunesmith.data.sound_findings import examine_sounds
    from tunesmith.engines.index import engine_named

    screen = Screen(as_json)
    engine = engine or _usual_engine(folders)
    facts = engine_named(engine).facts
    reading = _read(folders, media=facts.media)
    findings = examine(reading.items, facts, notes=reading.notes)
    if "audio" in facts.media:
        rank = {"error": 0, "warning": 1, "note": 2}
        findings = tuple(sorted((*examine_sounds(reading.items), *findings), key=lambda found: rank[found.severity]))
    if as_json:
        told = [finding for finding in findings if finding.code != "reading"]  # the notes stand beside them
        screen.document({"items": len(reading.items), "notes": reading.notes, "findings": told})
        return
    screen.say(f"{len(reading.items)} items")
    for finding in _said_once(findings):
        screen.say(f"{finding.severity}: {finding.message}", *([f"  {finding.do}"] if finding.do else []))
    if not findings:
        screen.say("nothing to complain about")
    wishes = "engine.name=stable_audio preset=family" if engine == "stable_audio" else "--steps 1200"
    screen.next_steps(f"tunesmith train --data {quote(str(folders[0]))} --base BASE --name NAME {wishes}")


def _said_once(findings: Sequence[Finding]) -> Iterator[Finding]:
    """The findings without notes that say no more than a warning or the first line did."""
    of_captions = any(finding.code == "caption_empty" for finding in findings)
    seen: set[str] = set()
    for finding in findings:
        repeats_warning = finding.code == "reading" and of_captions and "without a caption" in finding.message
        if not repeats_warning and finding.message not in seen:
            seen.add(finding.message)
            yield finding


@group.command()
def show(folders: Folders, as_json: AsJson = False) -> None:
    """List the items as they were understood: file, size, repeats, concept, caption."""
    screen = Screen(as_json)
    reading = _read(folders, media=_media(folders))
    if as_json:
        screen.document({"items": reading.items, "notes": reading.notes, "dataset_hash": _hash(reading)})
        return
    rows = []
    for item in reading.items:
        media = next(iter(item.media.values()))
        facts = media.facts
        size = f"{facts['seconds']:.2f} s" if "seconds" in facts else f"{facts.get('width')}x{facts.get('height')}"
        rows.append((media.path.name, size, item.repeats, item.concept or "-", item.text.get("caption", "")))
    screen.table(("file", "size", "repeats", "concept", "caption"), rows)
    counts = Counter(item.concept or "no concept" for item in reading.items)
    screen.say("", *(f"{name}: {count} items" for name, count in counts.items()))
    screen.say(*(f"note: {note}" for note in reading.notes), f"dataset hash {_hash(reading)[:16]}")
    screen.next_steps(f"tunesmith dataset check {quote(str(folders[0]))}")


@group.command("split")
def show_split(
    folders: Folders,
    fraction: Annotated[float, typer.Option(help="share of the groups held out")] = 0.1,
    seed: Annotated[int, typer.Option(help="the split is a function of this and the group")] = 0,
    as_json: AsJson = False,
) -> None:
    """Show which items would be held out to measure by. Writes nothing."""
    from tunesmith.data.order import split

    screen = Screen(as_json)
    reading = _read(folders, media=_media(folders))
    training, held_out = split(reading.items, fraction, seed)
    names = {
        "training": [next(iter(item.media.values())).path for item in training],
        "held_out": [next(iter(item.media.values())).path for item in held_out],
    }
    if as_json:
        screen.document(names)
        return
    screen.say(f"{len(training)} items to train on, {len(held_out)} held out:")
    screen.say(*(f"  {path}" for path in names["held_out"]))


def _media(folders: Sequence[Path]) -> tuple[str, ...]:
    """What the folders' items are: sounds where there are sounds and no pictures."""
    from tunesmith.data.formats import EXTENSIONS
    from tunesmith.data.sound_sources import hold_sounds_alone

    return ("audio",) if hold_sounds_alone(folders, EXTENSIONS) else ("image",)


def _usual_engine(folders: Sequence[Path]) -> str:
    """The first engine, of those whose items are sounds where the folders hold sounds alone."""
    from tunesmith.engines.index import engine_named, engine_names

    names = engine_names()
    if _media(folders) == ("audio",):
        return next((name for name in names if engine_named(name).facts.media[:1] == ("audio",)), names[0])
    return names[0]


def _read(folders: list[Path], *, media: tuple[str, ...]) -> Reading:
    from tunesmith.data.source import read_items
    from tunesmith.recipe.schema import DataSection

    return read_items(folders, DataSection(), media=media)


def _hash(reading: Reading) -> str:
    from tunesmith.data.source import dataset_hash

    return dataset_hash(reading.items)
