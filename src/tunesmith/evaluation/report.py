"""What an evaluation found, figure by figure, each with a sentence of advice. No torch."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any

from tunesmith.evaluation.likeness import COPY_SHARE, Copies

# Thresholds in words: what most people would call learnt, forgotten, copied.
LEARNT, SOMEWHAT = 0.2, 0.05
FORGOTTEN = 0.1
COPIED = 0.1
SPECIFIC = 0.5


@dataclass(frozen=True)
class Measure:
    """One figure. `low` and `high` bound its 95 % interval where there is one; `good` is False where `advice` asks
    for a change."""

    name: str
    value: float
    words: str
    advice: str
    good: bool
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Report:
    """Everything measured of one checkpoint; `missing` says what could not be measured and why."""

    checkpoint: str
    measures: tuple[Measure, ...]
    missing: tuple[str, ...] = ()
    sheet: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As `report.json` keeps it."""
        return dataclasses.asdict(self)


def gain(fall: tuple[float, float, float], items: int) -> Measure:
    """How much of the base's held-out loss on the concept is gone."""
    value, low, high = fall
    words = f"held-out loss {value:.0%} below the base's (95 % sure of {low:.0%} to {high:.0%}; {items} items)"
    if low <= 0:
        advice = "not shown to have learnt the concept: train longer, at a higher rate, or hold out more items"
    elif value < SOMEWHAT:
        advice = "it has hardly learnt the concept: train longer or at a higher rate, and check captions and trigger"
    elif value < LEARNT:
        advice = "it has learnt a part of the concept: a longer run or a higher rank may bring the rest"
    else:
        advice = "it has learnt the concept"
    return Measure("concept_gain", value, words, advice, low > 0 and value >= LEARNT, low, high)


def forgetting(fall: tuple[float, float, float], items: int) -> Measure:
    """How much worse the checkpoint is on other items of the base's world."""
    value, low, high = -fall[0], -fall[2], -fall[1]
    words = f"loss on {items} other items {value:+.0%} (95 % sure of {low:+.0%} to {high:+.0%})"
    good = value <= FORGOTTEN
    advice = (
        "what the base could do is kept"
        if good
        else "the base's own world suffers: mix in prior items (data.prior), lower the rate, or stop earlier"
    )
    return Measure("forgetting", value, words, advice, good, low, high)


def memorisation(copies: Copies) -> Measure:
    """The share of outputs that are training pictures over again."""
    nearest = min(found for _, found in copies.nearest)
    words = (
        f"{copies.share:.0%} of {len(copies.nearest)} pictures nearer than {COPY_SHARE:g} of the usual distance to a "
        f"training picture (nearest {nearest:.0f}, usual {copies.usual:.0f} of 255)"
    )
    good = copies.share <= COPIED
    advice = (
        "it draws new pictures"
        if good
        else "it repeats its training pictures: stop earlier, lower the rank, or add more varied pictures"
    )
    return Measure("copied_share", copies.share, words, advice, good)


def specificity(with_trigger: float, without_trigger: float) -> Measure:
    """How far results move towards the real ones when the prompt does not name the trigger, over how far when it does.

    `with_trigger` is more than 0; moving away counts as not moving.
    """
    value = max(0.0, without_trigger / with_trigger)
    words = f"without the trigger the pictures come {value:.0%} as much nearer to the real ones as with it"
    good = value <= SPECIFIC
    advice = (
        "the concept answers to its trigger"
        if good
        else "it shows without being asked for: mix in prior items (data.prior), some of them called by the class word "
        "alone, and keep the trigger in every caption"
    )
    return Measure("leak", value, words, advice, good)


def without_words(prompt: str, words: tuple[str, ...]) -> str:
    """A prompt with these words taken out, whole words only, and the commas they leave behind."""
    for word in sorted(words, key=len, reverse=True):
        prompt = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", "", prompt, flags=re.IGNORECASE)
    kept = [" ".join(part.split()) for part in prompt.split(",")]
    return ", ".join(part for part in kept if part)
