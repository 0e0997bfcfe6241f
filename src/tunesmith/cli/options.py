"""Flags that several commands share, declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="write one JSON document and nothing else to stdout")]
Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="[RECIPE.yaml…] [SECTION.KNOB=VALUE…]", help="recipe files in order, then overrides"),
]
BaseConfigs = Annotated[
    list[Path] | None,
    typer.Option("-b", "--base-config", help="a recipe file read before the others (repeatable)"),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="do not ask")]
On = Annotated[
    str | None,
    typer.Option(metavar="local|inline", help="local: a process of its own, followed here; inline: this process"),
]
Detach = Annotated[bool, typer.Option("--detach", help="start it and return; it goes on in the background")]
