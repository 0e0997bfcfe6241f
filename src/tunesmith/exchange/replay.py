"""Replay: a recorded training run through our own training step, to see that it does the same.

    python -m tunesmith.exchange.replay RUN BASE [--json]

Instead of drawing latents, noise, timesteps and captions, the step is given those that were recorded, and starts from
the recorded adapter. Same losses and same final weights mean the same objective, gradients, clipping, optimiser and
learning rates. See docs/replay.md.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tunesmith.adapters.adapter import Adapter, Layer, Pair
from tunesmith.adapters.attached import Attached
from tunesmith.engines.index import engine_named, recipe_facts
from tunesmith.engines.protocol import Base, Batch, Engine
from tunesmith.errors import ExchangeError, TunesmithError
from tunesmith.exchange.recorded import RecordedRun, batch_tensors, read_run, update_groups
from tunesmith.exchange.sd_scripts import RecordedSettings, parse_flags, recorded_settings
from tunesmith.numeric.measures import relative_l2
from tunesmith.numeric.noise import alphas_cumprod, scaled_linear_betas
from tunesmith.numeric.rng import BatchRng
from tunesmith.recipe.load import recipe_from
from tunesmith.recipe.schema import Recipe
from tunesmith.training.batches import Microbatch
from tunesmith.training.components import settled
from tunesmith.training.device import choose_device, choose_precision
from tunesmith.training.prepare import prepare
from tunesmith.training.step import make_step
from tunesmith.weights.files import open_tensors

LOSS_TOLERANCE = 1e-5
WEIGHT_TOLERANCE = 1e-3


@dataclass(frozen=True)
class ReplayResult:
    """What came out, beside what was recorded.

    `losses` and `recorded_losses` are per micro-batch (None where none was recorded), not divided by the accumulation;
    `gradient_norms` (before clipping) and `rates` per update. `final` is our adapter, `weights` the relative L2
    difference of each recorded tensor (`<module>.up`, `.down`), `weights_total` that of all recorded up-weights taken
    as one vector.
    """

    losses: tuple[float, ...]
    recorded_losses: tuple[float | None, ...]
    gradient_norms: tuple[float, ...]
    rates: tuple[Mapping[str, float], ...]
    final: Adapter
    weights: Mapping[str, float]
    weights_total: float | None
    notes: tuple[str, ...]

    @property
    def loss_difference(self) -> float | None:
        """The largest difference of a loss; None where none was recorded."""
        pairs = zip(self.losses, self.recorded_losses, strict=True)
        found = [abs(ours - theirs) for ours, theirs in pairs if theirs is not None]
        return max(found) if found else None

    def agrees(self, loss: float = LOSS_TOLERANCE, weight: float = WEIGHT_TOLERANCE) -> bool:
        """Whether every loss and the final weights are within the tolerances; False where nothing was recorded."""
        measured = [(self.loss_difference, loss), (self.weights_total, weight)]
        return all(found is not None and found <= limit for found, limit in measured)


def replay(
    run_file: Path,
    base_path: Path,
    *,
    settings: str | None = None,
    device: str = "cpu",
    epoch_batches: int | None = None,
) -> ReplayResult:
    """Feed a recorded run through our training step on the base it was recorded on.

    `settings` replaces the flags in the file's header; `epoch_batches` says how many micro-batches an epoch had, where
    accumulation met its end. Raises ExchangeError naming what cannot be honoured, is missing or does not fit.
    """
    with open_tensors(Path(run_file)) as file:
        text = settings if settings is not None else file.metadata.get("settings")
        if text is None:
            raise ExchangeError(f"{run_file} does not say how it was recorded", expected="`settings` in its header")
        wanted, run = recorded_settings(parse_flags(text)), read_run(file)
        wanted = _without_absent_text_encoder(wanted, run)
        groups, note = update_groups(len(run.steps), wanted.accumulation, wanted.steps, epoch_batches)
        recipe, notes = _recipe(wanted, Path(base_path), updates=len(groups), device=device)
        return _replayed(run, wanted, recipe, groups=groups, notes=(*notes, *([note] if note else [])))


def _replayed(
    run: RecordedRun, wanted: RecordedSettings, recipe: Recipe, *, groups: Sequence[int], notes: tuple[str, ...]
) -> ReplayResult:
    engine = engine_named(recipe.engine)
    base = engine.open(recipe.base)
    torch_device = choose_device(recipe.resources)
    precision = choose_precision(recipe.resources, torch_device, recipe.method)
    model = engine.load_model(base, recipe, torch_device, precision.dtype)
    state = prepare(engine, model, recipe=recipe, scaler=precision.scaler)
    assert state.attached is not None
    state.attached.load(_initial(run, engine, base, state.attached))
    assert recipe.length.steps is not None
    step = make_step(engine, model, recipe=recipe, precision=precision, steps=recipe.length.steps)
    losses: list[float] = []
    norms: list[float] = []
    rates: list[Mapping[str, float]] = []
    first = 0
    for count in groups:
        microbatches = list(_microbatches(run, wanted, range(first, first + count), alpha_bar=_alpha_bar(base)))
        # An update at an epoch's end has fewer micro-batches, each still divided by the full accumulation.
        padding = [Microbatch(None, BatchRng(0, ()), 0, ())] * (wanted.accumulation - count)
        result = step(state, [*microbatches, *padding])
        losses += result.totals[:count]
        norms.append(result.gradient_norm)
        rates.append(result.rates)
        first += count
    final = state.attached.adapter()
    weights, total = _compared(run, engine, base, final)
    recorded = tuple(run.loss(index) for index in range(len(run.steps)))
    return ReplayResult(tuple(losses), recorded, tuple(norms), tuple(rates), final, weights, total, notes)


def _without_absent_text_encoder(wanted: RecordedSettings, run: RecordedRun) -> RecordedSettings:
    """Train only the components that the recording has adapters of; the note says so."""
    prefixes = {"denoiser": "lora_unet_", "text_encoder": "lora_te"}
    method = wanted.document["method"]
    present = [name for name in method["components"] if any(key.startswith(prefixes[name]) for key in run.init)]
    if not present:
        raise ExchangeError(f"{run.file.path} holds no initial adapter of what trains", expected="init.<module>. names")
    if present == method["components"]:
        return wanted
    optimiser = wanted.document["optimiser"]
    document = {
        **wanted.document,
        "method": {**method, "components": present},
        "optimiser": {**optimiser, "rates": {name: optimiser["rates"][name] for name in present}},
        "data": {"shuffle_tags": "text_encoder" not in present},
    }
    note = f"the flags train {' and '.join(method['components'])}, the recording has only {present[0]}: taken as that"
    return replace(wanted, document=document, notes=(*wanted.notes, note))


def _recipe(wanted: RecordedSettings, base_path: Path, *, updates: int, device: str) -> tuple[Recipe, tuple[str, ...]]:
    notes = list(wanted.notes)
    steps = wanted.steps
    if steps is None:
        steps = updates
        notes.append(f"the flags give epochs, not steps: rates are spread over the {updates} recorded updates")
    warmup = wanted.warmup if wanted.warmup >= 1 else wanted.warmup * steps
    document: dict[str, Any] = {name: dict(section) for name, section in wanted.document.items()}
    document["base"] = {"path": str(base_path)}
    document["optimiser"]["warmup_steps"] = min(int(warmup), steps)
    document["length"]["steps"] = max(steps, updates)
    document["resources"]["device"] = device
    if max(steps, updates) != steps:
        raise ExchangeError(f"the recording has {updates} updates, its flags {steps}", expected="no more than that")
    recipe = settled(engine_named("stable_diffusion").facts, recipe_from(document, recipe_facts))
    return recipe, tuple(notes)


def _initial(run: RecordedRun, engine: Engine, base: Base, attached: Attached) -> Adapter:
    """The recorded initial adapter over ours; up-weights that were not recorded start at zero."""
    layers: dict[Layer, Pair] = dict(attached.adapter().layers)
    absent = set(layers)
    for module, tensors in run.init.items():
        layer = next(iter(engine.layouts.adapter_layers("kohya", module, base)), None)
        if layer is None:
            raise ExchangeError(f"the recorded module {module!r} is no layer of this base", do="check the base")
        if layer not in layers:
            if "up" in tensors and bool(tensors["up"].any()):
                raise ExchangeError(f"{module} does not train, and its recorded adapter is not zero")
            continue
        if "down" not in tensors:
            raise ExchangeError(f"the recording lacks init.{module}.lora_down.weight")
        ours = layers[layer]
        alpha = float(tensors["alpha"]) if "alpha" in tensors else ours.alpha
        down = tensors["down"].float()
        up = tensors["up"].float() if "up" in tensors else torch.zeros_like(ours.up)
        if down.shape != ours.down.shape or up.shape != ours.up.shape:
            raise ExchangeError(
                f"init.{module} is {list(down.shape)}, {list(up.shape)}",
                expected=f"{list(ours.down.shape)}, {list(ours.up.shape)} by the flags and this base",
            )
        layers[layer] = Pair(down, up, alpha)
        absent.discard(layer)
    if absent:
        component, canonical = sorted(absent)[0]
        stem = engine.layouts.adapter_stem("kohya", component, canonical)
        raise ExchangeError(f"the recording lacks init.{stem}.lora_down.weight ({len(absent)} modules in all)")
    return Adapter(layers)


def _microbatches(
    run: RecordedRun, wanted: RecordedSettings, steps: range, *, alpha_bar: torch.Tensor
) -> Iterator[Microbatch]:
    for index in steps:
        tensors = batch_tensors(run, index, alpha_bar, free_noise=wanted.free_noise)
        items = tensors["latents"].shape[0]
        weights = run.read(index, "loss_weights")
        if weights is None and wanted.prior_unknown:
            raise ExchangeError(
                f"step {index} lacks loss_weights", expected="them, with regularisation pictures of another weight"
            )
        weights = torch.ones(items) if weights is None else weights.float().reshape(-1).expand(items)
        names = tuple(f"recorded step {index}, item {item}" for item in range(items))
        batch = Batch(tensors=tensors, keys=names, concepts=("",) * items, weights=weights)
        yield Microbatch(batch, BatchRng(0, tuple(range(index, index + items))), items, names)


def _alpha_bar(base: Base) -> torch.Tensor:
    schedule = base.architecture["scheduler"]
    return alphas_cumprod(
        scaled_linear_betas(schedule["beta_start"], schedule["beta_end"], schedule["num_train_timesteps"])
    )


def _compared(run: RecordedRun, engine: Engine, base: Base, final: Adapter) -> tuple[dict[str, float], float | None]:
    """Relative L2 difference of every recorded final tensor, and of all up-weights as one vector."""
    found: dict[str, float] = {}
    squares = [0.0, 0.0]
    for module, tensors in run.final.items():
        layer = next(iter(engine.layouts.adapter_layers("kohya", module, base)), None)
        if layer is None:
            raise ExchangeError(f"the recorded module {module!r} is no layer of this base", do="check the base")
        for slot in ("up", "down"):
            recorded = tensors.get(slot)
            if recorded is None:
                continue
            if layer in final.layers:
                ours = (final.layers[layer].up if slot == "up" else final.layers[layer].down).double()
            elif slot == "up":
                ours = torch.zeros_like(recorded, dtype=torch.float64)  # it did not train, and started at zero
            else:
                continue
            theirs = recorded.double().reshape(ours.shape)
            found[f"{module}.{slot}"] = relative_l2(ours, theirs)
            if slot == "up":
                squares[0] += float((ours - theirs).square().sum())
                squares[1] += float(theirs.square().sum())
    if not found:
        return found, None
    return found, math.sqrt(squares[0] / squares[1]) if squares[1] else math.sqrt(squares[0])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 where everything agrees, 1 where it does not, 2 for what cannot be replayed."""
    parser = argparse.ArgumentParser(
        prog="python -m tunesmith.exchange.replay", description="Replay a recorded training run through our own step."
    )
    parser.add_argument("run", type=Path, help="the recorded run (.safetensors)")
    parser.add_argument("base", type=Path, help="the base it was recorded on: a file or a diffusers folder")
    parser.add_argument("--settings", help="sd-scripts flags to use instead of those in the file's header")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda")
    parser.add_argument("--epoch-batches", type=int, help="micro-batches in an epoch, where accumulation meets its end")
    parser.add_argument("--loss-tolerance", type=float, default=LOSS_TOLERANCE)
    parser.add_argument("--weight-tolerance", type=float, default=WEIGHT_TOLERANCE)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    given = parser.parse_args(arguments)
    try:
        result = replay(
            given.run,
            given.base,
            settings=given.settings,
            device=given.device,
            epoch_batches=given.epoch_batches,
        )
    except TunesmithError as error:
        sys.stderr.write(f"error: {error.message}\n")
        return error.exit_code
    agrees = result.agrees(given.loss_tolerance, given.weight_tolerance)
    shown = json.dumps(_document(result, agrees), indent=2) if given.json else _report(result, agrees)
    sys.stdout.write(f"{shown}\n")
    return 0 if agrees else 1


def _document(result: ReplayResult, agrees: bool) -> dict[str, Any]:
    return {
        "agrees": agrees,
        "losses": result.losses,
        "recorded_losses": result.recorded_losses,
        "loss_difference": result.loss_difference,
        "weight_difference": result.weights_total,
        "weight_differences": dict(result.weights),
        "gradient_norms": result.gradient_norms,
        "rates": [dict(rates) for rates in result.rates],
        "notes": list(result.notes),
    }


def _report(result: ReplayResult, agrees: bool) -> str:
    lines = ["step        loss    recorded  difference"]
    for index, (ours, theirs) in enumerate(zip(result.losses, result.recorded_losses, strict=True)):
        beside = "           -           -" if theirs is None else f"{theirs:12.8f}  {abs(ours - theirs):10.2g}"
        lines.append(f"{index:4d}  {ours:10.8f}{beside}")
    if result.weights:
        worst = max(result.weights, key=lambda name: result.weights[name])
        lines.append(f"final weights: relative L2 difference {result.weights_total:.3g} of all up-weights together,")
        lines.append(f"               largest of one tensor {result.weights[worst]:.3g} ({worst})")
    lines += [f"note: {note}" for note in result.notes]
    lines.append("agrees" if agrees else "does not agree")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
