"""Creature families of another tool's project: `creature_families.json` and `model_versions.json`, read in place.

Both files may lie in `configs/` (shared with others) and in `library/` (local). Of one file's two places the local
entry wins whole, since the fields of an entry were chosen together. Entries of one name in the two files are laid
over each other field by field, the model version on top.
"""

from __future__ import annotations

import difflib
import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tunesmith.catalog.family_files import Note, Problem, lora_file, read_document, read_fields, unknown_fields
from tunesmith.errors import CatalogError
from tunesmith.recipe.checks import is_control

FILES = ("model_versions.json", "creature_families.json")  # what the first states lies over the second
PLACES = ("library", "configs")  # the first wins
SOURCES = tuple(f"{place}/{file}" for file in FILES for place in PLACES)
_NEED_LORA = "creature_families.json"  # a model version may also be a base and a way to prompt it
_ENGINES = {"stable_audio_open": "stable_audio"}  # their names -> ours
_USUAL_ENGINE = "stable_audio"  # the only one that such families were ever made for


@dataclass(frozen=True)
class Family:
    """One entry. `lora_path` is absolute, or None for a model version without one; what is not said has its default.

    `source` is the file below the project, such as `library/creature_families.json`; `stated` names the fields that
    the entry says itself.
    """

    name: str
    lora_path: Path | None
    trigger: str = ""
    scale: float = 1.0
    negative_prompt: str = ""
    notes: str = ""
    base_model: str = ""
    engine: str = _USUAL_ENGINE
    source: str = ""
    stated: frozenset[str] = frozenset()

    def over(self, other: Family) -> Family:
        """What this one states, and of `other` the rest."""
        changes: dict[str, Any] = {name: getattr(self, name) for name in self.stated}
        source = f"{self.source} over {other.source}"
        return replace(other, **changes, name=self.name, source=source, stated=self.stated | other.stated)


