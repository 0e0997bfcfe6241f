"""`tunesmith jobs`: the same folders the studio and the API read."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunesmith.cli.onward import onward
from tunesmith.cli.options import AsJson, Detach, On
from tunesmith.cli.report import follow, report_for
from tunesmith.cli.screen import Screen, human_bytes, human_seconds
from tunesmith.cli.surroundings import surroundings_of

if TYPE_CHECKING:
    from tunesmith.jobs.folder import JobFolder
    from tunesmith.jobs.status import Status

group = typer.Typer(help="what runs, what ran, and how it went", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="JOB", help="a job's id, the beginning of one, its name or its folder")]
WATCHED = ("queued", "running")
OVER = ("completed", "failed")
DAMAGED = "damaged"


@group.command("list")
def list_all(context: typer.Context, as_json: AsJson = False) -> None:
    """List every job, oldest first."""
    from tunesmith.jobs.folder import list_jobs

    screen = Screen(as_json)
    found = [(folder, *_standing(folder)) for folder in list_jobs(surroundings_of(context).home)]
    if as_json:
        screen.document([{**manifest, "id": folder.id, "status": status} for folder, manifest, status in found])
        return
    rows = []
    for folder, _, status in found:
        steps = f"{status.step}/{status.steps or '?'}"
        rows.append((folder.id, status.state, steps, status.loss_mean, human_seconds(status.eta_seconds)))
    screen.table(("job", "state", "step", "loss", "left"), rows)
    screen.say(*(f"{folder.id}: {status.reason}" for folder, _, status in found if status.state == DAMAGED))
    screen.next_steps("tunesmith jobs show JOB" if rows else "tunesmith demo")


def _standing(folder: JobFolder) -> tuple[Mapping[str, Any], Status]:
    """Manifest and status; no manifest and the state `damaged` where they cannot be read, so that others are listed."""
    from tunesmith.errors import JobError
    from tunesmith.jobs.status import Status, read_status

    try:
        return folder.manifest(), read_status(folder)
    except JobError as problem:
        return {}, Status(state=DAMAGED, reason=problem.message)


@group.command()
def show(
    context: typer.Context,
    job: Id,
    plot: Annotated[Path | None, typer.Option(help="where the loss plot goes; else the job's folder")] = None,
    as_json: AsJson = False,
) -> None:
    """Show how a job stands, and write its loss plot as a PNG."""
    from tunesmith.jobs.journal import read_events
    from tunesmith.jobs.status import read_status, to_json

    folder = _find(context, job)
    status = read_status(folder)
    events = read_events(folder)
    drawn = _draw(events, plot or folder.path / "loss.png")
    screen = Screen(as_json)
    if as_json:
        screen.document({"id": folder.id, "folder": folder.path, "status": to_json(status), "plot": drawn})
        return
    best = status.best
    screen.fields(
        {
            "job": folder.id,
            "folder": folder.path,
            "state": f"{status.state}: {status.reason}" if status.reason else status.state,
            "step": f"{status.step} of {status.steps or '?'} (saved at {status.saved_step})",
            "loss": status.loss_mean,
            "held-out loss": f"{best.loss:.4f} at step {best.step}, the best of {len(status.validations)}"
            if best
            else None,
            "pace": f"{status.seconds_per_step:.2f} s/step" if status.seconds_per_step else None,
            "left": human_seconds(status.eta_seconds),
            "peak memory": {name: human_bytes(size) for name, size in status.peak_bytes.items()},
            "checkpoints": status.checkpoints,
            "exports": status.exports,
            "plot": drawn,
        }
    )
    screen.say(*(f"warning: {text}" for text in status.warnings))
    screen.next_steps(*_suggest(folder, status.state, status.checkpoints))


@group.command()
def watch(context: typer.Context, job: Id, as_json: AsJson = False) -> None:
    """Follow a job until it ends; with --json one line an event. Ctrl-C stops the watching, not the job."""
    from tunesmith.jobs.status import read_status

    folder = _find(context, job)
    screen = Screen(as_json)
    report = report_for(screen, json_lines=True)
    try:
        follow(folder, report, lambda: read_status(folder).state not in WATCHED, wait=time.sleep)
    except KeyboardInterrupt:
        screen.say(f"no longer watching; {folder.id} goes on")
        return
    finally:
        report.close()
    status = read_status(folder)
    screen.say(f"{folder.id} is {status.state}{': ' + status.reason if status.reason else ''}")
    screen.next_steps(*_suggest(folder, status.state, status.checkpoints))


@group.command()
def logs(
    context: typer.Context,
    job: Id,
    tail: Annotated[int, typer.Option(min=1, help="only this many lines from the end")] = 200,
) -> None:
    """Show what the job's process printed, tracebacks included."""
    folder = _find(context, job)
    text = folder.log_file.read_text(encoding="utf-8", errors="replace") if folder.log_file.exists() else ""
    Screen().say(*(text.splitlines()[-tail:] or ["nothing was printed"]))


@group.command()
def cancel(
    context: typer.Context,
    job: Id,
    pause: Annotated[bool, typer.Option(help="only pause: save the state, so that it can be resumed")] = False,
) -> None:
    """Ask a job to save its state and stop. Whatever it was doing, nothing is left half-written."""
    from tunesmith.jobs.control import cancel as cancel_job
    from tunesmith.jobs.control import request
    from tunesmith.jobs.status import read_status

    folder = _find(context, job)
    screen = Screen()
    done = not pause and cancel_job(folder)
    status = read_status(folder)
    if status.state in OVER and (done or pause):
        screen.say(f"{folder.id} has ended as {status.state}; nothing was changed")
        screen.next_steps(*_suggest(folder, status.state, status.checkpoints))
        return
    if pause:
        request(folder, "stop")
        screen.say(f"asked {folder.id} to pause")
    else:
        screen.say(f"{folder.id} is cancelled" if done else f"asked {folder.id} to stop; it saves its state first")
    screen.next_steps(f"tunesmith jobs show {folder.id}", f"tunesmith jobs resume {folder.id}")


@group.command()
def resume(
    context: typer.Context,
    job: Id,
    on: On = None,
    detach: Detach = False,
    as_json: AsJson = False,
) -> int:
    """Go on with a job from its last state, exactly as if it had never stopped."""
    from tunesmith.cli.start import start

    on = on or surroundings_of(context).settings().executor
    return start(_find(context, job), on, Screen(as_json), detach=detach)


def _find(context: typer.Context, job: str) -> JobFolder:
    from tunesmith.jobs.folder import find_job

    return find_job(surroundings_of(context).home, job)


def _draw(events: list[dict[str, object]], path: Path) -> Path | None:
    """The loss plot; None before the first step."""
    if not any(line["kind"] in ("step", "validated") for line in events):
        return None
    from tunesmith.generation.plots import loss_plot

    loss_plot(events, path)
    return path


def _suggest(folder: JobFolder, state: str, checkpoints: tuple[str, ...]) -> tuple[str, ...]:
    if state in ("queued", "paused", "blocked", "failed", "cancelled"):
        return (f"tunesmith jobs logs {folder.id}", f"tunesmith jobs resume {folder.id}")
    if state == "running":
        return (f"tunesmith jobs watch {folder.id}",)
    if checkpoints:
        newest = checkpoints[-1]
        return (f"tunesmith checkpoints show {newest}", *onward(folder.home, newest))
    return (f"tunesmith jobs logs {folder.id}",)
