"""`tunesmith evaluate`: what a checkpoint has learnt, what it has forgotten, and whether it copies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tunesmith.cli.options import AsJson
from tunesmith.cli.screen import Screen
from tunesmith.cli.surroundings import surroundings_of

group = typer.Typer()


@group.command(short_help="measure a checkpoint against its base")
def evaluate(
    context: typer.Context,
    checkpoint: Annotated[str, typer.Argument(help="id or name of the checkpoint")],
    data: Annotated[
        list[Path] | None,
        typer.Option(help="pictures of the concept it has not learnt from; else what its run held out"),
    ] = None,
    world: Annotated[
        list[Path] | None, typer.Option(help="pictures it should not have changed; else its run's prior items")
    ] = None,
    pictures: Annotated[int, typer.Option(min=1, max=1000, help="how many prompts to draw")] = 24,
    guidance: Annotated[float | None, typer.Option(help="how strongly the prompt pulls")] = None,
    steps: Annotated[int | None, typer.Option(min=1, max=1000, help="denoising steps")] = None,
    as_json: AsJson = False,
) -> None:
    """Held-out loss against the base, forgetting, copies, and whether it answers to its trigger alone; with a sheet."""
    from tunesmith.cli.start import conclude, run_to_its_end
    from tunesmith.jobs.evaluating import create_evaluation, read_report

    screen = Screen(as_json)
    chosen = {"guidance": guidance, "steps": steps}
    folder = create_evaluation(
        surroundings_of(context).home,
        checkpoint,
        data=data or (),
        world=world or (),
        pictures=pictures,
        request={name: value for name, value in chosen.items() if value is not None},
    )
    code = run_to_its_end(folder, screen)
    if code != 0:
        raise typer.Exit(conclude(folder, code, screen))
    report = read_report(folder)
    if as_json:
        screen.document({"job": folder.id, **report})
        return
    show_report(report, screen)
    screen.next_steps(f"tunesmith jobs show {folder.id}", f"tunesmith checkpoints show {report['checkpoint']}")


def show_report(report: dict[str, Any], screen: Screen) -> None:
    """Each figure with its sentence of advice, then what could not be measured."""
    for measure in report["measures"]:
        screen.say(f"{measure['name'].replace('_', ' ')}: {measure['words']}")
        screen.say(f"  {'' if measure['good'] else '! '}{measure['advice']}")
    for reason in report["missing"]:
        screen.say(f"not measured: {reason}")
    if report["sheet"]:
        screen.fields({"sheet (real, base, checkpoint)": report["sheet"]})
