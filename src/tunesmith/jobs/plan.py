"""The plan: what a recipe will do, before anything starts. No torch, no side effects but the cached file hashes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from math import ceil, inf
from pathlib import Path

from tunesmith.data.findings import Finding, examine
from tunesmith.data.order import Order, holdout_visits
from tunesmith.engines.index import engine_named
from tunesmith.engines.protocol import Base, Engine, Estimate, Machine, PhaseCost
from tunesmith.jobs.bases import named_bases
from tunesmith.jobs.forecast import ConceptShare, DiskForecast, Offer, PhaseForecast, Plan, Refusal, gib
from tunesmith.jobs.items import Gathered, gather
from tunesmith.jobs.machine import available_memory_bytes, read_machine, unmeasured_machine
from tunesmith.jobs.offers import offers_for
from tunesmith.jobs.refusals import check_engine, refused
from tunesmith.recipe.schema import Recipe
from tunesmith.training.components import settled, total_steps, validate_every_steps
from tunesmith.weights.atomic import free_bytes

# The newest two states and the best one stay, and one is being written.
_STATES_AT_ONCE = 4
# Seconds of a real step over those of its arithmetic at the probed rates. A full-size U-Net with a LoRA on two cores
# took 2.1 (bf16, 256 pixels, prepacked) to 3.3 (the same, plain) times as long; large batches of large layers come
# nearer to the arithmetic.
_TIME_FACTORS = (1.3, 3.3)
# What a step takes besides its arithmetic: layers called one by one, the optimiser, the journal. It decides for small
# bases: 400 steps of a LoRA on a base of 3 M parameters took 27 to 100 s, of which 3 to 7 were arithmetic.
_STEP_OVERHEAD_SECONDS = (0.02, 0.25)


def plan_recipe(
    recipe: Recipe, home: Path, *, on_progress: Callable[[int, int], None] | None = None
) -> tuple[Plan, Gathered]:
    """Read what the recipe names and plan it; the items are handed back so that nothing is read twice.

    Raises what a person must mend first: RecipeError, DataError, WeightsError.
    """
    engine = engine_named(recipe.engine)
    check_engine(recipe, engine)
    recipe = named_bases(recipe, home)
    base = engine.open(recipe.base)
    gathered = gather(recipe, engine, home=home, on_progress=on_progress)
    return make_plan(recipe, engine, base, gathered=gathered, machine=read_machine(home), home=home), gathered


def refuse_or_pass(recipe: Recipe, home: Path) -> Plan:
    """The plan of a recipe that can work here. Raises PlanRefused naming every reason and the first way out."""
    plan, _ = plan_recipe(recipe, home)
    check_refusals(plan)
    return plan


def check_refusals(plan: Plan) -> None:
    """Raise PlanRefused where the plan has refusals."""
    if plan.refusals:
        raise refused(plan.refusals)


def make_plan(
    recipe: Recipe, engine: Engine, base: Base, *, gathered: Gathered, machine: Machine | None, home: Path
) -> Plan:
    """The plan from what was read. `machine` is None where this one was never measured: time stays unknown then."""
    check_engine(recipe, engine)
    recipe = settled(engine.facts, recipe)
    order = order_of(recipe, engine, gathered)
    steps = total_steps(recipe.length, order.batches_per_epoch)
    recipe = replace(recipe, length=replace(recipe.length, steps=steps))
    shapes = views_by_shape(recipe, engine, gathered)
    known = machine if machine is not None else unmeasured_machine(_device(recipe, machine))
    estimate = engine.estimate(base, recipe, shapes, known)
    peak = peak_bytes(estimate)
    limit = memory_limit_bytes(recipe, machine)
    phases = tuple(phase_forecast(_counted(cost, recipe, gathered), machine) for cost in estimate.phases)
    disk = _disk(recipe, estimate, steps, home)

    def estimate_with(changed: Recipe) -> Estimate:
        return engine.estimate(base, changed, views_by_shape(changed, engine, gathered), known)

    offers = offers_for(recipe, estimate_with, peak_bytes=peak, limit_bytes=limit) if peak > limit // 2 else ()
    epochs = steps * recipe.length.accumulation / order.batches_per_epoch
    findings = examine(
        gathered.every,
        engine.facts,
        notes=gathered.notes,
        section=recipe.data,
        concepts=recipe.output.concepts,
        resolution_pixels=_resolution_pixels(recipe),
    )
    return Plan(
        name=recipe.output.name,
        engine=engine.facts.title,
        method=recipe.method.name,
        stage=recipe.method.stage,
        components=recipe.method.components,
        base=base.source,
        items=len(gathered.own),
        held_out=len(gathered.held_out),
        prior_items=_prior_items(recipe, gathered),
        concepts=_concepts(gathered),
        shapes=shapes,
        steps=steps,
        epochs=epochs,
        batches_per_epoch=order.batches_per_epoch,
        batch_items=recipe.length.batch_items,
        accumulation=recipe.length.accumulation,
        views_per_item=_views(gathered, epochs),
        total_parameters=estimate.total_parameters,
        trainable_parameters=estimate.trainable_parameters,
        device=known.device,
        phases=phases,
        memory_peak_bytes=peak,
        memory_available_bytes=limit,
        minutes=total_minutes(phases),
        disk=disk,
        findings=findings,
        refusals=(
            *_base_refusals(engine, base, recipe),
            *_data_refusals(engine, gathered, findings),
            *_memory_refusals(peak, limit, offers),
            *_disk_refusals(disk, recipe),
        ),
        offers=offers,
        notes=_notes(recipe, gathered, machine),
    )


def order_of(recipe: Recipe, engine: Engine, gathered: Gathered) -> Order:
    """The batches of a recipe's items, as the training draws them."""
    items = gathered.training
    return Order(
        shapes=[engine.shape(item, recipe) for item in items],
        repeats=[item.repeats for item in items],
        prior=[item.prior for item in items],
        batch_items=recipe.length.batch_items,
        prior_fraction=recipe.data.prior_fraction if gathered.prior else 0.0,
        seed=recipe.length.seed,
    )


