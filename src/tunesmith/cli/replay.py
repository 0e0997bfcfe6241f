"""`tunesmith replay`: a recorded run through our own training step, to see that it does the same."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

group = typer.Typer()


@group.command(short_help="check our step against a recorded run")
def replay(
    run: Annotated[Path, typer.Argument(help="the recorded run (.safetensors)")],
    base: Annotated[Path, typer.Argument(help="the base it was recorded on: a file or a diffusers folder")],
    settings: Annotated[str | None, typer.Option(help="flags to use instead of those in the file's header")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda")] = "cpu",
    epoch_batches: Annotated[
        int | None, typer.Option(help="micro-batches in an epoch, where accumulation meets its end")
    ] = None,
    loss_tolerance: Annotated[float | None, typer.Option(help="largest difference of a loss")] = None,
    weight_tolerance: Annotated[float | None, typer.Option(help="relative L2 of the final up-weights")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document")] = False,
) -> int:
    """Feed recorded latents, noise, timesteps and tokens through our step; compare losses and weights."""
    from tunesmith.exchange.replay import main

    options = {
        "--settings": settings,
        "--device": device,
        "--epoch-batches": epoch_batches,
        "--loss-tolerance": loss_tolerance,
        "--weight-tolerance": weight_tolerance,
    }
    words = [f"{name}={value}" for name, value in options.items() if value is not None]
    return main([str(run), str(base), *words, *(["--json"] if as_json else [])])
