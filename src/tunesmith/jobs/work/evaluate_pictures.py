"""The pictures of an evaluation: copies, leaks, and the sheet real / base / checkpoint."""

from __future__ import annotations

from PIL import Image, ImageOps

from tunesmith.data.item import Item
from tunesmith.evaluation.likeness import find_copies, moved_towards
from tunesmith.evaluation.report import Measure, memorisation, specificity
from tunesmith.events import Sampled
from tunesmith.generation.sheet import contact_sheet
from tunesmith.jobs.work.evaluation_bench import SHEET, Bench, draw_both

_SHEET_COLUMNS = 8
_MOST_TRAINING_PICTURES = 500
_SHOWN_PIXELS = 512


def measure_pictures(bench: Bench, measures: list[Measure], missing: list[str]) -> str | None:
    """Copies and leaks, and the sheet. Returns the sheet's path."""
    drawn = draw_both(bench)
    if drawn is None:
        missing.append("copies, leaks and the sheet: no item has a caption")
        return None
    training = [_picture(item) for item in bench.opened.gathered.own[:_MOST_TRAINING_PICTURES]]
    if len(training) > 1:
        measures.append(memorisation(find_copies(drawn.after, training)))
    else:
        missing.append("copies: one training picture alone does not say how far apart pictures are")
    real = [_picture(item) for item in drawn.items]
    if not (drawn.leaked and drawn.before):
        missing.append("leaks: the checkpoint's card names no trigger")
    elif (asked := moved_towards(real, drawn.before, drawn.after)) > 0:
        measures.append(specificity(asked, moved_towards(real, drawn.unasked, drawn.leaked)))
    else:
        missing.append(
            "leaks: with its trigger, too, the checkpoint draws nothing nearer to the real pictures than the base"
        )
    results = bench.run.folder.results
    for name, pictures in (("base", drawn.before), ("checkpoint", drawn.after), ("without_trigger", drawn.leaked)):
        for index, picture in enumerate(pictures):
            path = results / name / f"{index:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
    shown = drawn.items[:_SHEET_COLUMNS]
    rows = [real[:_SHEET_COLUMNS], drawn.before[:_SHEET_COLUMNS], drawn.after[:_SHEET_COLUMNS]]
    sheet = results / SHEET
    contact_sheet(rows, bench.labels, [item.text["caption"] for item in shown]).save(sheet)
    bench.run.emit(Sampled(0, str(sheet)))
    return str(sheet)


def _picture(item: Item) -> Image.Image:
    """The item's picture, small enough to hold many."""
    with Image.open(item.media["image"].path) as picture:
        shown = ImageOps.exif_transpose(picture).convert("RGB")
        shown.thumbnail((_SHOWN_PIXELS, _SHOWN_PIXELS))
        return shown
