"""A job of kind `evaluate`: a checkpoint against its base, by losses and by what both draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tunesmith.adapters.files import read_adapter
from tunesmith.data.item import Item
from tunesmith.engines.protocol import Base
from tunesmith.evaluation.report import Measure, Report, forgetting, gain
from tunesmith.jobs.evaluating import REPORT
from tunesmith.jobs.items import Gathered, gather
from tunesmith.jobs.work.encoding import fill_cache
from tunesmith.jobs.work.evaluate_pictures import measure_pictures
from tunesmith.jobs.work.evaluate_sounds import measure_sounds
from tunesmith.jobs.work.evaluation_bench import Asked, Bench
from tunesmith.jobs.work.opening import Opened, accept, open_job
from tunesmith.jobs.work.run import Run
from tunesmith.numeric.measures import fall_interval
from tunesmith.recipe.schema import BaseSection
from tunesmith.training.device import choose_device, choose_precision, set_threads
from tunesmith.training.encode import CachedReader
from tunesmith.training.holdout import Holdout
from tunesmith.training.prepare import prepare
from tunesmith.weights.atomic import write_json


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
    bench = Bench(run, opened, asked, cache, device, precision, world, _plain_base(opened, asked))
    measures: list[Measure] = []
    missing: list[str] = []
    with run.phase("losses"):
        _measure_losses(bench, measures, missing)
        run.check_stop()
    with run.phase("samples"):
        sheet = _measure_samples(bench, measures, missing)
    report = Report(asked.checkpoint, tuple(measures), tuple(missing), sheet)
    write_json(run.folder.results / REPORT, report.to_json())


def _measure_samples(bench: Bench, measures: list[Measure], missing: list[str]) -> str | None:
    """What is drawn with and without the checkpoint, by the engine's medium. Returns the sheet's path."""
    media = bench.opened.engine.facts.media
    if "image" in media:
        return measure_pictures(bench, measures, missing)
    if "audio" in media:
        return measure_sounds(bench, measures, missing)
    missing.append(f"copies, leaks and the sheet: {bench.opened.engine.facts.title} makes neither pictures nor sounds")
    return None


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


def _measure_losses(bench: Bench, measures: list[Measure], missing: list[str]) -> None:
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


def _losses(bench: Bench, groups: Sequence[Sequence[Item]], *, tuned: bool) -> list[float]:
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
