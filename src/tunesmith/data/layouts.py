"""How folders are organised: a path becomes leaves, folders whose files are items. No torch.

Three layouts: a flat folder, `{repeats}_{concept}` folders given by their parent or themselves, and a folder with a
`metadata.jsonl`, or several of those given by their parent. Whatever else is found is explained, naming the folder
that should have been given.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tunesmith.errors import DataError

METADATA = "metadata.jsonl"
_NUMBERED = re.compile(r"(\d+)_(.*)")
_ROLE_STEM = re.compile(r".+\.(mask|control)", re.IGNORECASE)
MOST_REPEATS = 100_000


@dataclass(frozen=True)
class Leaf:
    """A folder whose own files are items. `concept` is "" where nothing names one.

    `caption` is the caption of items that have none: the text after a number, as kohya's trainer takes it.
    """

    folder: Path
    layout: str
    concept: str = ""
    repeats: int = 1
    caption: str = ""


@dataclass(frozen=True)
class Listing:
    """One folder's entries in natural order, hidden ones left out. `odd`: links that lead nowhere or in a circle."""

    folder: Path
    files: tuple[str, ...]
    folders: tuple[str, ...]
    odd: tuple[str, ...] = ()

    def items(self, extensions: tuple[str, ...]) -> tuple[str, ...]:
        """The names that are items: those with one of `extensions` (any case) that are no mask or control picture."""
        return tuple(
            name
            for name in self.files
            if Path(name).suffix.lower() in extensions and not _ROLE_STEM.fullmatch(Path(name).stem)
        )


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts `2.png` before `10.png`; any two different names differ."""
    pieces = re.split(r"(\d+)", name)
    key = [(0, int(piece), "") if piece.isdecimal() and piece.isascii() else (1, 0, piece.lower()) for piece in pieces]
    return (*key, (2, 0, name))


def listing_of(folder: Path) -> Listing:
    """What is in a folder. Raises DataError, with near names, where it is missing or not readable."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: natural_key(entry.name))
    except FileNotFoundError:
        raise _missing(folder) from None
    except NotADirectoryError:
        raise DataError(f"{folder} is a file", expected="a folder of items", do=f"give {folder.parent}") from None
    except OSError as error:
        raise DataError(f"{folder} cannot be read ({error.strerror})", do="check the folder") from error
    ancestors = {os.path.realpath(folder), *(str(parent) for parent in Path(os.path.realpath(folder)).parents)}
    files: list[str] = []
    folders: list[str] = []
    odd: list[str] = []
    for entry in entries:
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            continue
        try:
            if entry.is_dir():
                circular = entry.is_symlink() and os.path.realpath(entry.path) in ancestors
                (odd if circular else folders).append(entry.name)
            else:
                (files if entry.is_file() else odd).append(entry.name)
        except OSError:  # a link to itself
            odd.append(entry.name)
    return Listing(folder, tuple(files), tuple(folders), tuple(odd))


def leaves_of(
    path: Path, layout: str, *, extensions: tuple[str, ...], concepts: Mapping[str, str]
) -> tuple[tuple[Leaf, ...], tuple[str, ...]]:
    """The leaves under `path` and notes on how it was understood. `layout` is auto, flat, repeats or metadata.

    Raises DataError: missing, empty, one level too deep or too shallow, not of the layout asked for.
    """
    if path.is_file() and path.name == METADATA:
        path = path.parent
    listing = listing_of(path)
    if METADATA in listing.files and layout in ("auto", "metadata"):
        leaf, note = _prepared_leaf(path, concepts)
        return (leaf,), (note,)
    if layout == "metadata":
        raise DataError(
            f"{path} holds no {METADATA}", expected="layout metadata", do="use layout auto, or add the file"
        )
    below = [listing_of(path / name) for name in listing.folders]
    prepared = [child for child in below if layout == "auto" and _is_prepared(child)]
    full = [child for child in below if child in prepared or child.items(extensions)]
    numbered = [child for child in full if _NUMBERED.fullmatch(child.folder.name)]
    own = listing.items(extensions)
    if layout == "flat":
        if not own:
            raise _nothing_here(listing, below, extensions)
        return _one(listing, full, "flat", extensions=extensions, concepts=concepts)
    if full and (not own or (numbered and not _NUMBERED.fullmatch(path.name))):
        return _many(listing, below, prepared, extensions=extensions, concepts=concepts)
    if not own:
        raise _nothing_here(listing, below, extensions)
    return _one(listing, full, layout, extensions=extensions, concepts=concepts)


def concept_named(text: str, concepts: Mapping[str, str]) -> str:
    """The concept a folder's text means: its name or its trigger word, else the text itself."""
    if text in concepts:
        return text
    return next((name for name, trigger in concepts.items() if trigger and trigger == text), text)


def _is_prepared(listing: Listing) -> bool:
    """Whether a folder says by `metadata.jsonl` what its items are; one with a number before its name has files."""
    return METADATA in listing.files and _NUMBERED.fullmatch(listing.folder.name) is None


