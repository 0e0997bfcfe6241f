"""The credits of a generated sound: where it comes from, well enough to make the same bytes again."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tunesmith import __version__
from tunesmith.catalog.card import FILE as CARD
from tunesmith.engines.protocol import Base, Media
from tunesmith.errors import AdapterError, DataError, WeightsError
from tunesmith.generation.sound.record import settings_from
from tunesmith.generation.sounds import CREDITS, FORMAT, Finish, sidecar_path
from tunesmith.recipe.document import from_plain
from tunesmith.recipe.knobs import knobs_of
from tunesmith.recipe.values import value_of

_LIBRARIES = ("torch", "diffusers", "numpy", "scipy", "soundfile", "soxr")
_PART_SUFFIXES = (".safetensors", ".ckpt", ".bin", ".pt", ".json", ".model", ".txt")
# Knobs of a request -> what other tools look for behind the engine's name, as `<engine>_steps`.
_KNOWN_AS = {"steps": "steps", "guidance": "guidance_scale", "sampler": "sampler", "negative": "negative_prompt"}
_REPLAY_NEEDS = ("engine", "request", "finish", "base", "checkpoints", "environment", "file")

Sha256 = Callable[[Path], str]


@dataclass(frozen=True)
class Origin:
    """What all sounds of one run have in common. `prompt` is as it was asked for, without the trigger.

    `base` and `checkpoints` are records as `base_record` and `checkpoint_record` make them; `licences` maps base and
    items to the terms they come under; `environment` is everything else that bits depend on.
    """

    engine: str
    base: Mapping[str, Any]
    checkpoints: tuple[Mapping[str, Any], ...] = ()
    licences: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    prompt: str = ""
    family: str = ""
    trigger: str = ""


def base_record(base: Base, sha256: Sha256) -> dict[str, Any]:
    """Source, header hash and the SHA-256 of every file that a base reads, by part."""
    files: dict[str, str] = {}
    seen: set[Path] = set()
    for role, part in base.parts.items():
        if part.path is None or part.path in seen:
            continue
        seen.add(part.path)
        for file in _files(part.path):
            files[f"{role}/{file.name}"] = sha256(file)
    # Whole paths, so that credits can be replayed from any folder; hub ids and `starter` stay what they are.
    source = str(Path(base.source).absolute()) if Path(base.source).exists() else base.source
    return {"source": source, "header_hash": base.header_hash, "files": files}


def checkpoint_record(
    name: str, path: Path, weight: float, sha256: Sha256, licences: Iterable[str] = ()
) -> dict[str, Any]:
    """Name, weight, place, terms and the SHA-256 of every file of a checkpoint: a file, or a folder with its parts."""
    # A card says how good a checkpoint measured, too, and may change; the weights may not.
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if _is_weights(file))
    hashes = {file.relative_to(path).as_posix() if file != path else file.name: sha256(file) for file in files}
    return {
        "name": name,
        "weight": weight,
        "path": str(path.absolute()),
        "licences": list(licences),
        "files": hashes,
    }


def sidecar_of(origin: Origin, media: Media, *, created_utc: str) -> dict[str, Any]:
    """The credits of one sound, but for what `write_sound` adds about the file. JSON-ready; nothing unknown in it."""
    request = {name: value for name, value in media.parameters.items() if name not in ("checkpoints", "rate")}
    engine, adapter = origin.engine, next(iter(origin.checkpoints), None)
    known = {f"{engine}_{theirs}": request.get(ours) for ours, theirs in _KNOWN_AS.items()}
    if adapter is not None:
        known |= {f"{engine}_lora_path": adapter["path"], f"{engine}_lora_scale": adapter["weight"]}
        known |= {f"{engine}_lora_trigger": origin.trigger or None}
    told = {
        "format": FORMAT,
        "engine": engine,
        "prompt": origin.prompt,
        "expanded_prompt": request.get("prompt"),
        "family": origin.family or None,
        "seed": request.get("seed"),
        "requested_seconds": request.get("seconds"),
        "window_seconds": request.get("window_seconds"),
        "created_utc": created_utc,
        "model": origin.base["source"],
        "device": origin.environment.get("device"),
        **known,
    }
    return {
        **{name: value for name, value in told.items() if value is not None},
        "request": request,
        "base": dict(origin.base),
        "checkpoints": [dict(entry) for entry in origin.checkpoints],
        "licence": dict(origin.licences),
        "versions": versions(),
        "environment": dict(origin.environment),
    }


def read_sidecar(path: Path) -> dict[str, Any]:
    """The credits at `path`, or beside the sound there. Raises DataError where there are none, or no JSON object."""
    file = path if path.name.endswith(CREDITS) else sidecar_path(path)
    try:
        document = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"{file} cannot be read ({reason})", expected=f"the credits of a sound (*{CREDITS})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is damaged: {error}", expected="the credits of a sound in JSON") from error
    if not isinstance(document, dict):
        raise DataError(f"{file} holds no credits", expected="a JSON object")
    return document


def check_replayable(sidecar: Mapping[str, Any], source: str) -> None:
    """Raise DataError where credits do not hold what the same sound needs: another tool's, or another format."""
    missing = [name for name in _REPLAY_NEEDS if name not in sidecar]
    if missing:
        raise DataError(
            f"{source} has no {' and no '.join(missing[:3])}",
            expected="the credits of a sound that tunesmith made",
            do="with the credits of other tools, give prompt, seed and checkpoint as flags",
        )
    if sidecar.get("format") != FORMAT:
        raise DataError(f"{source} has format {sidecar.get('format')!r}", expected=str(FORMAT), do="update tunesmith")


