"""Families of a project into our registry, so that they are there from every folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tunesmith.catalog.concepts import Concept, Concepts
from tunesmith.catalog.families import Families
from tunesmith.catalog.resolving import check_file, concept_of
from tunesmith.errors import CatalogError


@dataclass(frozen=True)
class Copied:
    """What became of one family: added, replaced, same (as it was already), kept (ours, a different one) or refused.

    `said` is what is worth knowing about it, "" if nothing.
    """

    name: str
    outcome: str
    said: str = ""


def copy_families(home: Path, families: Families, *, force: bool = False) -> tuple[Copied, ...]:
    """Put every family into the registry of `home`; a concept that is there already stays, unless `force`.

    Bad entries and names that the registry cannot hold are refused one by one and stop nothing.
    """
    return (*_copied(Concepts(home), families, force), *_refused(families))


def _copied(registry: Concepts, families: Families, force: bool) -> Iterator[Copied]:
    known = {concept.name.strip().casefold(): concept for concept in registry.list()}
    done: dict[str, str] = {}
    for family in families.list():
        concept, key = concept_of(family), family.name.casefold()
        before = known.get(key)
        if key in done:
            yield Copied(family.name, "refused", f"the registry does not tell it from {done[key]!r}")
        elif before == concept:
            done[key] = family.name
            yield Copied(family.name, "same")
        elif before is not None and not force:
            done[key] = family.name
            yield Copied(family.name, "kept", f"ours differs in {', '.join(_differences(before, concept))}")
        else:
            done[key] = family.name
            yield _put(registry, concept, "added" if before is None else "replaced")


def _put(registry: Concepts, concept: Concept, outcome: str) -> Copied:
    try:
        registry.put(concept)
    except CatalogError as error:
        return Copied(concept.name, "refused", error.message)
    try:
        if concept.checkpoint is not None:
            check_file(Path(concept.checkpoint), concept.name)
    except CatalogError as error:
        return Copied(concept.name, outcome, error.message)
    return Copied(concept.name, outcome)


def _differences(one: Concept, other: Concept) -> list[str]:
    return [name for name, value in vars(one).items() if value != getattr(other, name)]


def _refused(families: Families) -> Iterator[Copied]:
    usable = {family.name for family in families.list()}
    for problem in families.problems:
        if problem.name not in usable:  # else a bad entry of `configs/` that a good one of `library/` hides
            yield Copied(problem.name or problem.source, "refused", problem.error().message)
