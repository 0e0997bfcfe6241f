"""A leaf's files become entries: which file is the picture, which its mask, control picture and caption. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunesmith.data.formats import EXTENSIONS
from tunesmith.data.layouts import METADATA, Leaf, listing_of
from tunesmith.data.metadata import Row, read_metadata
from tunesmith.errors import DataError
from tunesmith.recipe.schema import DataSection

SIDE_ROLES = ("control", "mask")


@dataclass(frozen=True)
class Entry:
    """One item before its files are opened. `files` by role; `caption_file` is the sidecar, if there is one."""

    leaf: Leaf
    files: Mapping[str, Path]
    caption_file: Path | None = None
    row: Row | None = None


def entries_of(leaf: Leaf, section: DataSection) -> tuple[list[Entry], list[str]]:
    """The leaf's items in natural order, and notes on what was left out.

    Raises DataError: one name with two extensions, a line of metadata that names no picture.
    """
    if leaf.layout == "metadata":
        return _listed(leaf, section)
    listing = listing_of(leaf.folder)
    names = listing.pictures(EXTENSIONS)
    by_lower = {name.lower(): name for name in reversed(listing.files)}
    stems: dict[str, str] = {}
    found, doubled = [], 0
    for name in names:
        stem = Path(name).stem
        if stem.lower() in stems:
            raise DataError(
                f"{leaf.folder / stems[stem.lower()]} and {name} have the same name, so they would share a caption",
                expected="one picture per name",
                do="remove or rename one of them",
            )
        stems[stem.lower()] = name
        sidecars = [
            by_lower[key] for key in (f"{stem}{end}".lower() for end in section.caption_extensions) if key in by_lower
        ]
        doubled += len(sidecars) > 1
        files = {"image": leaf.folder / name, **_side_files(leaf.folder, stem, by_lower)}
        found.append(Entry(leaf, files, leaf.folder / sidecars[0] if sidecars else None))
    notes = [f"{leaf.folder}: {len(found)} item{'s' if len(found) != 1 else ''}"]
    if doubled:
        order = ", ".join(section.caption_extensions)
        notes.append(f"{leaf.folder}: {doubled} with several caption files; the first of {order} counts")
    return found, notes + _left_out(leaf.folder, listing.files, found, listing.odd)


def _side_files(folder: Path, stem: str, by_lower: Mapping[str, str]) -> dict[str, Path]:
    """`a.mask.png` and `a.control.png` belong to `a.jpg`."""
    named = {}
    for role in SIDE_ROLES:
        keys = [f"{stem}.{role}{end}".lower() for end in EXTENSIONS]
        hits = [by_lower[key] for key in keys if key in by_lower]
        if len(hits) > 1:
            raise DataError(f"{folder / hits[0]} and {hits[1]} are both the {role} of {stem}", do="remove one of them")
        if hits:
            named[role] = folder / hits[0]
    return named


def _left_out(folder: Path, files: Sequence[str], found: Sequence[Entry], odd: Sequence[str]) -> list[str]:
    """Notes on files that belong to no item, by extension, and on links that lead nowhere."""
    used = {path.name for entry in found for path in (*entry.files.values(), entry.caption_file) if path is not None}
    stems = {entry.files["image"].stem.lower() for entry in found}
    counts: dict[str, int] = {}
    for name in files:
        if name not in used and name != METADATA and Path(name).stem.lower() not in stems:
            end = Path(name).suffix.lower() or "no extension"
            counts[end] = counts.get(end, 0) + 1
    notes = [f"{folder}: {count} file{'s' if count > 1 else ''} ({end}) left out" for end, count in counts.items()]
    if odd:
        notes.append(f"{folder}: {', '.join(odd[:3])} left out: a link that leads nowhere or in a circle")
    return notes


def _listed(leaf: Leaf, section: DataSection) -> tuple[list[Entry], list[str]]:
    """The items of a `metadata.jsonl`."""
    rows, notes = read_metadata(leaf.folder / METADATA)
    if not rows:
        raise DataError(f"{leaf.folder / METADATA} is empty", expected="one line per item", do="fill it or remove it")
    found = []
    for row in rows:
        files = {"image": leaf.folder / row.file_name}
        files |= {role: leaf.folder / name for role, name in row.files.items()}
        for role, path in files.items():
            if not path.is_file():
                raise DataError(
                    f"{leaf.folder / METADATA} line {row.line}: {role} {path.name} does not exist",
                    do="correct that line",
                )
            if path.suffix.lower() not in EXTENSIONS:
                raise DataError(
                    f"{leaf.folder / METADATA} line {row.line}: {path.name} is no picture by its name",
                    expected=f"one of {', '.join(EXTENSIONS)}",
                    do="correct that line",
                )
        sidecars = [files["image"].with_suffix(end) for end in section.caption_extensions]
        sidecar = None if "caption" in row.text else next((path for path in sidecars if path.is_file()), None)
        found.append(Entry(leaf, files, sidecar, row))
    listing = listing_of(leaf.folder)
    unlisted = set(listing.pictures(EXTENSIONS)) - {row.file_name for row in rows}
    said = [f"{leaf.folder}: {len(found)} item{'s' if len(found) != 1 else ''}", *notes]
    if unlisted:
        said.append(f"{leaf.folder}: {len(unlisted)} not named in {METADATA} and left out")
    return found, said


def refuse_twice(found: Sequence[Entry]) -> None:
    """Raise DataError where one file is reached by two paths."""
    seen: dict[str, Path] = {}
    for entry in found:
        path = entry.files["image"]
        real = str(path.resolve())
        if real in seen:
            raise DataError(
                f"{path} was read already as {seen[real]}", expected="each file once", do="give each folder once"
            )
        seen[real] = path
