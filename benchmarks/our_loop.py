"""tunesmith's own training of the same LoRA: encode once, frozen base in bf16, convolutions packed, our step.

It goes through the same calls as a train job, and leaves behind what the reference needs to do the same steps: which
picture and caption each step uses, the noise, the timesteps and the adapter's first weights.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.dialogue import answer, peak_bytes
from tunesmith.data.cache import Cache
from tunesmith.data.source import read_items
from tunesmith.engines.index import engine_named
from tunesmith.engines.protocol import Engine
from tunesmith.numeric.rng import BatchRng, generator
from tunesmith.recipe.schema import (
    BaseSection,
    DataSection,
    LengthSection,
    MethodSection,
    OptimiserSection,
    Recipe,
    ResourceSection,
)
from tunesmith.training.batches import Batches, Microbatch
from tunesmith.training.components import settled
from tunesmith.training.device import choose_device, choose_precision
from tunesmith.training.encode import CachedReader, encode_items
from tunesmith.training.packed import pack_frozen_convolutions
from tunesmith.training.prepare import prepare
from tunesmith.training.step import make_step
from tunesmith.weights.files import write_safetensors


def recipe_of(base: str, pictures: str, resolution: int, *, steps: int, precision: str, rate: float) -> Recipe:
    """LoRA of rank 16 on the denoiser's linear and 1x1 layers; latents are the mean, so nothing is drawn there."""
    engine = engine_named("stable_diffusion")
    recipe = Recipe(
        engine="stable_diffusion",
        settings=engine.facts.section(resolution=resolution, latents="mean"),
        data=DataSection(paths=(pictures,)),
        base=BaseSection(path=base),
        method=MethodSection(rank=16),
        optimiser=OptimiserSection(rate=rate),
        length=LengthSection(steps=steps),
        resources=ResourceSection(precision=precision),
    )
    return settled(engine.facts, recipe)


def recorded(microbatch: Microbatch) -> Microbatch:
    """The same batch with its random draws written into it, so that another loop can repeat them."""
    assert microbatch.batch is not None
    latents = microbatch.batch.tensors["latents"]
    rng = BatchRng(1234, microbatch.rng.positions)
    draws = {"noise": rng.normal("noise", latents.shape[1:]), "timesteps": rng.integers("timestep", 0, 1000)}
    batch = dataclasses.replace(microbatch.batch, tensors={**microbatch.batch.tensors, **draws})
    return dataclasses.replace(microbatch, batch=batch)


def warm_factors(parameters: Mapping[str, torch.nn.Parameter]) -> None:
    """Up factors small but not zero, so that the losses also show how the adapter itself is computed."""
    for name, parameter in parameters.items():
        if name.endswith(".up"):
            with torch.no_grad():
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator(0, 0, name)))


def main() -> None:
    """Load, hand over what was drawn, answer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--base", required=True)
    parser.add_argument("--pictures", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--resolution", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--plain-convolutions", action="store_true")
    chosen = parser.parse_args()
    recipe = recipe_of(
        chosen.base,
        chosen.pictures,
        chosen.resolution,
        steps=chosen.steps,
        precision=chosen.precision,
        rate=chosen.rate,
    )
    engine = engine_named(recipe.engine)
    device = choose_device(recipe.resources)
    precision = choose_precision(recipe.resources, device, recipe.method)
    base = engine.open(recipe.base)
    items = read_items([Path(chosen.pictures)], recipe.data).items
    cache = Cache(chosen.work / "cache", 1 << 30)
    for _ in encode_items(engine, base, recipe=recipe, items=items, cache=cache, device=device):
        pass
    encoded_bytes = peak_bytes()
    model = engine.load_model(base, recipe, device, precision.dtype)
    state = prepare(engine, model, recipe=recipe)
    loaded_bytes = peak_bytes()
    warm_factors(state.parameters)
    packed = 0
    if not chosen.plain_convolutions:
        packed = sum(pack_frozen_convolutions(module) for module in model.components.values())
    packed_bytes = peak_bytes()
    reader = CachedReader(engine, base, recipe=recipe, cache=cache)
    batches = Batches(engine, items, recipe=recipe, reader=reader)
    step = make_step(engine, model, recipe=recipe, precision=precision, steps=chosen.steps)
    drawn = [tuple(recorded(one) for one in batches.microbatches(index)) for index in range(chosen.steps)]
    hand_over(chosen.work, engine, items, drawn, {k: v.detach().clone() for k, v in state.parameters.items()})

    def one_step(index: int) -> float:
        result = step(state, drawn[index])
        return result.loss

    memory = {"encoded_bytes": encoded_bytes, "loaded_bytes": loaded_bytes, "packed_bytes": packed_bytes}
    answer(one_step, precision=precision.name, packed=packed, **memory)


def hand_over(work: Path, engine: Engine, items: Any, drawn: list[tuple[Microbatch, ...]], factors: Any) -> None:
    """plan.json and plan.safetensors for the reference loop."""
    by_key = {item.key: item for item in items}
    plan, tensors = [], {f"factor.{name}": tensor for name, tensor in factors.items()}
    for index, (microbatch,) in enumerate(drawn):
        assert microbatch.batch is not None
        (key,) = microbatch.batch.keys
        item = by_key[key]
        plan.append({"picture": str(item.media["image"].path), "caption": item.text["caption"]})
        for name in ("noise", "timesteps"):
            tensors[f"{name}.{index}"] = microbatch.batch.tensors[name]
    (work / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    write_safetensors(work / "plan.safetensors", tensors)


if __name__ == "__main__":
    main()