@dataclass(frozen=True)
class Families:
    """What the files of a project say. `entries` lie in order of precedence and hold the bad ones too."""

    project: Path
    entries: tuple[Family | Problem, ...] = ()
    damaged: tuple[Problem, ...] = ()
    notes: tuple[Note, ...] = ()

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Every bad file and every bad entry."""
        return (*self.damaged, *(entry for entry in self.entries if isinstance(entry, Problem)))

    @property
    def names(self) -> tuple[str, ...]:
        """Every name, that of bad entries too, sorted."""
        return tuple(sorted(self._by_name))

    @property
    def looked_in(self) -> tuple[str, ...]:
        """The files that are there, below the project."""
        return tuple(source for source in SOURCES if os.path.lexists(self.project / source))

    def list(self) -> tuple[Family, ...]:
        """Every family that can be used, by name."""
        usable = [name for name in self.names if not any(isinstance(one, Problem) for one in self._layers(name))]
        return tuple(self._made(name) for name in usable)

    def find(self, name: str) -> Family | None:
        """The family of that name, exactly or else whatever its case; None where there is none.

        Raises CatalogError for a bad entry, and where several names fit that differ only by case.
        """
        wanted = name.strip()
        fitting = [wanted] if wanted in self._by_name else self._spellings.get(wanted.casefold(), [])
        if len(fitting) > 1:
            names = " and ".join(repr(known) for known in fitting)
            found = f"{name!r} fits {names} of {self.project}, which differ only by case"
            raise CatalogError(found, expected="the exact name")
        return self._made(fitting[0]) if fitting else None

    def get(self, name: str) -> Family:
        """Like `find`, but raises CatalogError with the nearest names where there is none."""
        found = self.find(name)
        if found is None:
            where = f"{' or '.join(self.looked_in) or 'its files'} of {self.project}"
            hints = (did_you_mean(name, self.names), *(f"Mend {one.source}: {one.found}" for one in self.damaged))
            do = " ".join(hint for hint in hints if hint) or "see `tunesmith concepts list`"
            raise CatalogError(f"no creature family is called {name!r} in {where}", do=do)
        return found

    def sources_of(self, name: str) -> tuple[str, ...]:
        """The files that have an entry of that name, whatever its case."""
        spellings = self._spellings.get(name.strip().casefold(), [])
        found = {entry.source for spelling in spellings for entry in self._by_name[spelling]}
        return tuple(source for source in SOURCES if source in found)

    @cached_property
    def _by_name(self) -> Mapping[str, Sequence[Family | Problem]]:
        found: dict[str, list[Family | Problem]] = {}
        for entry in self.entries:
            found.setdefault(entry.name, []).append(entry)
        return found

    @cached_property
    def _spellings(self) -> Mapping[str, Sequence[str]]:
        """Names by what they are whatever their case."""
        found: dict[str, list[str]] = {}
        for name in self.names:
            found.setdefault(name.casefold(), []).append(name)
        return found

    def _layers(self, name: str) -> Iterator[Family | Problem]:
        """Of each kind of file the entry that counts."""
        for file in FILES:
            yield from [entry for entry in self._by_name[name] if entry.source.endswith(file)][:1]

    def _made(self, name: str) -> Family:
        found: list[Family] = []
        for layer in self._layers(name):
            if isinstance(layer, Problem):
                raise layer.error()
            found.append(layer)
        return found[0] if len(found) == 1 else found[0].over(found[1])


def find_project(start: Path) -> Path | None:
    """The first folder from `start` upwards that holds one of the files; None where there is none."""
    start = start.absolute()
    return next((folder for folder in (start, *start.parents) if _has_files(folder)), None)


def read_families(project: Path) -> Families:
    """Read every file there is. What is wrong is collected (`problems`), never raised, and hides nothing else."""
    project = project.absolute()
    entries: list[Family | Problem] = []
    damaged: list[Problem] = []
    notes: list[Note] = []
    for source in Families(project).looked_in:
        document = read_document(project / source, source)
        if isinstance(document, Problem):
            damaged.append(document)
            continue
        notes += [Note("", source, text) for text in document.notes]
        found: dict[str, Family | Problem] = {}  # of two keys that differ by spaces around them the last counts
        for key, value in document.entries.items():
            if isinstance(value, dict) or key[:1] not in ("_", "$"):  # those are comments and schemas
                entry = _entry(key, value, project, source)
                found[entry.name] = entry
                notes += _notes(key, value, project, source)
        entries += found.values()
    return Families(project, tuple(entries), tuple(damaged), tuple(notes))


def with_trigger(prompt: str, trigger: str) -> str:
    """`prompt, trigger`; the prompt as it is where the trigger is empty, or a whole word of it whatever its case.

    A word goes on through letters, digits, underscores and marks on letters of any script: "ghoulish" has no "ghoul".
    An empty prompt gives the trigger alone.
    """
    word = trigger.strip()
    if not word or _has_word(_folded(prompt), _folded(word)):
        return prompt
    before = prompt.strip().rstrip(", ")
    return f"{before}, {word}" if before else word


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """`did you mean 'ghoul'?`, or nothing where no name is near."""
    spelt = {known.casefold(): known for known in names}
    near = difflib.get_close_matches(name.strip().casefold(), spelt, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(repr(spelt[key]) for key in near)}?" if near else ""


def _has_files(folder: Path) -> bool:
    return any(os.path.lexists(folder / source) for source in SOURCES)


def _entry(key: str, value: Any, project: Path, source: str) -> Family | Problem:
    """One entry of a file, good or bad."""
    name, file = key.strip(), project / source
    if not name or any(map(is_control, name)):
        return Problem(name, source, f"{file}: an entry is called {key!r}", expected="a name of visible characters")
    fields = read_fields(value, f"{file}: {name}", needs_lora=source.endswith(_NEED_LORA))
    if isinstance(fields, CatalogError):
        return Problem(name, source, fields.found, fields.expected, fields.do)
    stated = frozenset(fields)
    lora = fields.pop("lora_path", None)
    if engine := fields.get("engine"):
        fields["engine"] = _ENGINES.get(engine.lower(), engine.lower())
    path = None if lora is None else lora_file(lora, project)
    return Family(name, path, **fields, source=source, stated=stated)


def _notes(key: str, value: Any, project: Path, source: str) -> Iterator[Note]:
    if isinstance(value, dict):
        for field, do in unknown_fields(value).items():
            yield Note(key.strip(), source, f"{project / source}: {key.strip()}: no field is called {field!r}; {do}")


def _has_word(text: str, word: str) -> bool:
    at = text.find(word)
    while at >= 0:
        end = at + len(word)
        if not _goes_on(text[max(at - 1, 0) : at]) and not _goes_on(text[end : end + 1]):
            return True
        at = text.find(word, at + 1)
    return False


def _goes_on(letter: str) -> bool:
    return letter.isalnum() or letter == "_" or (letter != "" and unicodedata.category(letter).startswith("M"))


def _folded(text: str) -> str:
    """For comparison whatever the case (Unicode's canonical caseless matching); any white space is one space."""
    text = unicodedata.normalize("NFD", unicodedata.normalize("NFD", text).casefold())
    return " ".join(text.split())
