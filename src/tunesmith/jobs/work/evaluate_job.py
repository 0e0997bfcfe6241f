"""A job of kind `evaluate`: a checkpoint against its base, by losses and by what both draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image, ImageOps

from tunesmith.adapters.files import read_adapter
from tunesmith.data.cache import Cache
from tunesmith.data.item import Item
from tunesmith.engines.protocol import Base, Media
from tunesmith.evaluation.likeness import find_copies, mean_change
from tunesmith.evaluation.report import Measure, Report, forgetting, gain, memorisation, specificity, without_words
from tunesmith.events import Sampled
from tunesmith.generation.session import Attachment, Session, open_session
from tunesmith.generation.sheet import contact_sheet
from tunesmith.jobs.evaluating import REPORT
from tunesmith.jobs.items import Gathered, gather
from tunesmith.jobs.work.encoding import fill_cache
from tunesmith.jobs.work.opening import Opened, accept, open_job
from tunesmith.jobs.work.previews import request_for
from tunesmith.jobs.work.run import Run
from tunesmith.numeric.measures import fall_interval
from tunesmith.recipe.schema import BaseSection
from tunesmith.training.device import Precision, choose_device, choose_precision, set_threads
from tunesmith.training.encode import CachedReader
from tunesmith.training.holdout import Holdout
from tunesmith.training.prepare import prepare
from tunesmith.weights.atomic import write_json

SHEET = "sheet.png"
_SHEET_COLUMNS = 8
_MOST_TRAINING_PICTURES = 500
_SHOWN_PIXELS = 512


@dataclass(frozen=True)
class Asked:
    """What the manifest's details ask for beyond the recipe.

    `base` is how to open what it was trained from, None where that was nothing; `words` are its triggers; `world` are
    folders of items the checkpoint should not have changed; `pictures` how many prompts are drawn; `request` knobs of
    the generation request, such as guidance.
    """

    checkpoint: str
    base: dict[str, Any] | None = None
    words: tuple[str, ...] = ()
    world: tuple[str, ...] = ()
    pictures: int = 24
    request: dict[str, Any] | None = None


@dataclass(frozen=True)
class _Bench:
    """What every measure needs. `opened.base` is the checkpoint's; `plain` is the base without the checkpoint."""

    run: Run
    opened: Opened
    asked: Asked
    cache: Cache
    device: torch.device
    precision: Precision
    world: tuple[Item, ...]
    plain: Base | None


def do_evaluate(run: Run) -> None:
    """Encode, measure losses with and without the checkpoint, draw with and without, and write report and sheet."""
    details = dict(run.folder.manifest()["details"])
    details |= {"words": tuple(details["words"]), "world": tuple(details["world"])}
    asked = Asked(**details)
    with run.phase("plan"):
        opened = open_job(run)
        accept(run.folder, opened)
    device = choose_device(opened.recipe.resources)
    precision = choose_precision(opened.recipe.resources, device, opened.settled.method)
    set_threads(opened.recipe.resources.threads, device)
    world = _world(run, opened, asked)
    measured = Gathered((), (*opened.gathered.held_out, *world))
    cache = fill_cache(run, opened.engine, opened.base, recipe=opened.settled, gathered=measured, device=device)
    bench = _Bench(run, opened, asked, cache, device, precision, world, _plain_base(opened, asked))
    measures: list[Measure] = []
    missing: list[str] = []
    with run.phase("losses"):
        _measure_losses(bench, measures, missing)
        run.check_stop()
    with run.phase("pictures"):
        sheet = _measure_pictures(bench, measures, missing)
    report = Report(asked.checkpoint, tuple(measures), tuple(missing), sheet)
    write_json(run.folder.results / REPORT, report.to_json())


def _world(run: Run, opened: Opened, asked: Asked) -> tuple[Item, ...]:
    """Items of the base's own world: those named, or the prior items it was trained with."""
    if not asked.world:
        return opened.gathered.prior
    data = replace(
        opened.settled.data, paths=asked.world, holdout_fraction=0.0, holdout_paths=(), prior="none", prior_paths=()
    )
    recipe = replace(opened.settled, data=data, output=replace(opened.settled.output, concepts={}))
    return gather(recipe, opened.engine, home=run.folder.home).training


def _plain_base(opened: Opened, asked: Asked) -> Base | None:
    """What the checkpoint was trained from; None where that was nothing."""
    if opened.init_adapter is not None:
        return opened.base
    return opened.engine.open(BaseSection(**asked.base)) if asked.base is not None else None


# ---------------------------------------------------------------- losses


def _measure_losses(bench: _Bench, measures: list[Measure], missing: list[str]) -> None:
    own, world = bench.opened.gathered.held_out, bench.world
    if not own:
        missing.append("concept gain: nothing is held out; name other items of the concept with --data")
    if not world:
        missing.append("forgetting: there are no prior items; name items of the base's world with --world")
    if not own and not world:
        return
    if bench.plain is None:
        missing.append("concept gain and forgetting: trained from scratch, so there is no base to compare with")
        return
    before, after = (_losses(bench, (own, world), tuned=tuned) for tuned in (False, True))
    if own:
        measures.append(gain(fall_interval(before[: len(own)], after[: len(own)]), len(own)))
    if world:
        measures.append(forgetting(fall_interval(before[len(own) :], after[len(own) :]), len(before) - len(own)))


