"""One sound after the other is looked at, and taken into a dataset where it can be used. No torch."""

from __future__ import annotations

import hashlib
import math
import os
import re
import shutil
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.data.audio import AUDIO_EXTENSIONS, read_audio, read_audio_header
from tunesmith.data.audio_writing import write_audio
from tunesmith.data.sound_findings import SILENT_PEAK
from tunesmith.data.sound_sources import Reason, Skipped, Source, read_credits, text_of, utf8_name
from tunesmith.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_SAMPLES = 1 << 27  # of all channels, at the higher of two rates: 25 minutes of 44.1 kHz stereo, half a GiB
_PCM = ("PCM_U8", "PCM_S8", "PCM_16", "PCM_24", "PCM_32")
_DEEP = ("PCM_24", "PCM_32", "FLOAT", "DOUBLE")  # more than 16 bits: kept as 24
_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f<>:"/\\|?*]')
_FAMILY_BYTES, _STEM_BYTES = 60, 120


@dataclass(frozen=True)
class SoundWishes:
    """What `prepare_sounds` is asked for. `rate` in Hz and `channels` (None: as many as there are) of converted sounds.

    `copy_audio` copies the sounds into the dataset, else its lines point at them. `convert_to_wav` makes PCM WAV of all
    that are not yet, and implies copying. `limit` counts sounds that are kept.
    """

    family: str | None = None
    copy_audio: bool = False
    convert_to_wav: bool = False
    limit: int | None = None
    rate: int = 44_100
    channels: int | None = None
    holdout_fraction: float = 0.1
    seed: int = 0

    @property
    def copies(self) -> bool:
        """Whether the dataset holds the sounds themselves."""
        return self.copy_audio or self.convert_to_wav


@dataclass(frozen=True)
class Kept:
    """One sound of the dataset. `sha256` is of the file that `file_name` names; `group` may not be split."""

    file_name: str
    text: str
    credits: Mapping[str, Any]
    seconds: float
    sha256: str
    source: str
    group: str
    converted: bool = False
    quieter_db: float = 0.0


@dataclass(frozen=True)
class _Sound:
    samples: NDArray[np.float32]
    rate: int
    subtype: str
    converted: bool


@dataclass(frozen=True)
class Intake:
    """Takes sounds into `folder`, knowing those it took before; never two of one content or one name."""

    folder: Path
    wishes: SoundWishes
    by_hash: dict[str, Path] = field(default_factory=dict)
    groups: dict[tuple[Path, str], str] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)

    def take(self, source: Source) -> Kept | Skipped:
        """Look at a sound, and take it in if it can be used. Raises OSError where the dataset cannot be written."""
        why: Reason = "bad_credits"
        try:
            record = {} if source.sidecar is None else read_credits(source.sidecar)
            why = "no_text"
            text = text_of(source, record)
            if not text:
                return Skipped(source.path, why, _textless(source, record))
            why = "unreadable"
            real = os.path.realpath(source.path)
            if utf8_name(real) != real:
                return Skipped(source.path, why, "its path is not UTF-8: rename it")
            if not self.wishes.convert_to_wav and source.path.suffix.lower() not in AUDIO_EXTENSIONS:
                said = f"{source.path.name} does not end as a sound does: rename it, or convert it to WAV"
                return Skipped(source.path, why, said)
            hashed = _hash(source.path)
            if hashed in self.by_hash:
                said = f"the same content as {utf8_name(self.by_hash[hashed])}, which was kept"
                return Skipped(source.path, "same_content", said)
            header = read_audio_header(source.path)
            if self._size(header) > MOST_SAMPLES:
                return Skipped(source.path, "too_large", f"{header['seconds']:.0f} seconds are too long: cut it first")
            sound = self._decoded(source.path, header)
        except DataError as problem:
            return Skipped(source.path, why, utf8_name(problem.found.replace(f"{source.path.parent}{os.sep}", "")))
        if float(abs(sound.samples).max()) < SILENT_PEAK:
            return Skipped(source.path, "silent", "it is silent: nothing in it reaches -60 dBFS")
        name = self._placed(source.path, hashed) if self.wishes.copies else Path(real).as_posix()
        quieter = self._written(sound, source.path, self.folder / name) if self.wishes.copies else 0.0
        self.by_hash[hashed] = source.path
        return Kept(
            file_name=name,
            text=text,
            credits=record,
            seconds=round(sound.samples.shape[1] / sound.rate, 6),
            sha256=_hash(self.folder / name) if self.wishes.copies else hashed,
            source=real,
            group=self.groups.setdefault((source.path.parent, source.path.stem.lower()), hashed),
            converted=sound.converted,
            quieter_db=quieter,
        )

    def _size(self, header: Mapping[str, Any]) -> float:
        rate = max(header["rate"], self.wishes.rate if self.wishes.convert_to_wav else 0)
        return float(header["seconds"] * rate * header["channels"])

    def _decoded(self, path: Path, header: Mapping[str, Any]) -> _Sound:
        """The whole sound, as it will be kept: a damaged file is found even where it is only pointed at."""
        wishes, subtype = self.wishes, str(header["subtype"])
        fits = header["rate"] == wishes.rate and wishes.channels in (None, header["channels"])
        if not wishes.convert_to_wav or (header["format"] == "WAV" and subtype in _PCM and fits):
            samples, rate = read_audio(path)
            return _Sound(samples, rate, subtype, converted=False)
        samples, rate = read_audio(path, rate=wishes.rate, channels=wishes.channels)
        return _Sound(samples, rate, "PCM_24" if subtype in _DEEP else "PCM_16", converted=True)

    def _placed(self, path: Path, hashed: str) -> str:
        """A copy's `file_name`, which no other sound has."""
        start = f"{safe_name(self.wishes.family, _FAMILY_BYTES)}__" if self.wishes.family else ""
        stem = start + safe_name(path.stem, _STEM_BYTES)
        end = ".wav" if self.wishes.convert_to_wav else path.suffix
        ways = chain(("", f"-{hashed[:8]}"), (f"-{hashed[:8]}-{at}" for at in count(2)))
        name = next(name for way in ways if (name := f"{stem}{way}{end}").casefold() not in self.names)
        self.names.add(name.casefold())  # two names that differ in case alone are one file elsewhere
        return f"audio/{name}"

    def _written(self, sound: _Sound, path: Path, target: Path) -> float:
        """Copy or write the sound; returns by how many dB it was turned down to fit."""
        target.parent.mkdir(exist_ok=True)
        if not sound.converted:
            shutil.copyfile(path, target)
            return 0.0
        peak = float(abs(sound.samples).max())
        write_audio(target, sound.samples / max(1.0, peak), sound.rate, subtype=sound.subtype)
        return 20.0 * math.log10(max(1.0, peak))


def safe_name(text: str, most_bytes: int) -> str:
    """`text` as a part of a file name that every system takes."""
    plain = _UNSAFE.sub("_", unicodedata.normalize("NFC", utf8_name(text)))
    return plain.encode()[:most_bytes].decode(errors="ignore").strip(" .") or "sound"


def _hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})", do="check the file") from error


def _textless(source: Source, record: Mapping[str, Any]) -> str:
    if source.sidecar is None:
        return "its caption is empty"
    said = "prompt is no text" if record.get("prompt") not in (None, "") else "prompt is empty"
    return f"its {said if 'prompt' in record else 'credits hold no prompt'}"
