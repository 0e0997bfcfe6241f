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
class Kind:
    """What the items of a reading are: the role of the file that makes an item, and its extensions.

    `sides` are the roles of pictures that may lie beside it.
    """

    role: str
    extensions: tuple[str, ...]
    sides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """One item before its files are opened. `path` makes it an item, `files` has it and those beside it, by role."""

    leaf: Leaf
    path: Path
    files: Mapping[str, Path]
    caption_file: Path | None = None
    row: Row | None = None


def entries_of(leaf: Leaf, section: DataSection, kind: Kind) -> tuple[list[Entry], list[str]]:
    """The leaf's items in natural order, and notes on what was left out.

    Raises DataError: one name with two extensions, a line of metadata that names no picture.
    """
    if leaf.layout == "metadata":
        return _listed(leaf, section, kind)
    listing = listing_of(leaf.folder)
    names = listing.items(kind.extensions)
    by_lower = {name.lower(): name for name in reversed(listing.files)}
    stems: dict[str, str] = {}
    found, doubled = [], 0
    for name in names:
        stem = Path(name).stem
        if stem.lower() in stems:
            raise DataError(
                f"{leaf.folder / stems[stem.lower()]} and {name} have the same name, so they would share a caption",
                expected="one per name",
                do="remove or rename one of them",
            )
        stems[stem.lower()] = name
        sidecars = [
            by_lower[key] for key in (f"{stem}{end}".lower() for end in section.caption_extensions) if key in by_lower
        ]
        doubled += len(sidecars) > 1
        files = {kind.role: leaf.folder / name, **_side_files(leaf.folder, stem, by_lower, kind)}
        found.append(Entry(leaf, leaf.folder / name, files, leaf.folder / sidecars[0] if sidecars else None))
    notes = [f"{leaf.folder}: {len(found)} item{'s' if len(found) != 1 else ''}"]
    if doubled:
        order = ", ".join(section.caption_extensions)
        notes.append(f"{leaf.folder}: {doubled} with several caption files; the first of {order} counts")
    return found, notes + _left_out(leaf.folder, listing.files, found, listing.odd)


def _side_files(folder: Path, stem: str, by_lower: Mapping[str, str], kind: Kind) -> dict[str, Path]:
    """`a.mask.png` and `a.control.png` belong to `a.jpg`."""
    named = {}
    for role in kind.sides:
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
    stems = {entry.path.stem.lower() for entry in found}
    counts: dict[str, int] = {}
    for name in files:
        if name not in used and name != METADATA and Path(name).stem.lower() not in stems:
            end = Path(name).suffix.lower() or "no extension"
            counts[end] = counts.get(end, 0) + 1
    notes = [f"{folder}: {count} file{'s' if count > 1 else ''} ({end}) left out" for end, count in counts.items()]
    if odd:
        notes.append(f"{folder}: {', '.join(odd[:3])} left out: a link that leads nowhere or in a circle")
    return notes


def _listed(leaf: Leaf, section: DataSection, kind: Kind) -> tuple[list[Entry], list[str]]:
    """The items of a `metadata.jsonl`."""
    rows, notes = read_metadata(leaf.folder / METADATA)
    if not rows:
        raise DataError(f"{leaf.folder / METADATA} is empty", expected="one line per item", do="fill it or remove it")
    found = []
    for row in rows:
        path = leaf.folder / row.file_name
        files = {kind.role: path}
        files |= {role: leaf.folder / name for role, name in row.files.items()}
        for role, file in files.items():
            _check_listed(file, role, f"{leaf.folder / METADATA} line {row.line}", kind)
        sidecars = [path.with_suffix(end) for end in section.caption_extensions]
        sidecar = None if "caption" in row.text else next((path for path in sidecars if path.is_file()), None)
        found.append(Entry(leaf, path, files, sidecar, row))
    listing = listing_of(leaf.folder)
    unlisted = set(listing.items(kind.extensions)) - {row.file_name for row in rows}
    said = [f"{leaf.folder}: {len(found)} item{'s' if len(found) != 1 else ''}", *notes]
    if unlisted:
        said.append(f"{leaf.folder}: {len(unlisted)} not named in {METADATA} and left out")
    return found, said


def _check_listed(file: Path, role: str, where: str, kind: Kind) -> None:
    """Raise DataError where a line names a file that is not there or of another kind."""
    if not file.is_file():
        raise DataError(f"{where}: {role} {file.name} does not exist", do="correct that line")
    wanted = kind.extensions if role == kind.role else EXTENSIONS
    if file.suffix.lower() not in wanted:
        raise DataError(
            f"{where}: {file.name} is no {role} by its name",
            expected=f"one of {', '.join(wanted)}",
            do="correct that line",
        )


def refuse_twice(found: Sequence[Entry]) -> None:
    """Raise DataError where one file is reached by two paths."""
    seen: dict[str, Path] = {}
    for entry in found:
        path = entry.path
        real = str(path.resolve())
        if real in seen:
            raise DataError(
                f"{path} was read already as {seen[real]}", expected="each file once", do="give each folder once"
            )
        seen[real] = path