def _losses(bench: _Bench, groups: Sequence[Sequence[Item]], *, tuned: bool) -> list[float]:
    """Items' losses, group after group, over noise and timesteps that are the same with and without the checkpoint."""
    opened, engine = bench.opened, bench.opened.engine
    base = opened.base if tuned else bench.plain
    assert base is not None
    model = engine.load_model(base, opened.settled, bench.device, bench.precision.dtype)
    if tuned and opened.init_adapter is not None:
        adapter = read_adapter(opened.init_adapter, engine.layouts, opened.base)
        prepare(engine, model, recipe=opened.settled, init=adapter)
    reader = CachedReader(engine, opened.base, recipe=opened.settled, cache=bench.cache)
    found: list[float] = []
    for items in groups:
        if items:
            held = Holdout(engine, model, recipe=opened.settled, items=items, reader=reader, precision=bench.precision)
            found += held.item_losses(bench.device)
    return found


# ---------------------------------------------------------------- pictures


def _measure_pictures(bench: _Bench, measures: list[Measure], missing: list[str]) -> str | None:
    """Copies and leaks, and the sheet real / base / checkpoint. Returns the sheet's path."""
    opened, asked, run = bench.opened, bench.asked, bench.run
    items = [item for item in (*opened.gathered.held_out, *opened.gathered.own) if item.text.get("caption")]
    if "image" not in opened.engine.facts.media or not items:
        missing.append("copies, leaks and the sheet: " + ("no item has a caption" if items else "there are no items"))
        return None
    shown = [items[index % len(items)] for index in range(min(asked.pictures, len(items)))]
    prompts = [item.text["caption"] for item in shown]
    bare = [without_words(prompt, asked.words) for prompt in prompts] if asked.words else []
    after, leaked = _draw(bench, (prompts, bare), tuned=True)
    before, unasked = _draw(bench, (prompts, bare), tuned=False) if bench.plain is not None else ([], [])
    training = [_picture(item) for item in opened.gathered.own[:_MOST_TRAINING_PICTURES]]
    if len(training) > 1:
        measures.append(memorisation(find_copies(after, training)))
    else:
        missing.append("copies: one training picture alone does not say how far apart pictures are")
    if asked.words and before:
        measures.append(specificity(mean_change(before, after), mean_change(unasked, leaked)))
    else:
        missing.append("leaks: the checkpoint's card names no trigger")
    for name, pictures in (("base", before), ("checkpoint", after), ("without_trigger", leaked)):
        for index, picture in enumerate(pictures):
            path = run.folder.results / name / f"{index:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
    rows = [[_picture(item) for item in shown[:_SHEET_COLUMNS]], before[:_SHEET_COLUMNS], after[:_SHEET_COLUMNS]]
    sheet = run.folder.results / SHEET
    contact_sheet(rows, ("real", "base", opened.recipe.output.name), prompts[:_SHEET_COLUMNS]).save(sheet)
    run.emit(Sampled(0, str(sheet)))
    return str(sheet)


def _draw(
    bench: _Bench, groups: Sequence[Sequence[str]], *, tuned: bool
) -> tuple[list[Image.Image], list[Image.Image]]:
    """Pictures of both groups of prompts; picture i of a group has the same seed with and without the checkpoint."""
    opened = bench.opened
    base = opened.base if tuned else bench.plain
    assert base is not None
    attachments: tuple[Attachment, ...] = ()
    if tuned and opened.init_adapter is not None:
        adapter = read_adapter(opened.init_adapter, opened.engine.layouts, opened.base)
        attachments = (Attachment(adapter),)
    session = open_session(
        opened.engine, base, device=bench.device, dtype=bench.precision.dtype, attachments=attachments
    )
    first, second = ([_drawn(bench, session, prompt, index) for index, prompt in enumerate(group)] for group in groups)
    session.close()
    return first, second


def _drawn(bench: _Bench, session: Session, prompt: str, index: int) -> Image.Image:
    opened = bench.opened
    request = request_for(opened.engine, opened.recipe, prompt=prompt, seed=opened.recipe.length.seed + index)
    request = replace(request, **(bench.asked.request or {}))
    found = [event.data for event in session.generate(request, bench.run.stops) if isinstance(event, Media)]
    bench.run.check_stop()
    picture: Image.Image = found[-1]
    return picture


def _picture(item: Item) -> Image.Image:
    """The item's picture, small enough to hold many."""
    with Image.open(item.media["image"].path) as picture:
        shown = ImageOps.exif_transpose(picture).convert("RGB")
        shown.thumbnail((_SHOWN_PIXELS, _SHOWN_PIXELS))
        return shown
