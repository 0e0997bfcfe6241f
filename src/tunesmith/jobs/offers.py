"""Changes of a recipe that need less memory, each with its price. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace

from tunesmith.engines.protocol import Estimate
from tunesmith.jobs.forecast import Offer
from tunesmith.recipe.schema import Recipe

Change = tuple[str, tuple[str, ...], str, Recipe]  # what, overrides, cost where operations do not tell, the recipe
_NOTICEABLE = 0.97
_MOST_OFFERS = 4


def offers_for(
    recipe: Recipe, estimate_with: Callable[[Recipe], Estimate], *, peak_bytes: int, limit_bytes: int
) -> tuple[Offer, ...]:
    """Offers that lower the peak noticeably: those that fit first, the gentlest of them at the top."""
    found = []
    before = _operations(estimate_with(recipe))
    for what, overrides, cost, changed in _changes(recipe):
        estimate = estimate_with(changed)
        peak = max(phase.peak_bytes for phase in estimate.phases)
        if peak < peak_bytes * _NOTICEABLE:
            found.append(Offer(what, overrides, peak, _cost(cost, before, _operations(estimate))))
    fitting = [offer for offer in found if offer.peak_bytes <= limit_bytes]
    return tuple((fitting or sorted(found, key=lambda offer: offer.peak_bytes))[:_MOST_OFFERS])


def _changes(recipe: Recipe) -> Iterator[Change]:
    """From the gentlest to the harshest."""
    single = _single_batch(recipe)
    if single is not None:
        yield single
    checkpointed = _checkpointing(recipe)
    if checkpointed is not None:
        yield checkpointed
    if single is not None and checkpointed is not None:
        both = _checkpointing(single[3])
        if both is not None:
            yield (
                f"{single[0]} and {both[0]}",
                (*single[1], *both[1]),
                f"{single[2]}, and {both[2]}",
                both[3],
            )
    smallest = (single or (None, (), "", recipe))[3]
    smallest = (_checkpointing(smallest) or (None, (), "", smallest))[3]
    overrides = (*(single[1] if single else ()), *(checkpointed[1] if checkpointed else ()))
    for side in _smaller_sides(recipe):
        changed = replace(smallest, settings=replace(smallest.settings, resolution=side))
        yield (
            f"resolution {side}" + (" with both" if single and checkpointed else ""),
            (*overrides, f"engine.resolution={side}"),
            "less detail is learned",
            changed,
        )
    if recipe.method.name == "full":
        lora = replace(smallest, method=replace(smallest.method, name="lora"))
        yield "a LoRA in place of a full fine-tune", (*overrides, "method.name=lora"), "less capacity to change", lora


def _single_batch(recipe: Recipe) -> Change | None:
    length = recipe.length
    if length.batch_items == 1:
        return None
    accumulation = length.accumulation * length.batch_items
    changed = replace(recipe, length=replace(length, batch_items=1, accumulation=accumulation))
    overrides = ("length.batch_items=1", f"length.accumulation={accumulation}")
    cost = (
        f"the same {accumulation} items a step in {accumulation} passes of one: the same arithmetic, slower where the "
        "device would have worked on several at once"
    )
    return "batch 1 with accumulation", overrides, cost, changed


def _checkpointing(recipe: Recipe) -> Change | None:
    if recipe.method.gradient_checkpointing:
        return None
    changed = replace(recipe, method=replace(recipe.method, gradient_checkpointing=True))
    cost = "about a third more time a step, since activations are computed twice"
    return "gradient checkpointing", ("method.gradient_checkpointing=true",), cost, changed


def _smaller_sides(recipe: Recipe) -> tuple[int, ...]:
    """Usual sides below the recipe's, for engines whose section has one."""
    if "resolution" not in {entry.name for entry in fields(recipe.settings)}:
        return ()
    side = int(recipe.settings.resolution)
    return tuple(candidate for candidate in (1024, 768, 640, 512, 448, 384, 320, 256, 192, 128) if candidate < side)


def _operations(estimate: Estimate) -> float:
    return sum(
        phase.units * sum(phase.operations.values()) for phase in estimate.phases if phase.name in ("train", "validate")
    )


def _cost(words: str, before: float, after: float) -> str:
    """The words, with the change in arithmetic where the engine's estimate shows one."""
    if before <= 0 or abs(after / before - 1) < 0.02:
        return words
    return f"{words} ({after / before:.2f} times the arithmetic)"
