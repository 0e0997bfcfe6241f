"""What a concept's name means: our own registry, else the creature families of the project at hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunesmith.catalog.card import Card
from tunesmith.catalog.concepts import Concept, Concepts
from tunesmith.catalog.families import Families, Family, did_you_mean, read_families, with_trigger
from tunesmith.catalog.shelf import Shelf
from tunesmith.errors import CatalogError
from tunesmith.weights.locate import near_names

REGISTRY = "registry"
LATEST = "latest"
# How a family is prompted, as a template that the registry can keep; read back, it never repeats the trigger.
FAMILY_TEMPLATE = "{prompt}, {trigger}"
# Fields of a family -> those of a resolved concept.
_RESOLVED = {"lora_path": "adapter", "scale": "strength", "base_model": "base"}


@dataclass(frozen=True)
class Known:
    """A concept and where it comes from: `registry`, `library` or `configs`. `said` names what was passed over.

    `family` is the entry that it was read from, where it was.
    """

    concept: Concept
    source: str
    said: str
    family: Family | None = None


@dataclass(frozen=True)
class ResolvedConcept:
    """How to use a concept.

    `adapter` is a file or folder (Path), the id of a checkpoint, or None where none is named. `template` None means
    that the trigger goes behind the prompt where it is missing. `base` is the one that was pinned ("" if none). `said`
    is for the person: what is used, and what was passed over. `stated` names the fields that were said rather than
    left to their default.
    """

    name: str
    trigger: str
    strength: float
    negative_prompt: str
    adapter: Path | str | None
    template: str | None
    engine: str
    said: str
    base: str = ""
    stated: frozenset[str] = frozenset()

    def prompt(self, wanted: str) -> str:
        """`wanted` with the trigger in it."""
        if self.template is None:
            return with_trigger(wanted, self.trigger)
        return Concept(self.name, trigger=self.trigger, template=self.template).prompt(wanted)

    def over(self, other: ResolvedConcept) -> ResolvedConcept:
        """What this one states, and of `other` the rest: a model version over a creature family."""
        changes: dict[str, Any] = {name: getattr(self, name) for name in self.stated}
        said, stated = f"{self.said}; {other.said}", self.stated | other.stated
        return replace(other, **changes, name=self.name, said=said, stated=stated)


def resolve_concept(home: Path, name: str, project: Path | None, *, needs_adapter: bool = True) -> ResolvedConcept:
    """What `name` means: the registry of `home` first, then the families of `project` (`library/`, then `configs/`).

    Raises CatalogError for a name that nothing has (with the nearest), for a bad entry, and for a LoRA or checkpoint
    that is not there. With `needs_adapter` False, for where another one is named anyway, `adapter` is None.
    """
    known = find_concept(home, name, project)
    concept = known.concept
    adapter, engine = _adapter(home, known) if needs_adapter else (None, concept.engine)
    return ResolvedConcept(
        name=concept.name,
        trigger=concept.trigger,
        strength=concept.strength,
        negative_prompt=concept.negative_prompt,
        adapter=adapter,
        template=None if concept.template == FAMILY_TEMPLATE else concept.template,
        engine=engine,
        said=known.said,
        base=known.family.base_model if known.family is not None else "",
        stated=_stated(known, adapter),
    )


def find_concept(home: Path, name: str, project: Path | None) -> Known:
    """The concept of that name and where it comes from; its LoRA is not looked for.

    Raises CatalogError for a name that nothing has (with the nearest), and for a bad entry.
    """
    families = read_families(project) if project is not None else None
    own = Concepts(home).list()
    key = name.strip().casefold()
    for concept in own:
        if concept.name.strip().casefold() == key:
            return Known(concept, REGISTRY, _said(concept.name, "the registry", families))
    family = families.find(name) if families is not None else None
    if families is not None and family is not None:
        return _known(family, families)
    raise _missing(name, own, families)


def known_concepts(home: Path, families: Families | None) -> tuple[Known, ...]:
    """Every concept that a name can mean, by name: the registry's, and the families that none of those hides."""
    own = [Known(one, REGISTRY, _said(one.name, "the registry", families)) for one in Concepts(home).list()]
    hidden = {known.concept.name.strip().casefold() for known in own}
    seen = [_known(one, families) for one in families.list()] if families is not None else []
    seen = [known for known in seen if known.concept.name.casefold() not in hidden]
    return tuple(sorted((*own, *seen), key=lambda known: (known.concept.name.casefold(), known.concept.name)))


def concept_of(family: Family) -> Concept:
    """A family as our registry keeps it; a base that it pins goes to the notes, since a concept has no place for it."""
    base = f"base_model {family.base_model}" if family.base_model else ""
    return Concept(
        name=family.name,
        trigger=family.trigger,
        engine=family.engine,
        checkpoint=None if family.lora_path is None else str(family.lora_path),
        strength=family.scale,
        negative_prompt=family.negative_prompt,
        template=FAMILY_TEMPLATE,
        notes="; ".join(text for text in (family.notes, base) if text),
    )