def request_from(sidecar: Mapping[str, Any], section: type, source: str) -> Any:
    """The request that a sound was made with, an instance of `section`; every value is checked against its knob."""
    known = {knob.name: knob for knob in knobs_of(section, "request")}
    given = part_of(sidecar, "request", source)
    strange = next((name for name in given if name not in known), None)
    if strange is not None:
        raise DataError(f"{source}: the request has {strange!r}", expected=f"one of {', '.join(known)}")
    return section(**{name: value_of(known[name], from_plain(value, source)) for name, value in given.items()})


def finish_from(sidecar: Mapping[str, Any], source: str) -> Finish:
    """The finish that a sound had."""
    given = part_of(sidecar, "finish", source)
    kinds: dict[str, tuple[type, ...]] = {
        "mono": (bool,),
        "rate": (int,),
        "loop_seconds": (int, float),
        "subtype": (str,),
        "bitrate_kbps": (int,),
        "quality": (int, float),
    }
    for name, value in given.items():
        if name not in kinds:
            raise DataError(f"{source}: finish has {name!r}", expected=f"one of {', '.join(kinds)}")
        wrong_bool = isinstance(value, bool) and name != "mono"
        if value is not None and (wrong_bool or not isinstance(value, kinds[name])):
            raise DataError(f"{source}: finish.{name} is {value!r}", expected="what tunesmith wrote")
    post = settings_from(part_of(sidecar, "post", source)) if "post" in sidecar else None
    return Finish(post=post, **given)


def check_same(sidecar: Mapping[str, Any], origin: Origin, source: str) -> None:
    """Raise for what is not the one the sound was made with: WeightsError for the base, AdapterError for a LoRA."""
    then = part_of(sidecar, "base", source)
    if then.get("header_hash") != origin.base["header_hash"]:
        raise WeightsError(
            f"the base {origin.base['source']} is of another shape than the one {source} was made with "
            f"(header {_short(origin.base['header_hash'])}, and it was {_short(then.get('header_hash'))})",
            expected=str(then.get("source")),
            do="name the right one with --base",
        )
    if found := _difference(then.get("files"), origin.base["files"]):
        raise WeightsError(
            f"the base {origin.base['source']} is not the one {source} was made with: {found}",
            expected=str(then.get("source")),
            do="name the right one with --base",
        )
    recorded = checkpoint_records(sidecar, source)
    if len(recorded) != len(origin.checkpoints):
        raise DataError(f"{source} was made with {len(recorded)} checkpoints", expected=str(len(origin.checkpoints)))
    for before, now in zip(recorded, origin.checkpoints, strict=True):
        if found := _difference(before.get("files"), now["files"]):
            raise AdapterError(
                f"{now['path']} is not the checkpoint {source} was made with: {found}",
                do="put the old file back, or name it with --checkpoint",
            )


def checkpoint_records(sidecar: Mapping[str, Any], source: str) -> list[Mapping[str, Any]]:
    """What credits tell about each checkpoint, in the order they were attached."""
    records = sidecar.get("checkpoints")
    if not isinstance(records, list) or not all(isinstance(entry, Mapping) for entry in records):
        raise DataError(f"{source}: checkpoints is {records!r}", expected="a list of maps, as tunesmith wrote it")
    return records


def part_of(sidecar: Mapping[str, Any], name: str, source: str) -> Mapping[str, Any]:
    """One map of the credits. Raises DataError where it is none."""
    found = sidecar.get(name)
    if not isinstance(found, Mapping):
        raise DataError(f"{source}: {name} is {found!r}", expected="a map, as tunesmith wrote it")
    return found


def versions() -> dict[str, str]:
    """tunesmith, Python and the libraries that bits depend on."""
    found = {"tunesmith": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _difference(then: Any, now: Mapping[str, str]) -> str:
    """The first file whose hash differs, or whose name only one side has; "" where all agree."""
    if not isinstance(then, Mapping):
        return "its hashes are damaged"
    # A single file may have another name today.
    if len(then) == len(now) == 1:
        (name,), (was,), (found,) = now, then.values(), now.values()
        return "" if was == found else f"{name} has the SHA-256 {_short(found)}, and it was {_short(was)}"
    for name in dict.fromkeys((*then, *now)):
        if then.get(name) != now.get(name):
            return f"{name} has the SHA-256 {_short(now.get(name))}, and it was {_short(then.get(name))}"
    return ""


def _short(digest: Any) -> str:
    return f"{str(digest)[:12]}…" if digest else "none"


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.iterdir() if file.is_file() and file.suffix.lower() in _PART_SUFFIXES)


def _is_weights(file: Path) -> bool:
    return file.is_file() and file.name != CARD and file.suffix.lower() in _PART_SUFFIXES
