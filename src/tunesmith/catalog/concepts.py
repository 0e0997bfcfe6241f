"""Concepts: the registry of characters, creature families and styles, in `concepts.json`."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.errors import CatalogError
from tunesmith.recipe.checks import is_control, is_plain_name
from tunesmith.weights.atomic import write_json

FORMAT = 1
LARGEST_STRENGTH = 10.0
_FIELD = re.compile(r"\{(?:trigger|prompt)\}")


@dataclass(frozen=True)
class Concept:
    """What is being taught, and how to use it.

    `trigger` is the word that calls it; `checkpoint` the id of the checkpoint that carries it (None: the active one);
    `strength` the adapter's weight; `template` a prompt in which `{prompt}` and `{trigger}` are filled in.
    """

    name: str
    trigger: str = ""
    engine: str = ""
    checkpoint: str | None = None
    strength: float = 1.0
    negative_prompt: str = ""
    template: str = "{trigger} {prompt}"
    notes: str = ""

    def prompt(self, wanted: str) -> str:
        """The template filled in; other braces stay as they are."""
        return self.template.replace("{trigger}", self.trigger).replace("{prompt}", wanted).strip()


@dataclass(frozen=True)
class Concepts:
    """The concepts of a home folder. The file is replaced whole, under a lock."""

    home: Path

    @property
    def file(self) -> Path:
        """`concepts.json` of the home folder."""
        return self.home / "concepts.json"

    def list(self, engine: str | None = None) -> tuple[Concept, ...]:
        """Every concept by name, or those of one engine."""
        found = self._read().values()
        return tuple(concept for concept in found if engine is None or concept.engine == engine)

    def get(self, name: str) -> Concept:
        """The concept of that name, whatever its case. Raises CatalogError with the nearest names."""
        concepts = self._read()
        key = name.strip().casefold()
        if key in concepts:
            return concepts[key]
        near = difflib.get_close_matches(key, concepts, n=3, cutoff=0.5)
        names = " or ".join(repr(concepts[match].name) for match in near)
        hint = f"did you mean {names}?" if near else "see `tunesmith concepts list`"
        raise CatalogError(f"no concept is called {name!r}", do=hint)

    def put(self, concept: Concept) -> Concept:
        """Add a concept or replace the one of its name. Raises CatalogError for a name, template or strength amiss."""
        _check(concept, f"the concept {concept.name!r}")
        _check_new(concept)
        with self._locked():
            self._write({**self._read(), concept.name.strip().casefold(): concept})
        return concept

    def remove(self, name: str) -> Concept:
        """Take a concept out; returns it. Its checkpoint stays."""
        with self._locked():
            concept = self.get(name)
            self._write({key: other for key, other in self._read().items() if other != concept})
        return concept

    @contextmanager
    def _locked(self) -> Iterator[None]:
        from filelock import FileLock, Timeout

        self.home.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.home / ".concepts.lock", timeout=60.0):
                yield
        except Timeout as error:
            raise CatalogError(f"another process has kept {self.file} locked for a minute", do="try again") from error

    def _read(self) -> dict[str, Concept]:
        if not self.file.exists():
            return {}
        try:
            document = json.loads(self.file.read_bytes())
            entries = document["concepts"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            do = "repair it or move it away"
            raise CatalogError(f"{self.file} is damaged: {error!r}", expected="the registry", do=do) from error
        concepts = {}
        for entry in entries if isinstance(entries, list) else [None]:
            concept = _concept(entry, str(self.file))
            concepts[concept.name.strip().casefold()] = concept
        return dict(sorted(concepts.items()))

    def _write(self, concepts: Mapping[str, Concept]) -> None:
        entries = [dataclasses.asdict(concept) for _, concept in sorted(concepts.items())]
        write_json(self.file, {"format": FORMAT, "concepts": entries})


def _concept(entry: Any, source: str) -> Concept:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise CatalogError(f"{source} is damaged: {entry!r} is no concept", do="repair it or move it away")
    known = {field.name for field in dataclasses.fields(Concept)}
    concept = Concept(**{name: value for name, value in entry.items() if name in known})
    _check(concept, source)
    return concept


def _check(concept: Concept, source: str) -> None:
    for field in dataclasses.fields(Concept):
        value = getattr(concept, field.name)
        if field.name == "strength":
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise CatalogError(f"{source}: strength is {value!r}", expected="a finite number")
        elif not isinstance(value, str) and not (field.name == "checkpoint" and value is None):
            raise CatalogError(f"{source}: {field.name} is {value!r}", expected="text")
    if not concept.name.strip():
        raise CatalogError(f"{source}: a concept without a name")


def _check_new(concept: Concept) -> None:
    """What a concept must be to be kept; an older registry is still read."""
    if not is_plain_name(concept.name):
        expected = "up to 100 characters, no control characters, / or \\"
        raise CatalogError(f"a concept cannot be called {concept.name!r}", expected=expected)
    where = f"the concept {concept.name!r}"
    if any(map(is_control, concept.trigger)):
        raise CatalogError(f"{where}: trigger is {concept.trigger!r}", expected="no control characters")
    rest = _FIELD.sub("", concept.template)
    if "{" in rest or "}" in rest or any(map(is_control, rest)):
        expected = "plain text in which only {trigger} and {prompt} stand in braces"
        raise CatalogError(f"{where}: template is {concept.template!r}", expected=expected)
    if abs(concept.strength) > LARGEST_STRENGTH:
        expected = f"a number from {-LARGEST_STRENGTH:g} to {LARGEST_STRENGTH:g}"
        raise CatalogError(f"{where}: strength is {concept.strength:g}", expected=expected)
