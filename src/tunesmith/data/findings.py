"""What is worth knowing about a dataset before it is trained on, and what to do about it. No torch.

One function per check, all in `CHECKS`; each looks at an `Examination` and yields findings.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from tunesmith.data.item import Item
from tunesmith.recipe.schema import DataSection

Severity = Literal["error", "warning", "note"]
EXTREME_RATIO = 3.0
IMBALANCE = 4.0


class CountAdvice(Protocol):
    """The part of an engine's facts that is read here."""

    @property
    def minimum_items(self) -> int:
        """Fewer are an error."""
        ...

    @property
    def advised_items(self) -> tuple[int, int]:
        """From, to."""
        ...


@dataclass(frozen=True)
class Finding:
    """One thing found. An `error` stops a plan, a `warning` costs quality, a `note` explains.

    `items` are the file names it is about, or the concepts' names where it is about those.
    """

    severity: Severity
    code: str
    message: str
    do: str
    items: tuple[str, ...] = ()


@dataclass(frozen=True)
class Examination:
    """What the checks look at. `resolution_pixels` is the side of the square trained at; None: unknown."""

    items: tuple[Item, ...]
    facts: CountAdvice
    notes: tuple[str, ...]
    section: DataSection
    concepts: Mapping[str, str]
    resolution_pixels: int | None


def examine(
    items: Sequence[Item],
    facts: CountAdvice,
    *,
    notes: Sequence[str] = (),
    section: DataSection | None = None,
    concepts: Mapping[str, str] | None = None,
    resolution_pixels: int | None = None,
) -> tuple[Finding, ...]:
    """Every finding, worst first. Prior items are left out; `notes` of the reading come last, as they are."""
    seen = Examination(
        items=tuple(item for item in items if not item.prior),
        facts=facts,
        notes=tuple(notes),
        section=section or DataSection(),
        concepts=concepts or {},
        resolution_pixels=resolution_pixels,
    )
    rank = {"error": 0, "warning": 1, "note": 2}
    return tuple(sorted((found for check in CHECKS for found in check(seen)), key=lambda found: rank[found.severity]))


def _name(item: Item) -> str:
    return next(iter(item.media.values())).path.name if item.media else item.key[:12]


def _names(items: Sequence[Item]) -> tuple[str, ...]:
    return tuple(_name(item) for item in items)


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _caption(item: Item) -> str:
    return item.text.get("caption", "")


def count(seen: Examination) -> Iterator[Finding]:
    """Fewer items than the engine needs, or than are advised."""
    found, low = len(seen.items), seen.facts.advised_items[0]
    if found < seen.facts.minimum_items:
        yield Finding(
            "error", "too_few", f"{found} items, at least {seen.facts.minimum_items} are needed", "add more items"
        )
    elif found < low:
        yield Finding(
            "warning",
            "few",
            f"{found} items; {low} to {seen.facts.advised_items[1]} are advised",
            "add more, or train shorter and watch the held-out loss",
        )


def empty_captions(seen: Examination) -> Iterator[Finding]:
    """Items without a caption: no file, or an empty one."""
    bare = _names([item for item in seen.items if not _caption(item)])
    if bare:
        yield Finding(
            "warning",
            "caption_empty",
            f"{len(bare)} of {len(seen.items)} items have no caption: {_shown(bare)}",
            "write captions, or set data.default_caption",
            bare,
        )


def identical_captions(seen: Examination) -> Iterator[Finding]:
    """One caption for every item of a concept teaches the trigger and everything else that they share with it."""
    by_concept: dict[str, list[Item]] = defaultdict(list)
    for item in seen.items:
        by_concept[item.concept].append(item)
    for concept, items in sorted(by_concept.items()):
        captions = {_caption(item) for item in items}
        if len(items) > 2 and len(captions) == 1 and captions != {""}:
            of = f" of {concept!r}" if concept else ""
            yield Finding(
                "warning",
                "caption_identical",
                f"all {len(items)} items{of} have the same caption",
                "say in each what sets it apart from the others",
                _names(items),
            )


