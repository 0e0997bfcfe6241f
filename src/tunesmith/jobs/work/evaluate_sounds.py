"""The sounds of an evaluation: likeness to the family, copies, variety, leaks, and the sheet of spectrograms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunesmith.data.audio import read_audio, write_audio
from tunesmith.data.item import Item
from tunesmith.evaluation import sounds
from tunesmith.evaluation.report import Measure
from tunesmith.events import Sampled
from tunesmith.generation.sheet import contact_sheet
from tunesmith.generation.spectrogram import spectrogram_picture
from tunesmith.jobs.work.evaluation_bench import SHEET, Bench, Drawn, draw_both

_SHEET_COLUMNS = 6
_MOST_CLIPS = 200
_LONGEST_SECONDS = 60.0


def measure_sounds(bench: Bench, measures: list[Measure], missing: list[str]) -> str | None:
    """Every measure of sounds, and the sheet of spectrograms. Returns the sheet's path."""
    drawn = draw_both(bench)
    if drawn is None:
        missing.append("likeness, copies, leaks and the sheet: no item has a caption")
        return None
    rate = int(drawn.parameters["rate"])
    gathered = bench.opened.gathered
    learnt = _read(gathered.own, rate)
    real = _read(gathered.held_out, rate) if sounds.enough(gathered.held_out) else learnt
    if sounds.enough(real) and sounds.enough(drawn.after):
        others = _read(bench.world, rate)
        sets = sounds.embed_sets(real, learnt, drawn.before, drawn.after, others, rate=rate)
        measures.append(sounds.family_likeness(sets))
        if sounds.enough(others):
            measures.append(sounds.neighbour_distance(sets))
        measures += [sounds.copied_sounds(sets), sounds.variety(sets)]
    else:
        missing.append("likeness, copies and variety: they need three real and three drawn sounds")
    measures.append(sounds.faults(drawn.after, rate))
    if drawn.leaked and drawn.before:
        groups = (drawn.before, drawn.after, drawn.unasked, drawn.leaked)
        measures.append(sounds.trigger_specificity(*(sounds.embeddings(group, rate) for group in groups)))
    else:
        missing.append("leaks: the checkpoint's card names no trigger")
    return _keep(bench, drawn, rate)


def _read(items: Sequence[Item], rate: int) -> list[Any]:
    chosen = items[:_MOST_CLIPS]
    return [read_audio(item.media["audio"].path, rate=rate, seconds=_LONGEST_SECONDS)[0] for item in chosen]


def _keep(bench: Bench, drawn: Drawn, rate: int) -> str:
    """Every sound as a file, and the sheet."""
    results = bench.run.folder.results
    for name, group in (("base", drawn.before), ("checkpoint", drawn.after), ("without_trigger", drawn.leaked)):
        for index, sound in enumerate(group):
            (results / name).mkdir(parents=True, exist_ok=True)
            write_audio(results / name / f"{index:03d}.wav", sound, rate)
    shown = drawn.items[:_SHEET_COLUMNS]
    rows = [_read(shown, rate), drawn.before[:_SHEET_COLUMNS], drawn.after[:_SHEET_COLUMNS]]
    longest = max(sound.shape[1] for row in rows for sound in row) / rate
    pictures = [[spectrogram_picture(sound, rate, seconds=longest) for sound in row] for row in rows]
    sheet = results / SHEET
    contact_sheet(pictures, bench.labels, [item.text["caption"] for item in shown]).save(sheet)
    bench.run.emit(Sampled(0, str(sheet)))
    return str(sheet)