def _prepared_leaf(folder: Path, concepts: Mapping[str, str]) -> tuple[Leaf, str]:
    concept = concept_named(folder.name, concepts)
    leaf = Leaf(folder, "metadata", concept if concept in concepts else _sole(concepts))
    return leaf, f"{folder}: items and captions from {METADATA}"


def _sole(concepts: Mapping[str, str]) -> str:
    """The concept of items that nothing names: the only one that is taught, if there is one."""
    return next(iter(concepts)) if len(concepts) == 1 else ""


def _numbered_leaf(folder: Path, concepts: Mapping[str, str]) -> tuple[Leaf, str]:
    match = _NUMBERED.fullmatch(folder.name)
    if match is None:
        leaf = Leaf(folder, "repeats", concept_named(folder.name, concepts))
        return leaf, f"{folder}: no number before the name, so 1 repeat"
    repeats, text = int(match[1]), match[2].strip()
    if not 1 <= repeats <= MOST_REPEATS:
        raise DataError(
            f"{folder} asks for {match[1]} repeats",
            expected=f"a number from 1 to {MOST_REPEATS}",
            do="rename the folder",
        )
    return Leaf(folder, "repeats", concept_named(text, concepts), repeats, text), (
        f"{folder}: {repeats} repeat{'s' if repeats > 1 else ''} of {text or 'no concept'!r}, from the folder's name"
    )


def _one(
    listing: Listing, full: list[Listing], layout: str, *, extensions: tuple[str, ...], concepts: Mapping[str, str]
) -> tuple[tuple[Leaf, ...], tuple[str, ...]]:
    """The folder itself as the only leaf."""
    folder = listing.folder
    name = folder.resolve().name
    if layout == "repeats" or (layout == "auto" and _NUMBERED.fullmatch(name)):
        leaf, note = _numbered_leaf(folder, concepts)
    else:
        known = concept_named(name, concepts)
        leaf = Leaf(folder, "flat", known if known in concepts else _sole(concepts))
        note = f"{folder}: a flat folder, each item once an epoch (1 repeat)"
        note += f", concept {leaf.concept!r}" if leaf.concept else ""
    left = [
        f"{child.folder} holds {len(child.items(extensions)) or 'some'} more and was left out: "
        "give it as a path of its own"
        for child in full
    ]
    return (leaf,), (note, *left)


def _many(
    listing: Listing,
    below: list[Listing],
    prepared: list[Listing],
    *,
    extensions: tuple[str, ...],
    concepts: Mapping[str, str],
) -> tuple[tuple[Leaf, ...], tuple[str, ...]]:
    """Every folder below that holds items, one leaf each."""
    leaves, notes = [], []
    for child in below:
        if child in prepared:
            leaf, note = _prepared_leaf(child.folder, concepts)
            leaves.append(leaf)
            notes.append(note)
        elif child.items(extensions):
            leaf, note = _numbered_leaf(child.folder, concepts)
            leaves.append(leaf)
            notes.append(note)
        else:
            notes.append(f"{child.folder} holds no items and was left out")
    stray = len(listing.items(extensions))
    if stray:
        notes.append(f"{stray} item{'s' if stray > 1 else ''} beside the folders in {listing.folder}: left out")
    return tuple(leaves), tuple(notes)


def _missing(folder: Path) -> DataError:
    parent = folder
    while not parent.is_dir() and parent != parent.parent:
        folder, parent = parent, parent.parent
    names = sorted(entry.name for entry in parent.iterdir() if entry.is_dir()) if os.access(parent, os.R_OK) else []
    near = difflib.get_close_matches(folder.name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(str(parent / name) for name in near)}" if near else "check the path"
    return DataError(f"{folder} does not exist", expected="a folder of items", do=hint)


def _nothing_here(listing: Listing, below: list[Listing], extensions: tuple[str, ...]) -> DataError:
    """Why a folder gave no items, naming the folder that would."""
    folder, wanted = listing.folder, f"{', '.join(extensions)} files"
    full = [child.folder for child in below if child.items(extensions)]
    if full:
        return DataError(
            f"{folder} holds no items itself, its sub-folders do", expected=wanted, do=f"give {full[0]}, or layout auto"
        )
    deeper = [
        child.folder for child in below for name in child.folders if _holds_items(child.folder / name, extensions)
    ]
    if deeper:
        return DataError(
            f"{folder} is one level too high: the items are two levels down", expected=wanted, do=f"give {deeper[0]}"
        )
    above = folder.resolve().parent
    if _holds_items(above, extensions):
        return DataError(f"{folder} is one level too deep: it holds no items, {above} does", do=f"give {above}")
    if not listing.files and not listing.folders:
        return DataError(f"{folder} is empty", expected=wanted, do="put the items in, or give another folder")
    kinds = sorted({Path(name).suffix.lower() or "no extension" for name in listing.files})
    found = f"only {', '.join(kinds[:6])}" if kinds else "only folders without any"
    return DataError(
        f"{folder} holds no items, {found}", expected=wanted, do="give another folder, or convert the files"
    )


def _holds_items(folder: Path, extensions: tuple[str, ...]) -> bool:
    try:
        return bool(listing_of(folder).items(extensions))
    except DataError:
        return False
