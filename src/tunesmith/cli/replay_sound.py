"""`tunesmith generate --replay`: a sound made again from its credits, and whether it is the same byte for byte."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.cli.calling import ENGINE_SPELLINGS, Call, say_what, select_for
from tunesmith.cli.generate_sound import now_utc, origin_of, say_written, watched
from tunesmith.cli.opening import Place, open_on
from tunesmith.cli.outputs import SOUND_ENDINGS, check_out, free, is_one_file, refuse_existing, sound_ending
from tunesmith.errors import AdapterError, DataError

if TYPE_CHECKING:
    from tunesmith.cli.screen import Screen
    from tunesmith.cli.surroundings import Surroundings

DIFFERS = 1


@dataclass(frozen=True)
class Again:
    """What may be said beside the credits: where to write, where base and checkpoints are by now, another device."""

    out: Path | None = None
    force: bool = False
    base: str | None = None
    checkpoints: Sequence[str] | None = None
    device: str | None = None


def replay_sound(here: Surroundings, source: Path, again: Again, screen: Screen) -> int:
    """Make the sound of the credits `source` again. Returns 0 where its bytes are the same, else 1.

    Raises before anything is loaded where the base or a checkpoint is not the one that it was made with.
    """
    from tunesmith.engines.index import engine_named
    from tunesmith.generation.sidecars import (
        check_replayable,
        check_same,
        finish_from,
        part_of,
        read_sidecar,
        request_from,
        sidecar_of,
    )
    from tunesmith.generation.sounds import finish_sound, write_sound

    sidecar, name = read_sidecar(source), source.name
    check_replayable(sidecar, name)
    called = str(sidecar["engine"])
    engine = engine_named(ENGINE_SPELLINGS.get(called, called))
    request, finish = request_from(sidecar, engine.facts.request, name), finish_from(sidecar, name)
    target = _target(source, sidecar, again)
    base = again.base if again.base is not None else part_of(sidecar, "base", name).get("source")
    prompt, family = str(sidecar.get("prompt", "")), str(sidecar.get("family", ""))
    call = Call(engine, {}, _checkpoints(here, sidecar, again, name), base, prompt, family)
    selection = select_for(here, call)
    recorded = part_of(sidecar, "environment", name)
    say_what(screen, selection)
    origin = origin_of(here, selection, call, screen)
    check_same(sidecar, origin, name)
    session, environment = open_on(selection, _place(recorded, again, name))
    media = next(iter(watched(session, request, screen)))
    session.close()
    sound = finish_sound(media, finish)
    origin = replace(origin, environment=environment)
    told = {**sidecar_of(origin, media, created_utc=now_utc()), "replay_of": part_of(sidecar, "file", name).get("name")}
    write_sound(sound, target, finish=finish, sidecar=told)
    say_written(screen, target, sound, keeps_peaks=finish.subtype == "FLOAT")
    return _compared(sidecar, target, environment, screen)


def _checkpoints(here: Surroundings, sidecar: Mapping[str, Any], again: Again, name: str) -> list[str]:
    """`NAME:WEIGHT` of each checkpoint: by its id in the catalog, else where its file was, else where it is now."""
    from tunesmith.catalog.shelf import Shelf
    from tunesmith.generation.sidecars import checkpoint_records

    records = checkpoint_records(sidecar, name)
    now = again.checkpoints
    if now is not None and len(now) != len(records):
        raise AdapterError(f"{name} was made with {len(records)} checkpoints, and {len(now)} are named")
    ids = {card.id for card in Shelf(here.home).list()}
    found = []
    for index, entry in enumerate(records):
        path = Path(str(entry.get("path")))
        place = now[index] if now is not None else entry.get("name") if entry.get("name") in ids else str(path)
        if now is None and place == str(path) and not path.exists():
            raise AdapterError(f"{name} was made with {path}, which is not there", do="name the file with --checkpoint")
        weight = entry.get("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise DataError(f"{name}: the weight of {place} is {weight!r}", expected="a number")
        found.append(f"{place}:{float(weight)!r}")
    return found


def _place(recorded: Mapping[str, Any], again: Again, name: str) -> Place:
    threads = recorded.get("threads")
    is_count = isinstance(threads, int) and not isinstance(threads, bool) and 1 <= threads <= 1024
    return Place(
        device=again.device or str(recorded.get("device", "auto")),
        device_source=name,
        precision=str(recorded.get("precision", "auto")),
        threads=threads if is_count else None,
    )


def _target(source: Path, sidecar: Mapping[str, Any], again: Again) -> Path:
    """--out, or a free name beside the sound that the credits are of."""
    from tunesmith.generation.sounds import CREDITS

    sound = source.with_name(source.name.removesuffix(CREDITS))
    if again.out is None:
        return free(sound)
    ending = sound_ending(again.out, None)
    check_out(again.out, SOUND_ENDINGS, 1)
    if not is_one_file(again.out, SOUND_ENDINGS):
        return free(again.out / sound.name)
    refuse_existing([again.out], force=again.force)
    if ending != sound.suffix.lower():
        raise DataError(f"--out ends in {ending}, and the sound of {source.name} is {sound.suffix}", do="name it so")
    return again.out


def _compared(sidecar: Mapping[str, Any], target: Path, environment: Mapping[str, Any], screen: Screen) -> int:
    """Say whether the bytes are those of the credits; the exit code."""
    from tunesmith.generation.sidecars import versions
    from tunesmith.training.device import environment_notes

    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    is_same = digest == sidecar["file"].get("sha256")
    notes = list(environment_notes(sidecar["environment"], environment))
    notes += environment_notes(sidecar.get("versions", {}), versions())
    if screen.as_json:
        screen.document({"files": [target], "same": is_same, "notes": notes})
    elif is_same:
        screen.say(f"the same bytes as {sidecar['file'].get('name')}")
    if not is_same:
        screen.warn(f"{target} has other bytes than {sidecar['file'].get('name')} had")
        for note in notes:
            screen.warn(note)
    return 0 if is_same else DIFFERS
