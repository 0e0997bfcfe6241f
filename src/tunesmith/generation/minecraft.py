"""Sounds into a Minecraft resource pack: OGG files, sounds.json, subtitles, pack.mcmeta, and the credits of the pack.

What the game expects (Java Edition's resource packs): `assets/<namespace>/sounds/<path>.ogg`, Vorbis, mono where a
sound has a place in the world; `assets/<namespace>/sounds.json` with an object an event, whose `sounds` name files as
`<namespace>:<path>` (a bare path means the namespace `minecraft`); ids of `[a-z0-9_.-]`, paths with `/` too.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith.data.audio_writing import encode_audio
from tunesmith.errors import DataError, RecipeError
from tunesmith.generation.sounds import Finish, Sound, file_facts
from tunesmith.weights.atomic import write_bytes, write_json

FINISH = Finish(mono=True, rate=44_100, quality=5.0)
CREDITS_FILE = "tunesmith_credits.json"
PACK_FORMAT = 15
CREDITS_FORMAT = 1
_NAMESPACE = re.compile(r"[a-z0-9_.-]+")
_PATH = re.compile(r"[a-z0-9_./-]+")
_LARGEST_BYTES = 16 << 20


@dataclass(frozen=True)
class PackSound:
    """Where a sound goes in a pack; made by `pack_sound`, which checks and settles the ids.

    `settings` holds those of weight, volume and pitch that were asked for.
    """

    pack: Path
    namespace: str
    event: str
    path: str
    subtitle: str | None = None
    settings: Mapping[str, float] = field(default_factory=dict)

    def file_of(self, name: str) -> Path:
        """The OGG file of a name in sounds.json."""
        return self._assets / "sounds" / f"{name.partition(':')[2]}.ogg"

    def name(self, index: int, count: int) -> str:
        """What sounds.json calls variant `index` of `count`."""
        return f"{self.namespace}:{self._own(index, count)}"

    def file(self, index: int, count: int) -> Path:
        """The OGG file of variant `index` of `count`."""
        return self.file_of(self.name(index, count))

    @property
    def sounds_file(self) -> Path:
        """The namespace's sounds.json."""
        return self._assets / "sounds.json"

    @property
    def language_file(self) -> Path:
        """Where the subtitle's words stand."""
        return self._assets / "lang" / "en_us.json"

    @property
    def meta_file(self) -> Path:
        """What makes the folder a pack."""
        return self.pack / "pack.mcmeta"

    @property
    def credits_file(self) -> Path:
        """How every sound of the pack that we wrote was made."""
        return self.pack / CREDITS_FILE

    @property
    def subtitle_key(self) -> str:
        """The subtitle's name in language files."""
        return f"subtitles.{self.namespace}.{self.event}"

    @property
    def _assets(self) -> Path:
        return self.pack / "assets" / self.namespace

    def _own(self, index: int, count: int) -> str:
        return self.path if count == 1 else f"{self.path}_{index + 1}"


def pack_sound(
    pack: Path,
    *,
    namespace: str,
    event: str,
    path: str | None = None,
    subtitle: str | None = None,
    settings: Mapping[str, float] | None = None,
) -> PackSound:
    """A place in a pack. Ids become lower case, and `_` where they may not have a character.

    `path` defaults to the event with `/` for dots. Raises RecipeError for an id that is empty, points outside, or names
    another namespace, and for a weight, volume or pitch out of range.
    """
    space = _settled(namespace, _NAMESPACE, "namespace")
    own = _settled(_without_namespace(event, space, "event"), _PATH, "event")
    place = _without_namespace(path if path is not None else own.replace(".", "/"), space, "sound path")
    place = re.sub(r"\.ogg$", "", place, flags=re.IGNORECASE)
    asked = dict(settings or {})
    for name, value in asked.items():
        whole = name != "weight" or float(value).is_integer()
        if not math.isfinite(value) or value <= 0 or not whole or (name == "weight" and value > 10_000):
            expected = "a whole number from 1 to 10000" if name == "weight" else "a number above 0"
            raise RecipeError(f"--{name} is {value:g}", expected=expected)
    if "weight" in asked:
        asked["weight"] = int(asked["weight"])
    return PackSound(pack, space, own, _settled(place, _PATH, "sound path"), subtitle, asked)


def check_pack(target: PackSound) -> None:
    """Raise DataError for JSON of the pack that is broken or of another shape; nothing is written."""
    _sounds_document(target, 1)
    _with_credits(target, {})
    for file in (target.language_file, target.meta_file):
        _read(file)


