"""What a person sets once for this machine: `settings.yaml` in the home folder, and where that folder is."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tunesmith.errors import RecipeError
from tunesmith.recipe.document import Node, plain_scalar
from tunesmith.recipe.knobs import Knob, knob, knobs_of
from tunesmith.recipe.reader import read_file, read_text
from tunesmith.recipe.schema import Recipe, ResourceSection
from tunesmith.recipe.values import value_of

FILE = "settings.yaml"
EXECUTORS = ("local", "inline", "process")
_DEVICE = re.compile(r"auto|(cpu|cuda|mps)(:[0-9]{1,4})?")


@dataclass(frozen=True)
class Settings:
    """Defaults of this machine; a recipe's own words win."""

    bases: tuple[str, ...] = knob(help="folders where base weights are looked for by name", factory=tuple)
    device: str = knob("auto", help="device of runs whose recipe says auto")
    threads: int | None = knob(None, low=1, high=1024, help="CPU threads of runs whose recipe sets none")
    executor: str = knob("local", choices=EXECUTORS, help="where jobs run unless --on says otherwise")
    allow_download: bool = knob(False, help="let hub ids be downloaded without asking each time")
    cache_limit_bytes: int = knob(20 << 30, low=0, unit="bytes", help="size limit of the encoded cache")


def home_folder(environ: Mapping[str, str]) -> Path:
    """The folder of everything tunesmith keeps: `TUNESMITH_HOME`, else the platform's user data folder."""
    named = environ.get("TUNESMITH_HOME", "")
    if named:
        return Path(named).expanduser().absolute()
    from platformdirs import user_data_path

    return user_data_path("tunesmith", appauthor=False)


def read_settings(home: Path) -> Settings:
    """The settings of `home`; defaults where there is no file. Raises RecipeError naming file, line and key."""
    return _settings(_document(home))


def with_settings(recipe: Recipe, settings: Settings) -> Recipe:
    """The recipe with what it left open filled in: device, threads, cache limit, downloads, and bases by file name."""
    base, resources = recipe.base, recipe.resources
    usual = ResourceSection()
    return replace(
        recipe,
        base=replace(
            base,
            path=find_base(base.path, settings),
            allow_download=base.allow_download or settings.allow_download,
        ),
        resources=replace(
            resources,
            device=settings.device if resources.device == usual.device else resources.device,
            threads=settings.threads if resources.threads is None else resources.threads,
            cache_limit_bytes=settings.cache_limit_bytes
            if resources.cache_limit_bytes == usual.cache_limit_bytes
            else resources.cache_limit_bytes,
        ),
    )


def find_base(path: str | None, settings: Settings) -> str | None:
    """`path`, or the file of that name in one of the folders of `settings.bases` where there is none here."""
    if path is None or Path(path).expanduser().exists():
        return path
    places = (Path(folder).expanduser() / path for folder in settings.bases)
    return next((str(place) for place in places if place.exists()), path)


def check_device(name: str, place: str) -> None:
    """Raise RecipeError where `name` cannot be a device; whether this machine has it is seen when it is opened."""
    if not _DEVICE.fullmatch(name):
        raise RecipeError(f"{place} is {name!r}", expected="auto, cpu, cuda, cuda:1 or mps")


def write_setting(home: Path, key: str, value: Any) -> Settings:
    """Set one key, keeping the others; `value` None goes back to the default. Text is read as YAML would.

    The file is replaced whole, under a lock, so that two at once lose nothing; a wrong value of `key` itself may be
    replaced. Returns the new settings.
    """
    from filelock import FileLock

    known = _known()
    if key not in known:
        raise _unknown(key, repr(key))
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / f".{FILE}.lock"):
        before = _document(home)
        if isinstance(before.value, dict):
            before = Node({name: node for name, node in before.value.items() if name != key}, before.place)
        current = {name: _ready(entry) for name, entry in asdict(_settings(before)).items()}
        current = {name: entry for name, entry in current.items() if entry != _ready(known[name].default)}
        current.pop(key, None)
        if value is not None:
            checked = _ready(_value(known[key], _given(value, key)))
            current = {name: checked if name == key else current.get(name) for name in known}
        text = _yaml({name: entry for name, entry in current.items() if entry is not None})
        settings = _settings(read_text(text, FILE))
        _replace(home / FILE, text)
    return settings


def _given(value: Any, key: str) -> Node:
    if isinstance(value, str):
        is_structure = value.strip()[:1] in ("[", "{", '"', "'")
        return read_text(value, key) if is_structure else Node(plain_scalar(value), key, value, loose=True)
    if isinstance(value, tuple | list):
        return Node([Node(entry, key) for entry in value], key)
    return Node(value, key)


def _document(home: Path) -> Node:
    file = home / FILE
    try:
        return read_file(file) if file.exists() else Node({}, str(file))
    except RecipeError as error:
        do = f"repair {file}, or move it away" if isinstance(error.__cause__, OSError) else error.do
        raise RecipeError(error.found, expected=error.expected, do=do) from error


def _value(known: Knob, node: Node) -> Any:
    value = value_of(known, node)
    if known.name == "device":
        check_device(value, f"{node.place}: {known.path}")
    return value


def _known() -> dict[str, Knob]:
    return {entry.name: entry for entry in knobs_of(Settings, "settings")}


def _settings(document: Node) -> Settings:
    known = _known()
    if not isinstance(document.value, dict):
        raise RecipeError(f"{document.place}: not settings", expected="a map such as `device: cpu`")
    for name, node in document.value.items():
        if name not in known:
            raise _unknown(name, node.place)
    return Settings(**{name: _value(known[name], node) for name, node in document.value.items()})


def _unknown(name: str, place: str) -> RecipeError:
    import difflib

    near = difflib.get_close_matches(name, _known(), n=1)
    hint = f"did you mean {near[0]!r}?" if near else ""
    return RecipeError(f"{place}: no setting is called {name!r}", expected=f"one of {', '.join(_known())}", do=hint)


def _ready(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _yaml(document: Mapping[str, Any]) -> str:
    from tunesmith.recipe.writer import dump

    return dump(document) if document else ""


def _replace(file: Path, text: str) -> None:
    """Written aside, fsynced, renamed. (`weights.atomic` stands above this package.)"""
    handle, aside = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(aside).replace(file)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise
