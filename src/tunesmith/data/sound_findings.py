"""What is worth knowing about sounds before they are trained on: the checks that need to hear them. No torch.

Beside `findings.examine`, which counts items and looks at captions, triggers and equal files whatever the medium; none
of that is repeated here. One function per check, all in `SOUND_CHECKS`; each looks at a `Listening`.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunesmith.data.audio import read_audio
from tunesmith.data.findings import Finding
from tunesmith.data.item import Item
from tunesmith.data.sound_credits import heavy_steps
from tunesmith.errors import DataError

if TYPE_CHECKING:
    from tunesmith.numeric.clips import ClipMeasures, Fingerprint

SILENT_PEAK = 0.001  # -60 dBFS
MOST_DC = 0.01
SHORTEST_SECONDS = 0.1
SMALLEST_WINDOW_SHARE = 0.1
LOUDNESS_APART = 10.0
ALIKE = 0.25  # codecs, rates and small cuts stay below 0.15, two takes above 0.3
VOCAL_SECONDS = (0.6, 2.5)
VOCAL_COUNT = (50, 200)
HEARD_SECONDS = 120.0


@dataclass(frozen=True)
class Heard:
    """One sound as it was found: measured, or with the `problem` that kept it from being read."""

    item: Item
    seconds: float
    measures: ClipMeasures | None = None
    fingerprint: Fingerprint | None = None
    problem: str = ""

    @property
    def name(self) -> str:
        """The file's name."""
        return self.item.media["audio"].path.name

    @property
    def is_silent(self) -> bool:
        """Whether nothing in it reaches -60 dBFS."""
        return self.measures is not None and self.measures.peak < SILENT_PEAK


@dataclass(frozen=True)
class Listening:
    """What the checks look at. `rate` in Hz is the engine's, `window_seconds` is trained at; None: unknown."""

    sounds: tuple[Heard, ...]
    rate: int | None
    window_seconds: float | None
    vocal: bool

    @property
    def audible(self) -> tuple[tuple[Heard, ClipMeasures], ...]:
        """The sounds that can be read and are not silent, with their measures."""
        return tuple(
            (sound, sound.measures) for sound in self.sounds if sound.measures is not None and not sound.is_silent
        )


def examine_sounds(
    items: Sequence[Item],
    *,
    rate: int | None = None,
    window_seconds: float | None = None,
    vocal: bool = True,
    read: Callable[..., tuple[Any, int]] = read_audio,
) -> tuple[Finding, ...]:
    """Every finding about the items' sounds, worst first; each file is read once, at most its first two minutes.

    `vocal` adds the usual lengths and counts of creature voices. Prior items and items without a sound are left out.
    `read(path, seconds=…)` gives (float samples [channels, samples], rate), or raises DataError.
    """
    sounds = tuple(_heard(item, read) for item in items if "audio" in item.media and not item.prior)
    listening = Listening(sounds, rate, window_seconds, vocal)
    rank = {"error": 0, "warning": 1, "note": 2}
    found = (finding for check in SOUND_CHECKS for finding in check(listening))
    return tuple(sorted(found, key=lambda finding: rank[finding.severity]))


def _heard(item: Item, read: Callable[..., tuple[Any, int]]) -> Heard:
    from tunesmith.numeric.clips import fingerprint, measure_clip

    file = item.media["audio"]
    known = float(file.facts.get("seconds", 0.0))
    try:
        samples, rate = read(file.path, seconds=HEARD_SECONDS)
        measures = measure_clip(samples, rate)
        return Heard(item, known or measures.seconds, measures, fingerprint(samples, rate))
    except DataError as problem:
        return Heard(item, known, problem=problem.found)


def _names(sounds: Sequence[Heard]) -> tuple[str, ...]:
    return tuple(sound.name for sound in sounds)


def _shown(words: Sequence[str]) -> str:
    return ", ".join(words[:3]) + (f" and {len(words) - 3} more" if len(words) > 3 else "")


