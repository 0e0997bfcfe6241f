"""Where a command runs: its home folder and environment, read once at the edge and passed on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from tunesmith.recipe.settings import Settings


@dataclass(frozen=True)
class Surroundings:
    """The home folder and the environment of this command line."""

    home: Path
    environ: Mapping[str, str]

    def settings(self) -> Settings:
        """The user's settings file."""
        from tunesmith.recipe.settings import read_settings

        return read_settings(self.home)


def surroundings_of(context: typer.Context) -> Surroundings:
    """What the root command put into the context (`--home`)."""
    found = context.find_object(Surroundings)
    return found if found is not None else read_surroundings(None)


def read_surroundings(home: Path | None) -> Surroundings:
    """Read the environment; `home` wins over TUNESMITH_HOME."""
    from tunesmith.recipe.settings import home_folder

    environ = dict(os.environ)
    if home is not None:
        environ["TUNESMITH_HOME"] = str(home.expanduser().absolute())
    return Surroundings(home_folder(environ), environ)
