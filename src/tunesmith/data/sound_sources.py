"""Which sounds lie under some folders, and whose text lies beside them, in credits or a caption. No torch.

`growl.wav.credits.json` is the sidecar of `growl.wav` (as S-NDB-UND writes it, and tunesmith); `growl.txt` or
`growl.caption` its caption.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tunesmith.data.audio import AUDIO_EXTENSIONS
from tunesmith.data.captions import decode_text, read_caption
from tunesmith.data.layouts import Listing, listing_of, natural_key
from tunesmith.data.records import clean_record
from tunesmith.errors import DataError

SIDECAR_END = ".credits.json"
CAPTION_ENDS = (".txt", ".caption")
MOST_BYTES = 1 << 20

Reason = Literal["no_sound", "bad_credits", "no_text", "outside", "unreadable", "silent", "too_large", "same_content"]


@dataclass(frozen=True)
class Source:
    """One sound and what lies beside it; at least one of `sidecar` and `caption` is there."""

    path: Path
    sidecar: Path | None
    caption: Path | None


@dataclass(frozen=True)
class Skipped:
    """A file that cannot be used. `why` groups, `reason` is a sentence about this one."""

    path: Path
    why: Reason
    reason: str


@dataclass(frozen=True)
class Found:
    """The sounds in natural order of each folder, what was left out at once, and notes."""

    sources: tuple[Source, ...]
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]


def utf8_name(name: str | Path) -> str:
    """A file's name with what UTF-8 cannot hold as question marks, fit to be written down."""
    return str(name).encode("utf-8", "replace").decode()


def find_sources(folders: Sequence[Path]) -> Found:
    """Every sound with credits or a caption under `folders`, at any depth; hidden files are left out.

    A folder that is reached twice counts once. Raises DataError, with near names, for a folder that is missing.
    """
    sources: list[Source] = []
    skipped: list[Skipped] = []
    notes: list[str] = []
    tops = [os.path.realpath(folder) for folder in folders]
    seen: set[str] = set()
    for folder in folders:
        for listing in _listings(folder, seen, notes):
            if isinstance(listing, Skipped):
                skipped.append(listing)
                continue
            for entry in _entries(listing):
                checked = entry if isinstance(entry, Skipped) else _leading_out(entry, tops) or entry
                if isinstance(checked, Skipped):
                    skipped.append(checked)
                else:
                    sources.append(checked)
    return Found(tuple(sources), tuple(skipped), tuple(dict.fromkeys(notes)))


def read_credits(path: Path) -> dict[str, Any]:
    """A sidecar's JSON object. Raises DataError: not readable, over 1 MiB, not UTF-8, no JSON object, too deep."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})", do="check the file") from error
    if len(data) > MOST_BYTES:
        raise DataError(f"{path} is over 1 MiB", expected="the credits of one sound")
    try:
        record = json.loads(decode_text(data, str(path)))
    except (ValueError, RecursionError) as error:
        reason = str(error).split(": line")[0] or type(error).__name__
        raise DataError(f"{path} is not JSON ({reason})", expected="one JSON object") from None
    if not isinstance(record, dict):
        raise DataError(f"{path} is no JSON object", expected='{"prompt": …}')
    cleaned: dict[str, Any] = clean_record(record, str(path))
    return cleaned


def text_of(source: Source, record: Mapping[str, Any]) -> str:
    """The prompt of the credits, else the caption; "" where neither says anything. Raises DataError as read_caption."""
    prompt = record.get("prompt")
    if isinstance(prompt, str) and prompt:
        return prompt
    return "" if source.caption is None else read_caption(source.caption)


def hold_sounds_alone(folders: Sequence[Path], pictures: Sequence[str]) -> bool:
    """Whether `folders`, or those in them, hold sounds and no file with an extension of `pictures`, by their names."""
    ends: set[str] = set()
    for folder in folders:
        ends |= _ends(folder, 2)
    return bool(ends & set(AUDIO_EXTENSIONS)) and not ends & set(pictures)


def _ends(folder: Path, levels: int) -> set[str]:
    """Extensions of a folder's files; those that a `metadata.jsonl` names, where there is one."""
    try:
        listing = listing_of(folder)
        if "metadata.jsonl" in listing.files:
            from tunesmith.data.metadata import read_metadata

            rows, _ = read_metadata(folder / "metadata.jsonl")
            return {Path(row.file_name).suffix.lower() for row in rows}
    except DataError:  # whoever reads the folder says what is wrong with it
        return set()
    found = {Path(name).suffix.lower() for name in listing.files}
    return found.union(*(_ends(folder / name, levels - 1) for name in listing.folders)) if levels > 1 else found


def _listings(top: Path, seen: set[str], notes: list[str]) -> Iterator[Listing | Skipped]:
    """`top` and every folder below, each real one once over all calls with the same `seen`."""
    left = [top]
    while left:
        folder = left.pop()
        real = os.path.realpath(folder)
        if real in seen:
            notes.append(f"{utf8_name(folder)} is reached twice; its files count once")
            continue
        seen.add(real)
        try:
            listing = listing_of(folder)
        except DataError as problem:
            if folder == top:
                raise
            yield Skipped(folder, "unreadable", utf8_name(problem.found))
            continue
        yield listing
        left += [folder / name for name in reversed(listing.folders)]


def _entries(listing: Listing) -> list[Source | Skipped]:
    """A folder's sounds in natural order, and the sidecars without one."""
    folder, names = listing.folder, listing.files
    by_lower = {name.lower(): name for name in reversed(names)}
    sidecars = {}
    entries: dict[str, Source | Skipped] = {}
    for name in names:
        if name.lower().endswith(SIDECAR_END):
            sound = name[: -len(SIDECAR_END)]
            found = sound if sound in names else by_lower.get(sound.lower())
            if found is None:
                entries[name] = Skipped(folder / name, "no_sound", f"no {utf8_name(sound) or 'sound'} is beside it")
            else:
                sidecars[found] = folder / name
    for name in names:
        if name not in sidecars and Path(name).suffix.lower() not in AUDIO_EXTENSIONS:
            continue
        stem = Path(name).stem.lower()
        captions = [folder / by_lower[key] for key in (f"{stem}{end}" for end in CAPTION_ENDS) if key in by_lower]
        caption = captions[0] if captions else None
        if name in sidecars or caption is not None:
            entries[name] = Source(folder / name, sidecars.get(name), caption)
        else:
            reason = f"neither {name}{SIDECAR_END} nor {Path(name).stem}.txt is beside it"
            entries[name] = Skipped(folder / name, "no_text", utf8_name(reason))
    return [entries[name] for name in sorted(entries, key=natural_key)]


def _leading_out(source: Source, tops: Sequence[str]) -> Skipped | None:
    """Links may not bring in what lies elsewhere: a text file there could be anything."""
    for path in (source.path, source.sidecar, source.caption):
        if path is not None:
            real = Path(os.path.realpath(path))
            if not any(real.is_relative_to(top) for top in tops):
                said = f"it is a link that leads out of the folders given, to {utf8_name(real)}"
                return Skipped(path, "outside", said)
    return None
