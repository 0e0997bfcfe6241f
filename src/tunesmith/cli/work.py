"""`tunesmith work`: do the job in a folder. What every executor starts; running it again resumes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli.screen import Screen

group = typer.Typer()


@group.command(hidden=True)
def work(folder: Annotated[Path, typer.Argument(help="a job's folder")]) -> int:
    """Do the job in FOLDER to its end, or go on where it stopped."""
    from tunesmith.cli.start import conclude
    from tunesmith.jobs.folder import JobFolder
    from tunesmith.jobs.work import work as do_work

    return conclude(JobFolder(folder), do_work(folder), Screen())
