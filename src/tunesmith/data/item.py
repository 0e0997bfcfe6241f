"""Item: one training example. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class MediaFile:
    """One file of an item. `sha256` is of the file's bytes; `facts` comes from its header.

    For role image and mask `facts` holds `width`, `height` in pixels after EXIF orientation, and `has_alpha`;
    for audio `seconds`, `rate` in Hz, `channels`.
    """

    path: Path
    sha256: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Item:
    """Media by role (image, control, mask, audio, chart), text by role (caption, lyrics, tags).

    `key` is a content hash of media and text. `group` is what may not be split between training and holdout (the
    song, the photo session; by default the item itself). `repeats` is how often one epoch visits it. `weight`
    multiplies its loss. `concept` is what it teaches ("" where none is named). `prior` marks prior preservation.
    `held_out` is what the dataset itself says of the split; None: nothing. `credits` are JSON's own types.
    """

    key: str
    media: Mapping[str, MediaFile]
    text: Mapping[str, str]
    group: str
    concept: str = ""
    repeats: int = 1
    weight: float = 1.0
    prior: bool = False
    credits: Mapping[str, Any] = field(default_factory=dict)
    held_out: bool | None = None