def views_by_shape(recipe: Recipe, engine: Engine, gathered: Gathered) -> Mapping[str, int]:
    """How often one epoch visits each shape, most frequent first."""
    counts: Counter[str] = Counter()
    for item in gathered.training:
        counts[engine.shape(item, recipe)] += item.repeats
    return dict(counts.most_common())


def peak_bytes(estimate: Estimate) -> int:
    """The largest peak of any phase."""
    return max(cost.peak_bytes for cost in estimate.phases)


def memory_limit_bytes(recipe: Recipe, machine: Machine | None) -> int:
    """The recipe's limit, or what the device has: free memory on a CPU, all of it on an accelerator."""
    if recipe.resources.memory_limit_bytes is not None:
        return recipe.resources.memory_limit_bytes
    device = _device(recipe, machine)
    if device != "cpu" and machine is not None and machine.device.partition(":")[0] == device:
        return machine.memory_bytes
    return available_memory_bytes()


def phase_seconds(cost: PhaseCost, machine: Machine) -> float | None:
    """Seconds of a phase by the machine's measured rates; None where it has no rate for the kind of work."""
    seconds = 0.0
    rates = {"matrix": machine.matrix_rate, "convolution": machine.convolution_rate}
    for kind, operations in cost.operations.items():
        table = rates.get(kind, machine.matrix_rate)
        rate = table.get(cost.dtype, table.get("fp32", 0.0))
        if rate <= 0:
            return None
        seconds += cost.units * operations / rate
    return seconds


def _device(recipe: Recipe, machine: Machine | None) -> str:
    asked = recipe.resources.device.partition(":")[0]
    if asked != "auto":
        return asked
    return machine.device.partition(":")[0] if machine is not None else "cpu"


def _counted(cost: PhaseCost, recipe: Recipe, gathered: Gathered) -> PhaseCost:
    """A validation's units as they will be: the engine sees only the items that train. One unit is one item."""
    if cost.name != "validate":
        return cost
    steps = recipe.length.steps or 1
    validations = 1 + ceil(steps / validate_every_steps(recipe, steps))  # also before the first step
    return replace(cost, units=validations * holdout_visits(len(gathered.held_out)))


def phase_forecast(cost: PhaseCost, machine: Machine | None) -> PhaseForecast:
    """One phase with its time as a range; unknown where the machine was never measured."""
    seconds = phase_seconds(cost, machine) if machine is not None else None
    minutes = None
    if seconds is not None:
        overheads = _STEP_OVERHEAD_SECONDS if cost.name == "train" else (0.0, 0.0)
        low, high = (
            (seconds * factor + cost.units * overhead) / 60
            for factor, overhead in zip(_TIME_FACTORS, overheads, strict=True)
        )
        minutes = (low, high)
    return PhaseForecast(cost.name, cost.peak_bytes, cost.units, minutes)


def total_minutes(phases: tuple[PhaseForecast, ...]) -> tuple[float, float] | None:
    """The whole job's minutes (low, high), or None where one phase's are unknown."""
    low = high = 0.0
    for phase in phases:
        if phase.minutes is None:
            return None
        # What is encoded already is not encoded again, so the shortest time leaves encoding out.
        low += 0.0 if phase.name == "encode" else phase.minutes[0]
        high += phase.minutes[1]
    return low, high