def export_sounds(
    target: PackSound, sounds: Sequence[Sound], sidecars: Sequence[Mapping[str, Any]]
) -> tuple[Path, ...]:
    """Write finished sounds (see FINISH) as variants of one event, and what the pack says about them.

    What others wrote into the pack's JSON stays; an entry of the same sound is updated. Everything is read, checked and
    coded before the first file is written; credits come first and sounds.json last, so that a crash leaves no sound
    without credits and no name without a sound. Returns the OGG files.
    """
    count = len(sounds)
    files = tuple(target.file(index, count) for index in range(count))
    coded = [
        bytes(encode_audio(file, sound.samples, sound.rate, **FINISH.coding))
        for file, sound in zip(files, sounds, strict=True)
    ]
    events = _sounds_document(target, count)
    words = _read(target.language_file)
    _read(target.meta_file)
    entries = {
        file.relative_to(target.pack).as_posix(): {
            **sidecar,
            "event": f"{target.namespace}:{target.event}",
            "file": {"name": file.name, **file_facts(sound, data)},
        }
        for file, sound, data, sidecar in zip(files, sounds, coded, sidecars, strict=True)
    }
    told = _with_credits(target, entries)
    write_json(target.credits_file, told)
    for file, data in zip(files, coded, strict=True):
        write_bytes(file, data)
    if target.subtitle is not None:
        write_json(target.language_file, {**words, target.subtitle_key: target.subtitle})
    if not target.meta_file.exists():
        description = f"Sounds of {target.namespace}"
        write_json(target.meta_file, {"pack": {"pack_format": PACK_FORMAT, "description": description}})
    write_json(target.sounds_file, events)
    return files


def _sounds_document(target: PackSound, count: int) -> dict[str, Any]:
    """sounds.json with the event's entries in it."""
    document = _read(target.sounds_file)
    event = document.get(target.event, {})
    if not isinstance(event, dict) or not isinstance(event.get("sounds", []), list):
        raise DataError(
            f"{target.sounds_file}: {target.event} is no event", expected='an object such as {"sounds": []}'
        )
    entries = list(event.get("sounds", []))
    for entry in entries:
        if not isinstance(entry, str) and not (isinstance(entry, dict) and isinstance(entry.get("name"), str)):
            raise DataError(
                f"{target.sounds_file}: {target.event} lists {json.dumps(entry)[:60]}",
                expected="names, or objects with a name",
            )
    for index in range(count):
        entries = _with_entry(entries, target, target.name(index, count))
    subtitle = {"subtitle": target.subtitle_key} if target.subtitle is not None else {}
    return {**document, target.event: {**event, **subtitle, "sounds": entries}}


def _with_entry(entries: list[Any], target: PackSound, name: str) -> list[Any]:
    """The entry of `name` updated in its place, or added."""
    # Names without a namespace were once written for files of this one; the game looks for them under `minecraft`.
    is_bare_too = target.namespace == "minecraft" or target.file_of(name).exists()
    same = {name, name.partition(":")[2]} if is_bare_too else {name}
    known = [entry if isinstance(entry, dict) else {"name": entry} for entry in entries]
    is_same = [entry["name"] in same and entry.get("type", "sound") == "sound" for entry in known]
    at = is_same.index(True) if any(is_same) else None
    if at is None:
        return [*entries, {"name": name, "weight": 1, "volume": 1.0, "pitch": 1.0, **target.settings}]
    return [*entries[:at], {**known[at], "name": name, **target.settings}, *entries[at + 1 :]]


def _with_credits(target: PackSound, entries: Mapping[str, Any]) -> dict[str, Any]:
    """The pack's credits with those of some files, by their paths in it."""
    document = _read(target.credits_file)
    sounds = document.get("sounds", {})
    if not isinstance(sounds, dict):
        raise DataError(f"{target.credits_file}: sounds is no map", expected="credits as tunesmith writes them")
    return {**document, "format": CREDITS_FORMAT, "sounds": {**sounds, **entries}}


def _read(file: Path) -> dict[str, Any]:
    """A JSON object, {} where there is no file. Raises DataError: broken, a key twice, no object."""
    try:
        with file.open("rb") as stream:
            data = stream.read(_LARGEST_BYTES + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}", do="check the pack's folder") from error
    try:
        document = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{file} is broken: {error}", expected="a JSON object", do="repair it; nothing was written"
        ) from error
    if not isinstance(document, dict):
        raise DataError(f"{file} is no JSON object", do="repair it; nothing was written")
    return document


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object, unless a key is there twice: writing it again would lose one of them."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} is there twice")
    return found


def _without_namespace(text: str, namespace: str, what: str) -> str:
    """The part behind `<namespace>:`, where there is one; RecipeError for another namespace."""
    space, colon, rest = text.rpartition(":")
    if not colon:
        return text
    if space.strip().lower() != namespace:
        raise RecipeError(f"the {what} {text!r} is of another namespace", expected=f"{namespace}:… or no namespace")
    return rest


def _settled(text: str, allowed: re.Pattern[str], what: str) -> str:
    """An id as the game takes it. Raises RecipeError for one that is empty or points outside its folder."""
    wanted = text.strip().lower().replace("\\", "/")
    kept = re.sub(r"[^a-z0-9_./-]", "_", wanted)
    parts = kept.split("/")
    if not kept or any(not part.strip(".") for part in parts) or not allowed.fullmatch(kept):
        raise RecipeError(
            f"the {what} is {text!r}",
            expected="an id of a-z, 0-9, _, . and -" + (", parted by /" if allowed is _PATH else ""),
            do="leave out empty parts, . and ..",
        )
    return kept
