"""What an evaluation found of sounds, figure by figure, each with a sentence of advice. No torch.

Sounds are float32 [channels, samples]; a set comes as its timbre embeddings [items, features] on the family's scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.evaluation.families import bootstrap_interval, diversity, frechet_distance, mmd, nearest, scale_of
from tunesmith.evaluation.likeness import COPY_SHARE
from tunesmith.evaluation.report import COPIED, SPECIFIC, Measure
from tunesmith.numeric.clips import clipped_runs, loudness_lufs, silence_share
from tunesmith.numeric.timbre import timbre_embedding

NEARER = 0.5  # of the base's distance to the family: what counts as having learnt its timbre
MOST_SILENCE = 0.9
LEAST_VARIETY = 0.5
_FEWEST = 3  # sounds of a set whose spread means anything

Sounds = Sequence[NDArray[Any]]
Embeddings = NDArray[Any]


@dataclass(frozen=True)
class Sets:
    """Embeddings on the family's scale: real sounds of the family, those learnt from, and what both draw.

    `base` is empty where there is no base; `neighbours` are real sounds of other families.
    """

    family: Embeddings
    training: Embeddings
    base: Embeddings
    adapter: Embeddings
    neighbours: Embeddings


def embed_sets(
    family: Sounds, training: Sounds, base: Sounds, adapter: Sounds, neighbours: Sounds, *, rate: int
) -> Sets:
    """The sets' embeddings, all on the scale of the real sounds."""
    real = embeddings(family, rate)
    scale = scale_of(real)

    def scaled(sounds: Sounds) -> Embeddings:
        return scale.apply(embeddings(sounds, rate)) if len(sounds) else np.zeros((0, real.shape[1]))

    return Sets(scale.apply(real), scaled(training), scaled(base), scaled(adapter), scaled(neighbours))


def embeddings(sounds: Sounds, rate: int) -> Embeddings:
    """[items, features] of sounds at `rate`."""
    return np.stack([timbre_embedding(sound, rate) for sound in sounds])


def family_likeness(sets: Sets) -> Measure:
    """How near what the checkpoint draws is to the family, beside what the base draws of the same prompts."""
    after, low, high = mmd(sets.adapter, sets.family), *bootstrap_interval(sets.adapter, sets.family)
    apart = frechet_distance(sets.adapter, sets.family)
    words = f"distance to the family (MMD) {after:.2f} (95 % sure of {low:.2f} to {high:.2f})"
    if not len(sets.base):
        return Measure("family_distance", after, words, "there is no base to compare with", True, low, high)
    before, base_low, base_high = mmd(sets.base, sets.family), *bootstrap_interval(sets.base, sets.family)
    words += (
        f", the base's {before:.2f} ({base_low:.2f} to {base_high:.2f}); Fréchet {apart:.0f} against "
        f"{frechet_distance(sets.base, sets.family):.0f}"
    )
    good = after <= NEARER * before and high < base_low
    if good:
        advice = "it has the family's timbre"
    elif after < before:
        advice = "it is on the way to the family's timbre: train longer, at a higher rate or rank, or with more clips"
    else:
        advice = "it is no nearer to the family than its base: check captions and trigger, then train longer"
    return Measure("family_distance", after, words, advice, good, low, high)


def neighbour_distance(sets: Sets) -> Measure:
    """Whether what it draws is nearer to the family than to the other sounds it should be told apart from."""
    own, other = mmd(sets.adapter, sets.family), mmd(sets.adapter, sets.neighbours)
    good = own < other
    advice = (
        "it is told apart from the other sounds"
        if good
        else "it sounds more like the other sounds than like its family: train longer, or keep the trigger in captions"
    )
    words = f"distance to the other sounds (MMD) {other:.2f}, to its own family {own:.2f}"
    return Measure("neighbour_distance", other, words, advice, good)


def copied_sounds(sets: Sets) -> Measure:
    """The share of outputs that are training clips over again."""
    copies = nearest(sets.adapter, sets.training)
    words = (
        f"{copies.share:.0%} of {len(copies.nearest)} sounds nearer than {COPY_SHARE:g} of the usual distance to a "
        f"training clip (nearest {min(found for _, found in copies.nearest):.1f}, usual {copies.usual:.1f})"
    )
    good = copies.share <= COPIED
    advice = (
        "it makes new sounds"
        if good
        else "it repeats its training clips: stop earlier, lower the rank, or add more varied clips"
    )
    return Measure("copied_share", copies.share, words, advice, good)


def variety(sets: Sets) -> Measure:
    """How much outputs differ from each other, over how much the family's own clips do."""
    value = diversity(sets.adapter) / max(diversity(sets.family), 1e-9)
    good = value >= LEAST_VARIETY
    advice = (
        "takes differ as the family's clips do"
        if good
        else "takes sound alike: stop earlier, or vary the captions and prompts"
    )
    words = f"its sounds differ from each other {value:.0%} as much as the family's clips do"
    return Measure("variety", value, words, advice, good)


def trigger_specificity(before: Embeddings, after: Embeddings, unasked: Embeddings, leaked: Embeddings) -> Measure:
    """How much sounds change when the prompt does not name the trigger, over how much when it does."""
    asked, unbidden = (
        float(np.linalg.norm(other - one, axis=1).mean()) for one, other in ((before, after), (unasked, leaked))
    )
    value = unbidden / asked if asked else 0.0
    good = value <= SPECIFIC
    advice = (
        "the family answers to its trigger"
        if good
        else "it sounds without being asked for: mix in prior items (data.prior), keep the trigger in every caption"
    )
    words = f"without the trigger the sounds change {value:.0%} as much as with it"
    return Measure("leak", value, words, advice, good)


def faults(sounds: Sounds, rate: int) -> Measure:
    """The share of outputs that clip or are silent, and how loud they are."""
    clipped = sum(clipped_runs(sound) > 0 for sound in sounds)
    silent = sum(silence_share(sound, rate) > MOST_SILENCE for sound in sounds)
    loud = sorted(loudness_lufs(sound, rate) for sound in sounds)
    middle = loud[len(loud) // 2]
    share = (clipped + silent) / len(sounds)
    words = f"{clipped} of {len(sounds)} sounds clip, {silent} are silent; loudness {middle:.0f} LUFS in the middle"
    good = share <= COPIED
    advice = "levels are sound" if good else "lower the guidance, or check the training clips with dataset check"
    return Measure("faults", share, words, advice, good)


def enough(sounds: Sequence[object]) -> bool:
    """Whether there are enough sounds for a spread."""
    return len(sounds) >= _FEWEST
