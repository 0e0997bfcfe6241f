"""Where the starter bases lie that ship with tunesmith. No torch."""

from __future__ import annotations

from pathlib import Path

from tunesmith.errors import WeightsError

CARD = "starter.json"
FOLDER = Path(__file__).parent.parent / "starters" / "weights"


def starter_folder(engine: str) -> Path:
    """The folder of an engine's starter, a base of its usual layout. Raises WeightsError where none ships."""
    folder = FOLDER / engine
    if not folder.is_dir():
        raise WeightsError(
            f"no starter base of {engine} ships with this tunesmith",
            expected=f"the folder {folder}",
            do=f"make it with `tunesmith starter build {engine}`, or name another base",
        )
    return folder