def duplicates(seen: Examination) -> Iterator[Finding]:
    """The same file twice: it counts double, and may stand on both sides of the split."""
    by_hash: dict[str, list[Item]] = defaultdict(list)
    for item in seen.items:
        by_hash["/".join(sorted(file.sha256 for file in item.media.values()))].append(item)
    for same in by_hash.values():
        if len(same) > 1:
            names = _names(same)
            yield Finding(
                "warning",
                "duplicate",
                f"the same content {len(same)} times: {_shown(names)}",
                "keep one of them",
                names,
            )


def small(seen: Examination) -> Iterator[Finding]:
    """Pictures with fewer pixels than the training resolution: they are enlarged and teach blur."""
    if seen.resolution_pixels is None:
        return
    area = seen.resolution_pixels**2
    names = _names([item for item, width, height in _sized(seen) if width * height < area])
    if names:
        yield Finding(
            "warning",
            "small",
            f"{len(names)} smaller than {seen.resolution_pixels}x{seen.resolution_pixels}: {_shown(names)}",
            "use larger ones, or a lower resolution",
            names,
        )


def extreme_ratio(seen: Examination) -> Iterator[Finding]:
    """Pictures so long that most of them is cropped away."""
    names = _names(
        [item for item, width, height in _sized(seen) if max(width, height) > EXTREME_RATIO * min(width, height)]
    )
    if names:
        yield Finding(
            "warning",
            "extreme_ratio",
            f"{len(names)} more than {EXTREME_RATIO:g} times as long as wide: {_shown(names)}",
            "crop them to what matters",
            names,
        )


def _sized(seen: Examination) -> Iterator[tuple[Item, int, int]]:
    for item in seen.items:
        image = item.media.get("image")
        if image is not None and "width" in image.facts:
            yield item, int(image.facts["width"]), int(image.facts["height"])


def trigger_absent(seen: Examination) -> Iterator[Finding]:
    """Captions that lack their concept's trigger word."""
    for concept, trigger in seen.concepts.items():
        own = [item for item in seen.items if item.concept == concept]
        names = _names([item for item in own if trigger and trigger.lower() not in _caption(item).lower()])
        if names:
            yield Finding(
                "warning",
                "trigger_absent",
                f"{len(names)} of {len(own)} captions of {concept!r} lack the trigger {trigger!r}: {_shown(names)}",
                f"put {trigger!r} into each caption",
                names,
            )


def concept_without_items(seen: Examination) -> Iterator[Finding]:
    """A concept the recipe names that no item teaches."""
    present = {item.concept for item in seen.items}
    names = tuple(name for name in seen.concepts if name not in present)
    if names:
        yield Finding(
            "warning",
            "concept_without_items",
            f"no item teaches {', '.join(map(repr, names))}",
            "name a folder after it (such as 10_NAME), or set concept in metadata.jsonl",
            names,
        )


def imbalance(seen: Examination) -> Iterator[Finding]:
    """One concept is seen far more often than another."""
    views: Counter[str] = Counter()
    for item in seen.items:
        views[item.concept] += item.repeats
    if len(views) < 2:
        return
    (most, high), *_, (least, low) = views.most_common()
    if high > IMBALANCE * low:
        yield Finding(
            "warning",
            "imbalance",
            f"an epoch shows {most!r} {high} times, {least!r} {low} times",
            "change the repeats, so that each is seen about as often",
            (most, least),
        )


def no_holdout(seen: Examination) -> Iterator[Finding]:
    """Nothing can be held out, so that no curve tells learning from memorising."""
    groups = {item.group for item in seen.items}
    if seen.section.holdout_fraction > 0 and not seen.section.holdout_paths and len(groups) == 1:
        yield Finding(
            "warning",
            "no_holdout",
            "all items belong to one group, so none can be held out",
            "add items of another group, or set data.holdout_paths",
        )


def reading_notes(seen: Examination) -> Iterator[Finding]:
    """How the folders were understood."""
    for note in seen.notes:
        yield Finding("note", "reading", note, "")


CHECKS: tuple[Callable[[Examination], Iterator[Finding]], ...] = (
    count,
    empty_captions,
    identical_captions,
    duplicates,
    small,
    extreme_ratio,
    trigger_absent,
    concept_without_items,
    imbalance,
    no_holdout,
    reading_notes,
)
