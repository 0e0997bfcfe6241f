"""`tunesmith starter`: the small bases that ship with tunesmith, and how to make one again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli.options import AsJson
from tunesmith.cli.screen import Screen, human_bytes

group = typer.Typer(help="the small bases that ship with tunesmith", no_args_is_help=True)


@group.command("list")
def list_starters(as_json: AsJson = False) -> None:
    """Which starters ship, how large they are, and the figures they were measured by."""
    from tunesmith.engines.index import engine_names
    from tunesmith.weights.starter import CARD, FOLDER

    screen = Screen(as_json)
    found = []
    for name in engine_names():
        card = FOLDER / name / CARD
        if card.is_file():
            found.append({"folder": str(card.parent), **json.loads(card.read_text(encoding="utf-8"))})
    if as_json:
        screen.document(found)
        return
    for starter in found:
        screen.say(f"{starter['engine']}: {human_bytes(starter['weights_bytes'])}, {starter['licence']}")
        screen.fields({"folder": starter["folder"], "made": starter["made_utc"], **starter["figures"]})
    if not found:
        screen.say("no starter is here")
        screen.next_steps("tunesmith starter build stable_diffusion --out FOLDER", "tunesmith demo")
        return
    screen.next_steps("tunesmith demo", "tunesmith train --base starter --data FOLDER --name NAME --steps 400")


@group.command()
def build(
    engine: Annotated[str, typer.Argument(help="the engine, such as stable_diffusion")],
    out: Annotated[Path | None, typer.Option(help="the folder to leave the starter in")] = None,
    work: Annotated[Path | None, typer.Option(help="data, jobs and states; run again to go on")] = None,
    share: Annotated[
        float, typer.Option(min=0.0005, max=1.0, help="only this share of data and steps: to try the machinery")
    ] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Make a starter from nothing: example data, tokenizer, every stage of training, and its figures. Takes hours."""
    from tunesmith.cli.start import run_to_its_end
    from tunesmith.starters.build import build_starter
    from tunesmith.weights.starter import CARD

    screen = Screen(as_json)
    made = build_starter(
        engine,
        work if work is not None else Path(f"starter-{engine}-work"),
        out if out is not None else Path(f"starter-{engine}"),
        say=screen.say,
        run_job=lambda folder: run_to_its_end(folder, screen),
        share=share,
    )
    card = json.loads((made / CARD).read_text(encoding="utf-8"))
    if as_json:
        screen.document({"folder": made, **card})
        return
    screen.fields({"folder": made, "weights": human_bytes(card["weights_bytes"]), **card["figures"]})
    screen.next_steps(f"tunesmith generate --base {made} --prompt 'round red monster, two eyes, waving, at night'")