def _disk(recipe: Recipe, estimate: Estimate, steps: int, home: Path) -> DiskForecast:
    every = recipe.output.save_every_steps
    kept = 2 + (steps // every if every else 0)  # the last one and the best one
    elsewhere = recipe.output.folder is not None
    exports = 0 if elsewhere else len(recipe.output.exports) * estimate.checkpoint_bytes
    return DiskForecast(
        cache_bytes=min(estimate.cache_bytes, recipe.resources.cache_limit_bytes),
        states_bytes=_STATES_AT_ONCE * estimate.state_bytes,
        checkpoints_bytes=kept * estimate.checkpoint_bytes,
        exports_bytes=exports,
        reserve_bytes=recipe.resources.disk_reserve_bytes,
        free_bytes=free_bytes(home),
    )


def _concepts(gathered: Gathered) -> tuple[ConceptShare, ...]:
    visits: Counter[str] = Counter()
    items: Counter[str] = Counter()
    for item in gathered.own:
        visits[item.concept] += item.repeats
        items[item.concept] += 1
    total = sum(visits.values())
    return tuple(ConceptShare(name, items[name], count, count / total) for name, count in visits.most_common())


def _prior_items(recipe: Recipe, gathered: Gathered) -> int:
    if recipe.data.prior == "generated" and not gathered.prior:
        return recipe.data.prior_items
    return len(gathered.prior)


def _views(gathered: Gathered, epochs: float) -> tuple[float, float]:
    """How often the least and the most repeated item is visited."""
    repeats = [item.repeats for item in gathered.own]
    return min(repeats) * epochs, max(repeats) * epochs


def _base_refusals(engine: Engine, base: Base, recipe: Recipe) -> tuple[Refusal, ...]:
    """A base whose parts have no weights yet can only be trained on from scratch. Raises RecipeError for a size that
    the base cannot take."""
    engine.encoders(base, recipe)
    absent = [role for role, part in base.parts.items() if part.path is None]
    needed = recipe.method.components if recipe.method.name == "full" else absent
    missing = [role for role in absent if role in needed]
    if not missing or recipe.method.name == "scratch":
        return ()
    reason = f"{base.source} has no {' and no '.join(missing)} yet: nothing was trained there"
    return (Refusal(reason, "train that first (method scratch, this one in base.parts), or name a whole base"),)


def _data_refusals(engine: Engine, gathered: Gathered, findings: tuple[Finding, ...]) -> tuple[Refusal, ...]:
    errors = tuple(Refusal(found.message, found.do) for found in findings if found.severity == "error")
    least, found = engine.facts.minimum_items, len(gathered.own)
    if errors or found >= least:
        return errors
    reason = f"{found} items are left to train on, and {engine.facts.title} needs {least}"
    return (Refusal(reason, "add items, or hold out fewer (data.holdout_fraction=0)", ("data.holdout_fraction=0",)),)


def _resolution_pixels(recipe: Recipe) -> int | None:
    """The side trained at, where the engine's section has one."""
    names = {entry.name for entry in fields(recipe.settings)}
    return int(recipe.settings.resolution) if "resolution" in names else None


def _memory_refusals(peak: int, limit: int, offers: tuple[Offer, ...]) -> tuple[Refusal, ...]:
    if peak <= limit:
        return ()
    reason = f"this needs {gib(peak)} of memory and {gib(limit)} are available"
    fitting = [offer for offer in offers if offer.peak_bytes <= limit]
    if fitting:
        best = fitting[0]
        change = f"{best.change} fits in {gib(best.peak_bytes)}, at the cost of {best.cost}: {' '.join(best.overrides)}"
        return (Refusal(reason, change, best.overrides),)
    lowest = min((offer.peak_bytes for offer in offers), default=inf)
    least = f"; the least that any change brings it to is {gib(int(lowest))}" if lowest < peak else ""
    return (Refusal(f"{reason}{least}", "use a machine with more memory, or a smaller base"),)


def _disk_refusals(disk: DiskForecast, recipe: Recipe) -> tuple[Refusal, ...]:
    """Too little room, or a file where a folder is to be: found before hours of training rather than after."""
    found = []
    if disk.needed_bytes > disk.free_bytes:
        reason = (
            f"this writes up to {gib(disk.needed_bytes - disk.reserve_bytes)} and must leave {gib(disk.reserve_bytes)} "
            f"free, and the disk has {gib(disk.free_bytes)}"
        )
        found.append(Refusal(reason, "free some space, choose another home, or lower resources.disk_reserve_bytes"))
    folder = Path(recipe.output.folder or ".")
    blocked = next(place for place in (folder, *folder.parents, Path()) if place.exists())
    if not blocked.is_dir():
        found.append(
            Refusal(f"output.folder is {folder}, and {blocked} is a file", "name a folder (output.folder, --out)")
        )
    return tuple(found)


def _notes(recipe: Recipe, gathered: Gathered, machine: Machine | None) -> tuple[str, ...]:
    notes = []
    if not gathered.held_out:
        notes.append("nothing is held out: there will be no held-out loss to choose the best checkpoint by")
    if recipe.output.preview_every_steps is not None and not recipe.output.preview_prompts:
        notes.append("output.preview_prompts is empty: previews use captions of the items")
    asked = recipe.resources.device.partition(":")[0]
    if machine is not None and asked not in ("auto", machine.device.partition(":")[0]):
        notes.append(f"measured was {machine.device}, not {asked}: memory and time are guesses; run `tunesmith doctor`")
    return tuple(notes)
