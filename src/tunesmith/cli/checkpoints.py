"""To come."""

import typer

group = typer.Typer()
