"""The kinds of media that are generated, each with its file and its cell of a contact sheet.

Nothing else asks whether a thing is a picture or a sound: another kind of media is another entry here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from tunesmith.engines.protocol import Media
from tunesmith.errors import DataError
from tunesmith.generation.pictures import save_png
from tunesmith.generation.sounds import FORMAT, Finish, finish_sound, save_sound
from tunesmith.generation.spectrogram import spectrogram_picture


@dataclass(frozen=True)
class Medium:
    """One kind of media.

    `save(media, path, told)` writes a file that ends in `ending` and that `data` reads back as the very same pixels or
    samples; it remembers the media's parameters and what is `told` besides. `cell(media)` is a picture of it. Both
    raise NonFinite for media that hold NaN or Inf.
    """

    ending: str
    save: Callable[[Media, Path, Mapping[str, Any]], Path]
    cell: Callable[[Media], Image.Image]


def medium_of(media: Media) -> Medium:
    """What kind of media it is. Raises DataError for one that has no file."""
    if media.kind not in MEDIA:
        raise DataError(f"the generated {media.kind} cannot be kept", expected=f"one of {', '.join(MEDIA)}")
    return MEDIA[media.kind]


def _picture(media: Media) -> Image.Image:
    picture: Image.Image = media.data
    return picture


def _save_sound(media: Media, path: Path, told: Mapping[str, Any]) -> Path:
    """Float samples, since a sound may reach beyond full scale; its credits lie beside it."""
    sidecar = {"format": FORMAT, **media.parameters, **told}
    return save_sound(media, path, finish=Finish(subtype="FLOAT"), sidecar=sidecar)


def _spectrogram(media: Media) -> Image.Image:
    sound = finish_sound(media)
    return spectrogram_picture(sound.samples, sound.rate)


MEDIA: Mapping[str, Medium] = {
    "image": Medium(".png", save_png, _picture),
    "audio": Medium(".wav", _save_sound, _spectrogram),
}
