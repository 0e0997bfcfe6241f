"""Sounds with credits or captions become a dataset folder: `audio/`, `metadata.jsonl`, `report.json`. No torch."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.data.audio_formats import RATES
from tunesmith.data.item import Item
from tunesmith.data.layouts import METADATA
from tunesmith.data.order import split
from tunesmith.data.records import clean_record
from tunesmith.data.sound_intake import Intake, Kept, SoundWishes
from tunesmith.data.sound_sources import Skipped, Source, find_sources, utf8_name
from tunesmith.data.whole_folder import clear_leftovers, is_filled, whole_folder
from tunesmith.errors import DataError

REPORT = "report.json"
_OWN = {"audio", METADATA, REPORT}
_LEAST_SHOWN_DB = 0.1
_WHY = {
    "no_sound": "credits without a sound",
    "bad_credits": "credits that cannot be read",
    "no_text": "without a prompt or caption",
    "outside": "links that lead out of the folders",
    "unreadable": "not readable",
    "silent": "silent",
    "too_large": "too long",
    "same_content": "of the same content as another",
}


@dataclass(frozen=True)
class Prepared:
    """What came of it. `held_out` are the `file_name`s of the sounds to measure by."""

    out: Path
    wishes: SoundWishes
    kept: tuple[Kept, ...]
    skipped: tuple[Skipped, ...]
    held_out: frozenset[str]
    notes: tuple[str, ...]

    @property
    def lines(self) -> Iterator[dict[str, Any]]:
        """The records of `metadata.jsonl`."""
        for kept in self.kept:
            line = {
                "file_name": kept.file_name,
                "text": kept.text,
                "family": self.wishes.family,
                **{key: kept.credits.get(key) for key in ("engine", "seed", "created_utc")},
                "seconds": kept.seconds,
                "sha256": kept.sha256,
                "source": kept.source,
                "group": kept.group,
                "split": "held_out" if kept.file_name in self.held_out else "train",
                "credits": dict(kept.credits),
            }
            licence = _licence(kept)
            yield line | ({"licence": licence} if licence else {})

    @property
    def report(self) -> dict[str, Any]:
        """What `report.json` says: what was kept, and what was not, by reason and name."""
        licences = Counter(_licence(kept) for kept in self.kept)
        without = licences.pop("", 0)
        skipped: dict[str, list[dict[str, str]]] = {}
        for one in self.skipped:
            skipped.setdefault(one.why, []).append({"file": utf8_name(one.path), "reason": one.reason})
        return {
            "kind": "tunesmith sounds",
            "family": self.wishes.family,
            "kept": len(self.kept),
            "skipped": skipped,
            "copied": self.wishes.copies,
            "converted": sum(kept.converted for kept in self.kept),
            "seconds": round(sum(kept.seconds for kept in self.kept), 3),
            "licences": dict(sorted(licences.items())),
            "without_licence": without,
            "split": {"train": len(self.kept) - len(self.held_out), "held_out": len(self.held_out)},
            "notes": list(self.notes),
        }

    @property
    def sentences(self) -> tuple[str, ...]:
        """The report for a person."""
        report = self.report
        family = f" of {self.wishes.family!r}" if self.wishes.family else ""
        sounds = f"{len(self.kept)} sound{'s' if len(self.kept) != 1 else ''}"
        licences = [f"{count} {name}" for name, count in report["licences"].items()]
        licences += [f"{report['without_licence']} not stated"] if report["without_licence"] else []
        return (
            f"{sounds}{family}, {report['seconds']:.1f} seconds in all",
            f"{report['split']['train']} to train on, {report['split']['held_out']} held out",
            f"{report['converted']} converted" if self.wishes.copies else "not copied: the lines name the originals",
            f"licences: {', '.join(licences)}",
            *_skipped_sentences(self.skipped),
            *(f"note: {note}" for note in self.notes),
        )


def prepare_sounds(
    sources: Sequence[Path],
    out: Path,
    wishes: SoundWishes,
    *,
    force: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Make the dataset folder `out` of the sounds under `sources`; nothing there is written to.

    `out` appears whole or not at all. `force` replaces an earlier preparation there, and nothing else.
    `on_progress(done, total)` counts sounds looked at. Equal sounds and wishes give equal folders.
    Raises DataError: a missing folder, an `out` that is in use, inside a source or holds one, not one usable sound.
    """
    _check(wishes)
    target = Path(os.path.realpath(out))
    _check_apart(sources, out)
    clear_leftovers(target)
    _check_free(out, target, force=force)
    found = find_sources(sources)
    with whole_folder(target, replace=force) as folder:
        kept, skipped, more = _taken(found.sources, Intake(folder, wishes), on_progress)
        skipped = [*found.skipped, *skipped]
        if not kept:
            raise _nothing(sources, skipped)
        groups = [Item(kept.file_name, {}, {}, kept.group) for kept in kept]
        _, held_out = split(groups, wishes.holdout_fraction, wishes.seed)
        prepared = Prepared(
            out=out,
            wishes=wishes,
            kept=tuple(kept),
            skipped=tuple(skipped),
            held_out=frozenset(item.key for item in held_out),
            notes=(*_notes_on(kept, wishes), *found.notes, *more),
        )
        lines = (json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in prepared.lines)
        (folder / METADATA).write_text("".join(lines), encoding="utf-8", newline="\n")
        document = json.dumps(prepared.report, ensure_ascii=False, indent=2, allow_nan=False)
        (folder / REPORT).write_text(document + "\n", encoding="utf-8", newline="\n")
    return prepared


