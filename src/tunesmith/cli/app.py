"""The command tree. Nothing here imports torch: `tunesmith --help` answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli import (
    cache,
    checkpoints,
    concepts,
    dataset,
    demo,
    doctor,
    evaluate,
    exchange,
    generate,
    jobs,
    plan,
    recipe,
    replay,
    settings,
    starter,
    train,
    work,
)
from tunesmith.cli.surroundings import read_surroundings

app = typer.Typer(
    name="tunesmith",
    help="Teach generative models what you make: a folder becomes a LoRA, a full fine-tune or a model of its own.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from tunesmith import __version__

        typer.echo(f"tunesmith {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    home: Annotated[
        Path | None, typer.Option(help="the folder tunesmith keeps its things in (else TUNESMITH_HOME, else your own)")
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="print the version and stop")
    ] = False,
) -> None:
    """Teach generative models what you make: a folder becomes a LoRA, a full fine-tune or a model of its own."""
    context.obj = read_surroundings(home)


for single in (
    demo,
    doctor,
    plan,
    train,
    work,
    generate,
    evaluate,
    replay,
):  # a group without a name adds its command here
    app.add_typer(single.group)
app.add_typer(settings.group, name="settings")
app.add_typer(cache.group, name="cache")
app.add_typer(dataset.group, name="dataset")
app.add_typer(recipe.group, name="recipe")
app.add_typer(jobs.group, name="jobs")
checkpoints.group.add_typer(exchange.group)
app.add_typer(checkpoints.group, name="checkpoints")
app.add_typer(concepts.group, name="concepts")
app.add_typer(starter.group, name="starter")
