"""`tunesmith plan`: the forecast. Nothing is started and nothing is written."""

from __future__ import annotations

import typer

group = typer.Typer()
