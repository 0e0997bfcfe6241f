"""`tunesmith demo`: from a folder of pictures to a LoRA and pictures made with it, on this machine, in minutes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli.options import AsJson
from tunesmith.cli.screen import Screen, human_seconds
from tunesmith.cli.surroundings import surroundings_of

group = typer.Typer()


@group.command(short_help="see all of it work, in minutes")
def demo(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="the folder to leave the results in")] = Path("demo-output"),
    photographs: Annotated[
        Path | None, typer.Option(help="a folder of real pictures for the LoRA to learn instead of a monster")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="another seed, another monster")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="a few steps only: the machinery, not the pictures")] = False,
    as_json: AsJson = False,
) -> None:
    """Write pictures of a new monster, train a LoRA on the starter, register, export, evaluate, and draw both."""
    from tunesmith.cli.evaluate import show_report
    from tunesmith.cli.start import run_to_its_end
    from tunesmith.starters.demo import run_demo

    screen = Screen(as_json)
    report = run_demo(
        surroundings_of(context).home,
        out,
        photographs=photographs,
        seed=seed,
        quick=quick,
        say=screen.say,
        run_job=lambda folder: run_to_its_end(folder, screen),
    )
    if as_json:
        screen.document({**vars(report), "fall": report.fall})
        return
    screen.say("")
    show_report({**report.evaluation, "sheet": None}, screen)
    if report.shown:
        screen.say(_shown(report.shown))
    if quick:
        screen.say("these are a few steps only: the pictures are noise, and that is expected")
    screen.fields(
        {
            "sheet": report.sheet,
            "loss plot": report.loss_plot,
            "checkpoint": f"{report.checkpoint}, active, called by {report.trigger!r}",
            "exports": ", ".join(
                f"{path.name} ({matched} layers read back)"
                for path, matched in zip(report.exports, report.matched_layers, strict=True)
            ),
            "time": ", ".join(f"{name} {human_seconds(seconds)}" for name, seconds in report.seconds.items()),
        }
    )
    screen.next_steps(
        f"tunesmith generate --prompt '{report.prompt}' --guidance 3 --seed 7",
        "With your own pictures and a Stable Diffusion 1.5 file:",
        "tunesmith dataset check FOLDER",
        "tunesmith plan  --data FOLDER --base v1-5-pruned-emaonly.safetensors --steps 1200 --name NAME",
        "tunesmith train --data FOLDER --base v1-5-pruned-emaonly.safetensors --steps 1200 --name NAME",
    )


def _shown(shown: Mapping[str, float]) -> str:
    """What the checker read off the pictures, in one line."""
    return (
        f"the new monster is in {shown['adapter']:.0%} of the adapter's pictures, in "
        f"{shown['base']:.0%} of the base's and in {shown['without_trigger']:.0%} of those that "
        f"do not ask for it; pose as asked in {shown['pose']:.0%}, place in {shown['place']:.0%}"
    )
