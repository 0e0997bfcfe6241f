"""What a plan says: plain records, JSON-ready, and the same in words. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tunesmith.data.findings import Finding


@dataclass(frozen=True)
class Refusal:
    """Why it cannot work here, and the change that makes it work; `overrides` is that change as `a.b=c`."""

    reason: str
    change: str
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Offer:
    """A change that would need less memory, with its price. `peak_bytes` is the peak with it."""

    change: str
    overrides: tuple[str, ...]
    peak_bytes: int
    cost: str


@dataclass(frozen=True)
class ConceptShare:
    """How much of the training goes to one concept. `share` is of all visits."""

    name: str
    items: int
    visits_per_epoch: int
    share: float


@dataclass(frozen=True)
class PhaseForecast:
    """One phase: its peak, how often its unit of work happens, and how long it takes (low, high), if known."""

    name: str
    peak_bytes: int
    units: int
    minutes: tuple[float, float] | None


@dataclass(frozen=True)
class DiskForecast:
    """What the run will write, next to what there is. `needed_bytes` holds the reserve, too."""

    cache_bytes: int
    states_bytes: int
    checkpoints_bytes: int
    exports_bytes: int
    reserve_bytes: int
    free_bytes: int

    @property
    def needed_bytes(self) -> int:
        """Everything that must fit."""
        return self.cache_bytes + self.states_bytes + self.checkpoints_bytes + self.exports_bytes + self.reserve_bytes


@dataclass(frozen=True)
class Plan:
    """What a recipe will do, known before it starts.

    `views_per_item` (lowest, highest) is how often one item is seen; `minutes` (low, high) is None on a machine that
    was never measured; `memory_available_bytes` is the recipe's limit or what is free on `device`.
    """

    name: str
    engine: str
    method: str
    stage: str
    components: tuple[str, ...]
    base: str
    items: int
    held_out: int
    prior_items: int
    concepts: tuple[ConceptShare, ...]
    shapes: Mapping[str, int]
    steps: int
    epochs: float
    batches_per_epoch: int
    batch_items: int
    accumulation: int
    views_per_item: tuple[float, float]
    total_parameters: int
    trainable_parameters: int
    device: str
    phases: tuple[PhaseForecast, ...]
    memory_peak_bytes: int
    memory_available_bytes: int
    minutes: tuple[float, float] | None
    disk: DiskForecast
    findings: tuple[Finding, ...]
    refusals: tuple[Refusal, ...]
    offers: tuple[Offer, ...]
    notes: tuple[str, ...]


def to_json(plan: Plan) -> dict[str, Any]:
    """JSON-ready."""
    content = asdict(plan)
    content["disk"]["needed_bytes"] = plan.disk.needed_bytes
    return content


def to_text(plan: Plan) -> str:
    """The plan for a person: one fact a line, refusals last."""
    lines = [
        f"{plan.name}: {plan.method} of {', '.join(plan.components)} ({plan.engine}, stage {plan.stage})",
        f"  base       {plan.base}",
        f"  data       {_data(plan)}",
        *(f"             {_concept(share)}" for share in plan.concepts if len(plan.concepts) > 1),
        f"  shapes     {', '.join(f'{shape} x{count}' for shape, count in plan.shapes.items())}",
        f"  length     {_length(plan)}",
        f"  trains     {plan.trainable_parameters:,} of {plan.total_parameters:,} parameters",
        f"  memory     {gib(plan.memory_peak_bytes)} at most, {gib(plan.memory_available_bytes)} available "
        f"on {plan.device}",
        *(f"             {_phase(phase)}" for phase in plan.phases),
        f"  time       {minutes_text(plan.minutes)}",
        f"  disk       {_disk(plan.disk)}",
    ]
    lines += [f"  note       {note}" for note in plan.notes]
    lines += [f"  {finding.severity:<10} {_sentence(finding.message, finding.do)}" for finding in plan.findings]
    if not plan.refusals:
        lines += [f"  less memory: {_offer(offer)}" for offer in plan.offers]
    for refusal in plan.refusals:
        lines.append(f"  REFUSED    {_sentence(refusal.reason, refusal.change)}")
    if plan.refusals:
        lines += [f"             {_offer(offer)}" for offer in plan.offers]
    return "\n".join(lines)


def gib(size_bytes: int) -> str:
    """A size for people: `3.42 GiB`, `7 MiB`."""
    if size_bytes >= 1 << 29:
        return f"{size_bytes / (1 << 30):.2f} GiB"
    return f"{size_bytes / (1 << 20):.0f} MiB"


def minutes_text(minutes: tuple[float, float] | None) -> str:
    """`12 to 19 minutes`, `30 to 50 seconds`, `2.1 to 3.4 hours`."""
    if minutes is None:
        return "unknown: this machine was not measured yet; `tunesmith doctor` does that once"
    low, high = minutes
    if high < 2:
        return f"{low * 60:.0f} to {high * 60:.0f} seconds"
    if high < 120:
        return f"{low:.0f} to {high:.0f} minutes"
    return f"{low / 60:.1f} to {high / 60:.1f} hours"


def _data(plan: Plan) -> str:
    parts = [f"{plan.items} items"]
    if plan.held_out:
        parts.append(f"{plan.held_out} held out")
    if plan.prior_items:
        parts.append(f"{plan.prior_items} prior items")
    return ", ".join(parts)


def _concept(share: ConceptShare) -> str:
    name = share.name or "(no concept)"
    return f"{name}: {share.items} items, {share.visits_per_epoch} visits an epoch, {share.share:.0%} of the training"


def _length(plan: Plan) -> str:
    batch = f"batches of {plan.batch_items}"
    if plan.accumulation > 1:
        batch += f", {plan.accumulation} of them a step"
    low, high = plan.views_per_item
    views = f"{low:.1f}" if round(low, 1) == round(high, 1) else f"{low:.1f} to {high:.1f}"
    return f"{plan.steps} steps ({batch}) = {plan.epochs:.1f} epochs; each item is seen {views} times"


def _phase(phase: PhaseForecast) -> str:
    time = "" if phase.minutes is None else f", {minutes_text(phase.minutes)}"
    return f"{phase.name}: {gib(phase.peak_bytes)}{time}"


def _disk(disk: DiskForecast) -> str:
    return (
        f"{gib(disk.needed_bytes)} of {gib(disk.free_bytes)} free: cache {gib(disk.cache_bytes)}, states "
        f"{gib(disk.states_bytes)}, checkpoints {gib(disk.checkpoints_bytes)}, exports {gib(disk.exports_bytes)}, "
        f"reserve {gib(disk.reserve_bytes)}"
    )


def _offer(offer: Offer) -> str:
    return f"{offer.change}: {gib(offer.peak_bytes)}; {offer.cost} ({' '.join(offer.overrides)})"


def _sentence(found: str, do: str) -> str:
    return f"{found}; {do}" if do else found