def card_named(shelf: Shelf, name: str, engine: str | None = None) -> Card:
    """The checkpoint of that id or name; `latest` is the newest, of `engine` if one is given. Raises CatalogError."""
    if name != LATEST:
        card = shelf.get(name)
        if engine not in (None, card.engine):
            raise CatalogError(f"{card.id} is a checkpoint of {card.engine}", expected=f"one of {engine}")
        return card
    cards = shelf.list(engine)
    if not cards:
        of = f" of {engine}" if engine else ""
        raise CatalogError(f"the catalog has no checkpoint{of}", do="train one, or name a file with --lora")
    return cards[0]


def card_trigger(card: Card, name: str) -> str:
    """The trigger that a checkpoint's card has for the concept `name`: its own, else that of its only one, else "".

    Raises CatalogError where the card knows several concepts and none of that name.
    """
    triggers = {concept: _trigger(use) for concept, use in card.concepts.items()}
    own = next((one for one in triggers if one.strip().casefold() == name.strip().casefold()), None)
    if own is None and len(triggers) > 1:
        known = ", ".join(f"{concept} ({trigger})" for concept, trigger in triggers.items())
        do = "use one of those names, or say with --trigger which word calls it"
        raise CatalogError(f"{card.id} knows several concepts, none called {name!r}", expected=f"one of {known}", do=do)
    return triggers[own] if own is not None else next(iter(triggers.values()), "")


def check_file(path: Path, whose: str) -> Path:
    """`path`, where a file or folder is there. Raises CatalogError with the nearest names."""
    try:
        if path.exists():
            return path
        do = near_names(path)
    except OSError as error:  # a name too long, a folder that may not be read
        do = f"check the path ({error.strerror or error})"
    raise CatalogError(f"{whose} uses {path}, which does not exist", expected="a LoRA file or a PEFT folder", do=do)


def _adapter(home: Path, known: Known) -> tuple[Path | str | None, str]:
    """The file or checkpoint of a concept, seen to be there, and its engine."""
    concept = known.concept
    if concept.checkpoint is None:
        return None, concept.engine
    whose = f"the concept {concept.name!r} of the registry"
    if known.family is not None:
        whose = f"{concept.name!r} of {known.family.source}"
    if Path(concept.checkpoint).is_absolute():
        return check_file(Path(concept.checkpoint), whose), concept.engine
    try:
        card = Shelf(home).get(concept.checkpoint)
    except CatalogError as error:
        edit = f"name another with: tunesmith concepts edit {concept.name} --checkpoint ID"
        raise CatalogError(
            f"{whose}: {error.found}", expected=error.expected, do=f"{error.do} {edit}".strip()
        ) from error
    return card.id, concept.engine or card.engine


def _stated(known: Known, adapter: Path | str | None) -> frozenset[str]:
    if known.family is not None:
        stated = {_RESOLVED.get(name, name) for name in known.family.stated - {"notes"}}
        return frozenset(stated - {"adapter"} if adapter is None else stated)
    concept = known.concept
    texts = {"trigger": concept.trigger, "negative_prompt": concept.negative_prompt, "engine": concept.engine}
    said = {name for name, text in texts.items() if text}
    return frozenset({*said, "strength", "template", *(() if adapter is None else ("adapter",))})


def _known(family: Family, families: Families) -> Known:
    place = family.source.partition("/")[0]
    return Known(concept_of(family), place, _said(family.name, family.source, families), family)


def _said(name: str, used: str, families: Families | None) -> str:
    """What is used, what was passed over for it, and what is odd about the files."""
    if families is None:
        return f"{name} is from {used}"
    over = [source for source in families.sources_of(name) if source not in used]
    parts = [f"{name} is from {used}" + (f"; passed over: {', '.join(over)}" if over else "")]
    parts += [f"{problem.source} was not read: {problem.found}" for problem in families.damaged]
    parts += [note.text for note in families.notes if note.name == name and note.source in used]
    return "; ".join(parts)


def _missing(name: str, own: tuple[Concept, ...], families: Families | None) -> CatalogError:
    names = [concept.name for concept in own]
    where = "the registry"
    mend: list[str] = []
    if families is None:
        where += " (and no folder from here upwards has creature families)"
    else:
        names += [known for known in families.names if known not in names]
        where += f" or in {' or '.join(families.looked_in)} of {families.project}"
        mend = [f"Mend {problem.source}: {problem.found}" for problem in families.damaged]
    do = " ".join(part for part in (did_you_mean(name, names), *mend) if part)
    return CatalogError(f"no concept is called {name!r} in {where}", do=do or "see `tunesmith concepts list`")


def _trigger(use: object) -> str:
    found = use.get("trigger", "") if isinstance(use, Mapping) else use
    return found if isinstance(found, str) else ""