def _check(wishes: SoundWishes) -> None:
    if wishes.family is not None:
        family = clean_record(wishes.family, "the family")
        if not family or family != wishes.family or len(family) > 100:
            raise DataError(f"the family is {wishes.family!r}", expected="a plain name of 1 to 100 letters")
    if wishes.limit is not None and wishes.limit < 1:
        raise DataError(f"a limit of {wishes.limit} is asked for", expected="at least 1", do="leave it out to keep all")
    if not RATES[0] <= wishes.rate <= RATES[1]:
        raise DataError(f"a rate of {wishes.rate} Hz is asked for", expected=f"{RATES[0]} to {RATES[1]} Hz")


def _check_apart(sources: Sequence[Path], out: Path) -> None:
    """Raise DataError where `out` and a source lie in one another."""
    for source in sources:
        if not source.is_dir():
            continue  # reading it says what is wrong
        if any(parent.exists() and parent.samefile(source) for parent in (out, *Path(os.path.realpath(out)).parents)):
            raise DataError(
                f"{out} lies in {source}, which is read from" if not _same(out, source) else f"{out} is read from",
                expected="a folder of its own",
                do="choose a folder beside it",
            )
        if out.exists() and any(parent.samefile(out) for parent in Path(os.path.realpath(source)).parents):
            raise DataError(f"{source} lies in {out}", expected="a folder of its own", do="choose another one for out")


def _same(one: Path, other: Path) -> bool:
    return one.exists() and one.samefile(other)


def _check_free(out: Path, target: Path, *, force: bool) -> None:
    """Raise DataError where something stands at `out` that may not be replaced."""
    if target.exists() and not target.is_dir():
        raise DataError(f"{out} is a file", expected="a new folder", do="choose another name")
    if target.is_dir() and Path(os.path.realpath(".")).is_relative_to(target):
        raise DataError(f"{out} is the folder you are in", expected="a new folder", do="name one inside it")
    if not is_filled(target):
        return
    strange = _strange(target)
    if strange:
        raise DataError(
            f"{out} is not empty, and not as a preparation leaves it ({_shown(strange)})",
            expected="a new folder",
            do="choose another name",
        )
    if not force:
        raise DataError(
            f"{out} holds an earlier preparation",
            expected="a new folder",
            do="replace it with --force, or choose another name",
        )


