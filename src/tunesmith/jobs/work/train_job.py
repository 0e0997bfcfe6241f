"""A job of kind `train`, phase by phase: plan, prior items, encode, load, train, register, export."""

from __future__ import annotations

from dataclasses import replace

from tunesmith.errors import DeviceError, NonFinite, Stopped
from tunesmith.events import StepDone
from tunesmith.jobs.items import prior_missing
from tunesmith.jobs.records import Resumed
from tunesmith.jobs.work.encoding import fill_cache
from tunesmith.jobs.work.keeping import Keeper
from tunesmith.jobs.work.live import Live, load_live
from tunesmith.jobs.work.opening import accept, open_job
from tunesmith.jobs.work.prior import generate_prior
from tunesmith.jobs.work.results import export_results, register_results
from tunesmith.jobs.work.run import Run
from tunesmith.training.device import choose_device, choose_precision, environment_record, set_threads
from tunesmith.training.loop import Until, train
from tunesmith.training.snapshot import load_state, newest_state, state_saved
from tunesmith.training.step import make_step


def do_train(run: Run) -> None:
    """From wherever the folder stands to the end, or to a stop (raised as Stopped with the state saved)."""
    with run.phase("plan"):
        opened = open_job(run)
    device = choose_device(opened.recipe.resources)
    precision = choose_precision(opened.recipe.resources, device, opened.settled.method)
    set_threads(opened.recipe.resources.threads, device)
    run.log(f"device {device}; precision {precision.reason}")
    if prior_missing(opened.recipe, run.folder.prior):
        with run.phase("prior"):
            generate_prior(run, opened, device=device, precision=precision)
        with run.phase("plan", "with the prior items"):
            opened = open_job(run)
    accept(run.folder, opened)
    cache = fill_cache(run, opened.engine, opened.base, recipe=opened.settled, gathered=opened.gathered, device=device)
    with run.phase("load"):
        live = restore(run, load_live(opened, cache, device=device, precision=precision))
        run.check_stop()
    with run.phase("train"):
        train_live(run, live)
    with run.phase("register"):
        card = register_results(run, live)
    if opened.recipe.output.exports:
        with run.phase("export"):
            export_results(run, live, card)


def restore(run: Run, live: Live) -> Live:
    """The newest valid state, if there is one; the journal says where the run goes on and what may differ."""
    states = run.folder.states
    latest = max((path.name for path in states.glob("step-*")), default="")
    newest = newest_state(states)  # sets damaged ones aside
    if newest is None:
        run.emit(Resumed(0, fresh=True))
        return live
    if latest != newest.name:
        run.warn(f"the state {latest} is damaged and set aside; going on from {newest.name}")
    notes = load_state(
        live.state,
        newest,
        environment=live.environment,
        threads_asked=live.opened.recipe.resources.threads,
    )
    run.emit(Resumed(live.state.step, notes))
    if run.status.saved_step != live.state.step:  # killed after the state was in place and before it was told
        run.emit(state_saved(newest))
    for note in notes:
        run.warn(note)
    # Threads may have been set back to what the state was made with.
    return replace(live, fresh=False, environment=environment_record(live.device, live.precision))


def train_live(run: Run, live: Live) -> None:
    """Steps until the end. Raises Stopped with the state saved, NonFinite and DeviceError with the last good one."""
    recipe = live.opened.settled
    step = make_step(live.opened.engine, live.model, recipe=recipe, precision=live.precision, steps=live.steps)
    keeper = Keeper(run, live)
    keeper.begin()
    events = train(
        live.state,
        live.batches,
        step=step,
        until=Until(live.steps),
        should_stop=run.stops,
        clock=run.clock,
    )
    try:
        for event in events:
            run.emit(event)
            if isinstance(event, StepDone):
                keeper.after_step(event)
    except (NonFinite, DeviceError):
        keeper.save_if_good()
        raise
    if live.state.step < live.steps:
        keeper.save_state()
        raise Stopped(run.stops.stop.reason if run.stops.stop is not None else "stopped")
