"""Twelve real photographs with captions: scikit-image's sample pictures, as a folder somebody might have.

python tests/photographs.py FOLDER
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import skimage

SUBJECTS = {
    "astronaut.png": "a smiling astronaut in an orange suit before a flag",
    "brick.png": "a brick wall",
    "camera.png": "a man with a camera on a tripod on a meadow, black and white",
    "chelsea.png": "the face of a ginger cat",
    "coffee.png": "a cup of coffee with a spoon on a wooden table",
    "coins.png": "old coins in rows, black and white",
    "grass.png": "grass from above",
    "gravel.png": "gravel from above",
    "hubble_deep_field.jpg": "hundreds of galaxies",
    "moon.png": "craters of the moon",
    "motorcycle_left.png": "a motorcycle in a garage",
    "rocket.jpg": "a rocket on its launch pad at dusk",
}


def write_photographs(folder: Path) -> list[Path]:
    """Copy the photographs into `folder`, their captions beside them; returns the pictures' paths."""
    folder.mkdir(parents=True, exist_ok=True)
    source = Path(skimage.__file__).parent / "data"
    written = []
    for name, caption in SUBJECTS.items():
        written.append(Path(shutil.copyfile(source / name, folder / name)))
        (folder / name).with_suffix(".txt").write_text(f"a photograph of {caption}, myphoto\n")
    return written


if __name__ == "__main__":
    write_photographs(Path(sys.argv[1]))