def _strange(folder: Path) -> list[str]:
    """What a preparation did not put into a folder, by name; hidden files aside. S-NDB-UND's count as well."""
    seen = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    strange = [name for name in seen if name not in _OWN]
    try:
        lines = [json.loads(line) for line in (folder / METADATA).read_bytes().splitlines() if line.strip()]
        made = {str(line["file_name"]).replace("\\", "/") for line in lines}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return strange or [f"without a {METADATA}"]
    inside = sorted(path for path in (folder / "audio").rglob("*") if not path.name.startswith("."))
    return strange + [name for path in inside if (name := path.relative_to(folder).as_posix()) not in made]


def _taken(
    sources: Sequence[Source], intake: Intake, on_progress: Callable[[int, int], None] | None
) -> tuple[list[Kept], list[Skipped], list[str]]:
    """What was kept and what was not, up to the limit, and a note where that was reached."""
    kept: list[Kept] = []
    skipped: list[Skipped] = []
    for done, source in enumerate(sources, start=1):
        result = intake.take(source)
        if isinstance(result, Kept):
            kept.append(result)
        else:
            skipped.append(result)
        if on_progress is not None:
            on_progress(done, len(sources))
        if len(kept) == intake.wishes.limit and done < len(sources):
            note = f"the limit of {len(kept)} was reached; {len(sources) - done} more were not looked at"
            return kept, skipped, [note]
    return kept, skipped, []


def _notes_on(kept: Sequence[Kept], wishes: SoundWishes) -> Iterator[str]:
    """What was done beyond what was asked for, and credits that name another family."""
    if wishes.convert_to_wav and not wishes.copy_audio:
        yield "converting makes copies, so all sounds were copied"
    quieter = [one for one in kept if one.quieter_db >= _LEAST_SHOWN_DB]
    if quieter:
        names = [f"{one.file_name} ({one.quieter_db:.1f} dB)" for one in quieter]
        yield f"{len(quieter)} went beyond full scale and were turned down: {_shown(names)}"
    others = Counter(str(one.credits["family"]) for one in kept if one.credits.get("family"))
    others.pop(wishes.family or "", None)
    if others and wishes.family:
        said = ", ".join(f"{count} {name!r}" for name, count in others.most_common(3))
        yield f"by their credits some are of another family: {said}"


def _nothing(sources: Sequence[Path], skipped: Sequence[Skipped]) -> DataError:
    """Not one sound could be used."""
    where = " and ".join(str(source) for source in sources[:3])
    if not skipped:
        return DataError(
            f"{where} holds no sounds",
            expected="sounds with <file>.credits.json or a .txt caption of the same name beside them",
            do="give another folder",
        )
    return DataError(
        f"nothing under {where} can be used: {'; '.join(_skipped_sentences(skipped))}",
        expected="sounds with <file>.credits.json or a .txt caption of the same name beside them",
    )


def _skipped_sentences(skipped: Sequence[Skipped]) -> Iterator[str]:
    for why, words in _WHY.items():
        some = [one for one in skipped if one.why == why]
        if some:
            named = [f"{utf8_name(one.path.name)} ({one.reason})" for one in some]
            yield f"{len(some)} left out, {words}: {_shown(named)}"


def _shown(words: Sequence[str]) -> str:
    return ", ".join(words[:3]) + (f" and {len(words) - 3} more" if len(words) > 3 else "")


def _licence(kept: Kept) -> str:
    """The terms that the credits state, in either spelling, as one text; our own tell those of base and items apart."""
    return "; ".join(dict.fromkeys(_terms(kept.credits.get("licence") or kept.credits.get("license"))))


def _terms(value: Any) -> Iterator[str]:
    if isinstance(value, str) and value:
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _terms(inner)
