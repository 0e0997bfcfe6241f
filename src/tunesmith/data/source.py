"""Folders become items, read in place: nothing is written, nothing decoded. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tunesmith.data.audio import AUDIO_EXTENSIONS, read_audio_header
from tunesmith.data.captions import read_caption
from tunesmith.data.entries import SIDE_ROLES, Entry, Kind, entries_of, refuse_twice
from tunesmith.data.formats import EXTENSIONS
from tunesmith.data.image import read_header
from tunesmith.data.item import Item, MediaFile
from tunesmith.data.layouts import METADATA, concept_named, leaves_of
from tunesmith.errors import DataError
from tunesmith.recipe.schema import DataSection

KINDS: Mapping[str, Kind] = {
    "image": Kind("image", EXTENSIONS, SIDE_ROLES),
    "audio": Kind("audio", AUDIO_EXTENSIONS),
}


@dataclass(frozen=True)
class Reading:
    """What was read: items in natural order of their paths, and notes on how the folders were understood."""

    items: tuple[Item, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Reader:
    """What every item of one reading is read with."""

    section: DataSection
    concepts: Mapping[str, str]
    media: tuple[str, ...]
    hash_file: Callable[[Path], str]
    without: list[str] = field(default_factory=list)  # captions that are missing: collected for the notes
    empty: list[str] = field(default_factory=list)


def hash_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_items(
    paths: Sequence[Path],
    section: DataSection,
    *,
    media: Sequence[str] = ("image",),
    hash_file: Callable[[Path], str] = hash_of_file,
    concepts: Mapping[str, str] = {},
    on_progress: Callable[[int, int], None] | None = None,
) -> Reading:
    """The items under `paths`, in the layout of `section`.

    `media` are the roles every item must have, the first is what makes an item; optional ones are taken where they are
    found. `hash_file` gives a file's SHA-256 (a cache's `get`, for instance). `concepts` is {concept: trigger}.
    `on_progress(done, total)` counts items.
    Raises DataError with every item that cannot be used, the first one in full.
    """
    kind = _kind_of(media)
    if not paths:
        raise DataError("no folder is given", expected="at least one folder of items", do="set data.paths")
    found: list[Entry] = []
    notes: list[str] = []
    for path in paths:
        leaves, understood = leaves_of(path, section.layout, extensions=kind.extensions, concepts=concepts)
        notes += understood
        for leaf in leaves:
            entries, said = entries_of(leaf, section, kind)
            found += entries
            notes += said
    refuse_twice(found)
    reader = _Reader(section, concepts, tuple(media), hash_file)
    items = _read_all(found, reader, on_progress)
    notes += _caption_notes(reader)
    return Reading(tuple(items), tuple(notes))


def as_prior(items: Iterable[Item], weight: float) -> tuple[Item, ...]:
    """The same items for prior preservation, their losses multiplied by `weight`."""
    return tuple(replace(item, prior=True, repeats=1, weight=item.weight * weight) for item in items)


def item_key(media: Mapping[str, str], text: Mapping[str, str]) -> str:
    """An item's identity: SHA-256 over its files' SHA-256 and its texts, each by role."""
    parts = [
        f"{kind}\0{role}\0{value}" for kind, by in (("media", media), ("text", text)) for role, value in by.items()
    ]
    return hashlib.sha256("\0\0".join(sorted(parts)).encode()).hexdigest()


def dataset_hash(items: Iterable[Item]) -> str:
    """Identity of a dataset: SHA-256 over its items and how each counts, whatever their order and paths."""
    lines = sorted(
        f"{item.key} {item.repeats} {item.weight!r} {item.prior} {item.concept!r} {item.group!r}"
        + ("" if item.held_out is None else f" {item.held_out}")
        for item in items
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _kind_of(media: Sequence[str]) -> Kind:
    """What makes an item: the first role. Raises DataError where a role cannot be read."""
    kind = KINDS.get(media[0]) if media else None
    unreadable = media[:1] if kind is None else [role for role in media[1:] if role not in kind.sides]
    if kind is None or unreadable:
        raise DataError(
            f"items of {' and '.join(media) or 'no role'} cannot be read from folders",
            expected=f"one of {', '.join(KINDS)} first, beside an image also {', '.join(SIDE_ROLES)}",
        )
    return kind


def _read_all(found: Sequence[Entry], reader: _Reader, on_progress: Callable[[int, int], None] | None) -> list[Item]:
    items: list[Item] = []
    problems: list[DataError] = []
    for done, entry in enumerate(found, start=1):
        try:
            items.append(_item(entry, reader))
        except DataError as problem:
            problems.append(problem)
        if on_progress is not None:
            on_progress(done, len(found))
    if len(problems) == 1:
        raise problems[0]
    if problems:
        first = problems[0]
        others = "; ".join(problem.found for problem in problems[1:4])
        rest = f"; {len(problems) - 4} more" if len(problems) > 4 else ""
        raise DataError(
            f"{len(problems)} items cannot be used: {first.found}; {others}{rest}", expected=first.expected, do=first.do
        )
    return items


def _item(entry: Entry, reader: _Reader) -> Item:
    media: dict[str, MediaFile] = {}
    for role, path in entry.files.items():
        facts = read_audio_header(path) if role == "audio" else read_header(path)
        if role in SIDE_ROLES and "image" in media:
            _check_proportions(path, facts, media["image"].facts)
        media[role] = MediaFile(path, _hash(path, reader.hash_file), facts)
    lacking = [role for role in reader.media if role not in media]
    if lacking:
        raise DataError(
            f"{entry.path} has no {lacking[0]} picture",
            expected=f"{entry.path.stem}.{lacking[0]}.png beside it, or a field {lacking[0]!r} in {METADATA}",
            do="add it",
        )
    row, leaf = entry.row, entry.leaf
    said = row.concept if row is not None else None
    concept = leaf.concept if said is None else concept_named(said, reader.concepts)
    text = {"caption": "", **(row.text if row is not None else {})}
    text["caption"] = _caption(entry, concept, reader)
    hashes = {role: file.sha256 for role, file in media.items()}
    own = hashes[next(iter(entry.files))]
    if row is not None and row.sha256 is not None and row.sha256 != own:
        raise DataError(
            f"{entry.path} is not the file that {METADATA} line {row.line} was written for",
            expected="the content of its sha256",
            do="prepare the dataset again, with copies if the originals change",
        )
    return Item(
        key=item_key(hashes, text),
        media=media,
        text=text,
        # Not the key: editing a caption must not move an item between training and holdout.
        group=row.group if row is not None and row.group else own,
        concept=concept,
        repeats=leaf.repeats if row is None else row.repeats,
        weight=1.0 if row is None else row.weight,
        credits={} if row is None else row.credits,
        held_out=None if row is None else row.held_out,
    )


def _check_proportions(path: Path, side: Mapping[str, Any], image: Mapping[str, Any]) -> None:
    """Raise DataError where a mask or control picture has other proportions (beyond 2 %) than its picture."""
    across, down = side["width"] * image["height"], side["height"] * image["width"]
    if abs(across - down) > 0.02 * down:
        raise DataError(
            f"{path} is {side['width']}x{side['height']} pixels, its picture {image['width']}x{image['height']}",
            expected="the same proportions",
            do="crop one like the other",
        )


def _hash(path: Path, hash_file: Callable[[Path], str]) -> str:
    try:
        return hash_file(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})", do="check the file") from error


def _caption(entry: Entry, concept: str, reader: _Reader) -> str:
    """The item's caption: its line, its sidecar, the recipe's default, the folder's text; "" where there is none."""
    name = entry.path.name
    if entry.row is not None and "caption" in entry.row.text:
        caption = entry.row.text["caption"]
    elif entry.caption_file is not None:
        caption = read_caption(entry.caption_file)
    elif reader.section.default_caption:
        trigger = reader.concepts.get(concept) or concept
        return reader.section.default_caption.replace("{concept}", concept).replace("{trigger}", trigger)
    else:
        reader.without.append(name + (f" (uses {entry.leaf.caption!r})" if entry.leaf.caption else ""))
        return entry.leaf.caption
    if not caption:
        reader.empty.append(name)
    return caption


def _caption_notes(reader: _Reader) -> list[str]:
    notes = []
    for names, what in ((reader.without, "without a caption file"), (reader.empty, "with an empty caption")):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            notes.append(f"{len(names)} item{'s' if len(names) > 1 else ''} {what}: {', '.join(names[:3])}{more}")
    return notes