def unreadable(seen: Listening) -> Iterator[Finding]:
    """Files that cannot be decoded."""
    sounds = [sound for sound in seen.sounds if sound.problem]
    if sounds:
        yield Finding(
            "error",
            "unreadable",
            f"{len(sounds)} of {len(seen.sounds)} sounds cannot be read: {_shown([one.problem for one in sounds])}",
            "replace or remove them",
            _names(sounds),
        )


def silent(seen: Listening) -> Iterator[Finding]:
    """Files without sound: their captions teach silence."""
    names = _names([sound for sound in seen.sounds if sound.is_silent])
    if names:
        yield Finding(
            "warning",
            "silent",
            f"{len(names)} silent, below -60 dBFS throughout: {_shown(names)}",
            "remove or replace them",
            names,
        )


def clipped(seen: Listening) -> Iterator[Finding]:
    """Samples in a row at full scale: the distortion is learnt."""
    sounds = [(sound, measures.clipped_runs) for sound, measures in seen.audible if measures.clipped_runs]
    if sounds:
        shown = _shown([f"{sound.name} ({runs} time{'s' if runs > 1 else ''})" for sound, runs in sounds])
        yield Finding(
            "warning",
            "clipped",
            f"{len(sounds)} clipped, three or more samples in a row at full scale: {shown}",
            "use recordings with headroom; making them quieter does not undo it",
            _names([sound for sound, _ in sounds]),
        )


def dc_offset(seen: Listening) -> Iterator[Finding]:
    """A mean away from 0: every cut clicks, and headroom is lost."""
    sounds = [(sound, measures.dc_offset) for sound, measures in seen.audible if abs(measures.dc_offset) > MOST_DC]
    if sounds:
        yield Finding(
            "warning",
            "dc_offset",
            f"{len(sounds)} off centre: {_shown([f'{sound.name} ({mean:+.3f})' for sound, mean in sounds])}",
            "high-pass them at 20 Hz",
            _names([sound for sound, _ in sounds]),
        )


def rates(seen: Listening) -> Iterator[Finding]:
    """Rates below the engine's (dull), above it (only resampled), or, where that is not known, several of them."""
    counts = Counter(measures.rate for _, measures in seen.audible)
    if seen.rate is None:
        if len(counts) > 1:
            said = ", ".join(f"{count} at {rate} Hz" for rate, count in counts.most_common())
            yield Finding("note", "rates_differ", f"the rates differ: {said}", "prefer one source, or the highest rate")
        return
    low = [(sound, measures) for sound, measures in seen.audible if measures.rate < seen.rate]
    if low:
        yield Finding(
            "warning",
            "rate_low",
            f"{len(low)} with less than {seen.rate} Hz, so with nothing above half of theirs: "
            + _shown([f"{sound.name} ({measures.rate} Hz)" for sound, measures in low]),
            "use recordings of the full rate: with these the model learns to sound dull",
            _names([sound for sound, _ in low]),
        )
    high = _names([sound for sound, measures in seen.audible if measures.rate > seen.rate])
    if high:
        yield Finding("note", "rate_high", f"{len(high)} to be resampled to {seen.rate} Hz: {_shown(high)}", "", high)


def too_short(seen: Listening) -> Iterator[Finding]:
    """Clips too short to hold anything, or so short that a window is mostly padding."""
    least = max(SHORTEST_SECONDS, SMALLEST_WINDOW_SHARE * (seen.window_seconds or 0.0))
    names = _names([sound for sound, _ in seen.audible if sound.seconds < least])
    if names:
        window = f" in a window of {seen.window_seconds:g} s" if seen.window_seconds else ""
        yield Finding(
            "warning",
            "too_short",
            f"{len(names)} shorter than {least:.3g} s{window}: {_shown(names)}",
            "choose a shorter window, or remove them" if window else "remove them",
            names,
        )


def too_long(seen: Listening) -> Iterator[Finding]:
    """Clips longer than the window: each visit shows a piece, and the caption may be about another."""
    if seen.window_seconds is None:
        return
    names = _names([sound for sound, _ in seen.audible if sound.seconds > seen.window_seconds])
    if names:
        yield Finding(
            "warning",
            "too_long",
            f"{len(names)} longer than the window of {seen.window_seconds:g} s: {_shown(names)}",
            "cut them at pauses, or choose a longer window",
            names,
        )


