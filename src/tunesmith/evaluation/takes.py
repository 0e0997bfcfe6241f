"""Which of several generated takes to keep: faults first, then likeness to the family and difference. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from tunesmith.catalog.card import Card
from tunesmith.data.audio import read_audio
from tunesmith.data.source import read_items
from tunesmith.engines.index import recipe_facts
from tunesmith.errors import TunesmithError
from tunesmith.evaluation.families import rank_candidates, scale_of
from tunesmith.numeric.clips import clipped_runs, peak, rms_dbfs
from tunesmith.numeric.timbre import timbre_embedding
from tunesmith.recipe.load import recipe_from
from tunesmith.weights.hashes import HashCache

SILENT_DBFS = -60.0
TAIL_SECONDS, TAIL_DB = 0.05, -30.0
# A silent take is never the better one; a clipped one only against a silent one or a clipped one that breaks off too.
POINTS = {"silent": 100.0, "clipped": 4.0, "breaks_off": 1.0}
MOST_CLIPS = 64
_CLIP_SECONDS = 20.0
_LEAST_FAMILY = 2

Samples = NDArray[Any]
Embeddings = NDArray[np.float64]


@dataclass(frozen=True)
class Ranking:
    """`order` holds the indices of all takes, best first; `scores` one JSON-ready map a take, in that order.

    `against` is "family" where training clips were compared with, else "takes".
    """

    order: tuple[int, ...]
    scores: tuple[dict[str, Any], ...]
    against: str


def faults(samples: Samples, rate: int, *, is_loop: bool = False) -> tuple[str, ...]:
    """What is wrong with a sound [channels, samples] as it would be written: names of POINTS.

    silent: its peak is below SILENT_DBFS. clipped: three samples in a row at full scale. breaks_off: the last
    TAIL_SECONDS are less than -TAIL_DB quieter than the loudest as long; a loop has no end that could.
    """
    level = peak(samples)
    if level < 10.0 ** (SILENT_DBFS / 20.0):
        return ("silent",)
    found = ["clipped"] if clipped_runs(np.clip(samples, -1.0, 1.0)) else []
    size = max(1, round(TAIL_SECONDS * rate))
    if not is_loop and samples.shape[1] > 2 * size:
        parts = [samples[:, max(0, at - size) : at] for at in range(samples.shape[1], 0, -size)]
        levels = [rms_dbfs(part) for part in parts]
        if levels[0] - max(levels) > TAIL_DB:
            found.append("breaks_off")
    return tuple(found)


def rank_takes(
    takes: Sequence[tuple[Samples, int]], family: Embeddings | None = None, *, are_loops: bool = False
) -> Ranking:
    """Rank sounds (samples [channels, samples], rate): fewer faults first, then as `rank_candidates` has it.

    `family` are embeddings of training clips [clips, features]. Without them the takes stand in for it: first the one
    most like the others, then those unlike the ones before.
    """
    known = family is not None and len(family) >= _LEAST_FAMILY
    found = [faults(samples, rate, is_loop=are_loops) for samples, rate in takes]
    embeddings = embeddings_of(takes)
    reference = np.asarray(family) if known else embeddings
    if len(reference) >= _LEAST_FAMILY:
        scale = scale_of(reference)
        values, measured = scale.apply(embeddings), scale.apply(reference)
        by_sound = rank_candidates(values, measured)
        away = cdist(values, measured).sum(1) / (len(measured) if known else len(measured) - 1)
    else:
        values, by_sound, away = embeddings, [0], np.zeros(len(takes))
    points = [sum(POINTS[name] for name in names) for names in found]
    order = sorted(range(len(takes)), key=lambda index: (points[index], by_sound.index(index)))
    between = cdist(values, values)
    np.fill_diagonal(between, math.inf)
    scores = tuple(
        {
            "points": points[index],
            "faults": list(found[index]),
            "distance": round(float(away[index]), 4),
            "nearest_take": round(float(between[index].min()), 4) if len(takes) > 1 else None,
        }
        for index in order
    )
    return Ranking(tuple(order), scores, "family" if known else "takes")


def embeddings_of(takes: Iterable[tuple[Samples, int]]) -> Embeddings:
    """Timbre embeddings [takes, features]."""
    return np.stack([timbre_embedding(samples, rate) for samples, rate in takes]).astype(np.float64)


def family_clips(card: Card, home: Path, *, concept: str = "") -> tuple[tuple[Path, ...], str]:
    """(Sound files that a checkpoint was trained on, why there are none), MOST_CLIPS at most, evenly taken.

    `concept` picks its own clips where the checkpoint was taught several.
    """
    if not card.recipe or card.origin == "imported":
        return (), f"the card of {card.id} does not know its training clips"
    cache = HashCache(home / "cache" / "hashes.json")
    try:
        recipe = recipe_from(card.recipe, recipe_facts)
        folders = [Path(folder) for folder in recipe.data.paths]
        reading = read_items(
            folders, recipe.data, media=("audio",), hash_file=cache.get, concepts=recipe.output.concepts
        )
    except TunesmithError as error:
        return (), f"the training clips of {card.id} cannot be read: {error.found}"
    cache.save()
    own = [item for item in reading.items if item.concept.casefold() == concept.strip().casefold()]
    clips = [item.media["audio"].path for item in own or reading.items]
    step = max(1.0, len(clips) / MOST_CLIPS)
    return tuple(clips[int(at * step)] for at in range(min(len(clips), MOST_CLIPS))), ""


def family_embeddings(clips: Iterable[Path]) -> Embeddings:
    """Timbre embeddings [clips, features] of sound files, 20 seconds of each."""
    return embeddings_of(read_audio(path, seconds=_CLIP_SECONDS) for path in clips)
