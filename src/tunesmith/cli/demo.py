"""`tunesmith demo`: from a folder of examples to a LoRA and what it makes, on this machine, in minutes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli.options import AsJson
from tunesmith.cli.screen import Screen, human_seconds
from tunesmith.cli.surroundings import surroundings_of

group = typer.Typer()

_OWN_BASES = {
    "stable_diffusion": ("v1-5-pruned-emaonly.safetensors", "a Stable Diffusion 1.5 file", "--steps 1200"),
    "stable_audio": (
        "stable-audio-open-1.0",
        "a folder of Stable Audio Open 1.0",
        "engine.name=stable_audio preset=family",
    ),
}


@group.command(short_help="see all of it work, in minutes")
def demo(
    context: typer.Context,
    engine: Annotated[str, typer.Argument(help="stable_diffusion (pictures) or stable_audio")] = "stable_diffusion",
    out: Annotated[Path, typer.Option(help="the folder to leave the results in")] = Path("demo-output"),
    photographs: Annotated[
        Path | None, typer.Option(help="a folder of real pictures for the LoRA to learn instead of a monster")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="another seed, another concept to learn")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="a few steps only: the machinery, not the result")] = False,
    as_json: AsJson = False,
) -> None:
    """Write examples of something new, train a LoRA on the starter, register, export, evaluate, and show both."""
    from tunesmith.cli.evaluate import show_report
    from tunesmith.cli.start import run_to_its_end
    from tunesmith.starters.demo import examples_of, run_demo

    screen = Screen(as_json)
    report = run_demo(
        surroundings_of(context).home,
        out,
        write=examples_of(engine, photographs),
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
        screen.say(_shown(report.kind, report.shown))
    if quick:
        screen.say("these are a few steps only: what they make is noise, and that is expected")
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
    screen.next_steps(*_next_steps(engine, report.prompt))


def _next_steps(engine: str, prompt: str) -> tuple[str, ...]:
    base, title, wishes = _OWN_BASES[engine]
    again = "--guidance 2 --seed 7" if engine == "stable_diffusion" else "--engine stable_audio --guidance 4 --seed 7"
    return (
        f"tunesmith generate --prompt '{prompt}' {again}",
        f"With your own examples and {title}:",
        "tunesmith dataset check FOLDER",
        f"tunesmith plan  --data FOLDER --base {base} {wishes} --name NAME",
        f"tunesmith train --data FOLDER --base {base} {wishes} --name NAME",
    )


def _shown(kind: str, shown: Mapping[str, float]) -> str:
    """What the checker read off the results, in one line."""
    line = (
        f"the new {kind} is in {shown['adapter']:.0%} of the adapter's results, in {shown['base']:.0%} of the base's "
        f"and in {shown['without_trigger']:.0%} of those that do not ask for it"
    )
    if "pose" in shown:
        line += f"; pose as asked in {shown['pose']:.0%}, place in {shown['place']:.0%}"
    return line