def near_duplicates(seen: Listening) -> Iterator[Finding]:
    """One recording in several files, at another level, in another format or slightly cut."""
    from tunesmith.numeric.clips import closest_pairs

    sounds = [(sound, sound.fingerprint) for sound, _ in seen.audible if sound.fingerprint is not None]
    group = list(range(len(sounds)))
    for i, j, _ in closest_pairs([one for _, one in sounds], ALIKE):
        keep, drop = sorted((group[i], group[j]))
        group = [keep if at == drop else at for at in group]
    for first in sorted(set(group)):
        alike = [sound for (sound, _), at in zip(sounds, group, strict=True) if at == first]
        if len({sound.item.media["audio"].sha256 for sound in alike}) > 1:
            names = _names(alike)
            yield Finding(
                "warning",
                "near_duplicate",
                f"nearly the same sound {len(alike)} times: {_shown(names)}",
                "keep the best of them: it counts several times, and may stand on both sides of the split",
                names,
            )


def loudness_outliers(seen: Listening) -> Iterator[Finding]:
    """Clips far louder or quieter than most."""
    levels = [(sound, measures.loudness_lufs) for sound, measures in seen.audible]
    levels = [(sound, level) for sound, level in levels if math.isfinite(level)]
    if len(levels) < 4:
        return
    middle = statistics.median(level for _, level in levels)
    far = [(sound, level) for sound, level in levels if abs(level - middle) > LOUDNESS_APART]
    if far:
        yield Finding(
            "warning",
            "loudness_outlier",
            f"{len(far)} over {LOUDNESS_APART:g} LU from the median of {middle:.0f} LUFS: "
            + _shown([f"{sound.name} ({level:.0f})" for sound, level in far]),
            "bring them to a like level, or say in the caption what is quiet or distant",
            _names([sound for sound, _ in far]),
        )


def processed(seen: Listening) -> Iterator[Finding]:
    """Sources that were polished, denoised or compressed: that is learnt, and applied again after generation."""
    marked = [(sound, heavy_steps(sound.item)) for sound in seen.sounds]
    marked = [(sound, marks) for sound, marks in marked if marks]
    if marked:
        every = sorted({mark for _, marks in marked for mark in marks})
        names = _names([sound for sound, _ in marked])
        yield Finding(
            "warning",
            "processed",
            f"{len(marked)} heavily processed by their credits ({_shown(every)}): {_shown(names)}",
            "take the dry versions: heavy polish bakes in",
            names,
        )


def vocal_lengths(seen: Listening) -> Iterator[Finding]:
    """Vocalisations shorter or longer than is usual for one call."""
    low, high = VOCAL_SECONDS
    names = _names([sound for sound, _ in seen.audible if not low <= sound.seconds <= high])
    if seen.vocal and names:
        yield Finding(
            "note",
            "vocal_length",
            f"{len(names)} shorter than {low:g} s or longer than {high:g} s, unlike single calls: {_shown(names)}",
            "one call a clip works best",
            names,
        )


def vocal_counts(seen: Listening) -> Iterator[Finding]:
    """Fewer or more clips of one voice than is usual."""
    low, high = VOCAL_COUNT
    counts = Counter(sound.item.concept for sound, _ in seen.audible)
    for concept, count in sorted(counts.items()):
        if seen.vocal and not low <= count <= high:
            yield Finding(
                "note",
                "vocal_count",
                f"{count} clips{f' of {concept!r}' if concept else ''}; {low} to {high} of one voice are usual",
                "add takes, or train shorter" if count < low else "keep the best ones",
                (concept,) if concept else (),
            )


SOUND_CHECKS: tuple[Callable[[Listening], Iterator[Finding]], ...] = (
    unreadable,
    silent,
    clipped,
    dc_offset,
    rates,
    too_short,
    too_long,
    near_duplicates,
    loudness_outliers,
    processed,
    vocal_lengths,
    vocal_counts,
)
