"""A whole tiny training run for tests: items and a base on disk, encoded once, then state, batches and step."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from tunesmith.adapters.adapter import Adapter
from tunesmith.data.cache import Cache
from tunesmith.data.item import Item
from tunesmith.engines.index import engine_named
from tunesmith.engines.protocol import Base, Engine, Model
from tunesmith.events import Event, StepDone
from tunesmith.recipe.schema import (
    BaseSection,
    DataSection,
    LengthSection,
    MethodSection,
    OptimiserSection,
    Recipe,
    ResourceSection,
)
from tunesmith.training.batches import Batches
from tunesmith.training.components import settled
from tunesmith.training.device import choose_precision, environment_record, set_threads
from tunesmith.training.encode import CachedReader, encode_items
from tunesmith.training.loop import Until, train
from tunesmith.training.prepare import prepare
from tunesmith.training.snapshot import load_state, newest_state, save_state
from tunesmith.training.state import TrainState
from tunesmith.training.step import TrainingStep
from tunesmith.training.world import World
from tunesmith_test_engines.items import picture_items, sound_items
from tunesmith_test_engines.pictures import write_pictures_base
from tunesmith_test_engines.tokens import write_tokens_base

CPU = torch.device("cpu")
STAGE = {"test_pictures": "denoiser", "test_tokens": "decoder"}


def write_world(folder: Path) -> None:
    """Bases and items of both test engines under `folder`."""
    write_pictures_base(folder / "test_pictures.safetensors")
    write_tokens_base(folder / "test_tokens.safetensors")
    items = {"test_pictures": picture_items(folder / "pictures", 5), "test_tokens": sound_items(folder / "sounds", 4)}
    for name, found in items.items():
        (folder / f"{name}.items").write_bytes(pickle.dumps(found))


def items_of(folder: Path, engine_name: str) -> tuple[Item, ...]:
    """Five pictures in three shapes, or four sounds: drawn once, since several processes read them."""
    found: tuple[Item, ...] = pickle.loads((folder / f"{engine_name}.items").read_bytes())
    return found


def recipe_of(folder: Path, engine_name: str = "test_pictures", **changes: Mapping[str, Any]) -> Recipe:
    """A recipe on the base in `folder`; `changes` are knobs by section."""
    named = engine_named(engine_name)
    method = {"stage": STAGE[engine_name], "rank": 2, **changes.get("method", {})}
    base: dict[str, Any] = {"path": str(folder / f"{engine_name}.safetensors")}
    if method.get("name") == "scratch":
        base = {"path": None, "architecture": "tiny"}
    return Recipe(
        engine_name,
        named.facts.section(**changes.get("engine", {})),
        data=DataSection(**changes.get("data", {})),
        base=BaseSection(**{**base, **changes.get("base", {})}),
        method=MethodSection(**method),
        optimiser=OptimiserSection(**{"rate": 1e-2, **changes.get("optimiser", {})}),
        length=LengthSection(**{"steps": 6, "batch_items": 2, **changes.get("length", {})}),
        resources=ResourceSection(**{"precision": "fp32", **changes.get("resources", {})}),
    )


@dataclass(frozen=True)
class Run:
    """Everything one training run is made of. Frozen, but its state moves."""

    engine: Engine
    base: Base
    recipe: Recipe
    items: Sequence[Item]
    reader: CachedReader
    model: Model
    state: TrainState
    batches: Batches
    step: TrainingStep
    environment: dict[str, Any] = field(repr=False)

    def go(self, steps: int, **arguments: Any) -> list[Event]:
        """Train until `steps` steps are done in all."""
        given: dict[str, Any] = {"should_stop": lambda: False, "clock": lambda: 0.0, "step": self.step, **arguments}
        return list(train(self.state, self.batches, until=Until(steps), **given))

    def losses(self, steps: int) -> list[float]:
        """Loss of each step up to `steps`."""
        return [event.loss for event in self.go(steps) if isinstance(event, StepDone)]

    def save(self, folder: Path, recipe_hash: str = "r") -> Path:
        """Write the state under `folder`."""
        return Path(save_state(self.state, folder, environment=self.environment, recipe_hash=recipe_hash).path)

    def load(self, folder: Path, **arguments: Any) -> tuple[str, ...]:
        """Read the newest state under `folder`."""
        newest = newest_state(folder)
        assert newest is not None
        return load_state(self.state, newest, environment=self.environment, **arguments)

    def bits(self) -> dict[str, torch.Tensor]:
        """Copies of everything that trains or remembers, by name."""
        found = {f"parameter/{name}": value.detach().clone() for name, value in self.state.parameters.items()}
        found.update({f"ema/{name}": value.clone() for name, value in (self.state.ema or {}).items()})
        for index, entries in self.state.optimiser.state_dict()["state"].items():
            for key, value in entries.items():
                found[f"optimiser/{index}/{key}"] = torch.as_tensor(value).clone()
        for at, group in enumerate(self.state.optimiser.param_groups):
            for key, value in group.items():
                if isinstance(value, torch.Tensor | float) and key != "lr":
                    found[f"group/{at}/{key}"] = torch.as_tensor(value).clone()
        return found


def make_run(
    folder: Path, recipe: Recipe, *, world: World | None = None, init: Adapter | None = None, items: Any = None
) -> Run:
    """Encode what is missing, load, prepare."""
    engine = engine_named(recipe.engine)
    recipe = settled(engine.facts, recipe)
    set_threads(recipe.resources.threads, CPU)
    base = engine.open(recipe.base)
    items = items_of(folder, recipe.engine) if items is None else items
    cache = Cache(folder / "cache", 1 << 30)
    list(encode_items(engine, base, recipe=recipe, items=items, cache=cache, device=CPU))
    precision = choose_precision(recipe.resources, CPU, recipe.method)
    model = engine.load_model(base, recipe, CPU, precision.dtype)
    state = prepare(engine, model, recipe=recipe, world=world, init=init)
    reader = CachedReader(engine, base, recipe=recipe, cache=cache)
    batches = Batches(engine, items, recipe=recipe, reader=reader, world=world or World())
    steps = recipe.length.steps or 1
    step = TrainingStep(engine, model, recipe=recipe, precision=precision, steps=steps)
    environment = environment_record(CPU, precision)
    return Run(engine, base, recipe, items, reader, model, state, batches, step, environment)


def assert_same_bits(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> None:
    """Same names, and every tensor equal to the bit."""
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different, f"{len(different)} of {len(a)} differ, first {different[0]}"


def main(folder: Path, states: Path, out: Path, until: int, changes: str) -> None:
    """Another process: resume from `states`, train, and leave the bits in `out`."""
    document = json.loads(changes)
    run = make_run(folder, recipe_of(folder, document.pop("name"), **document))
    run.load(states)
    run.go(until)
    torch.save(run.bits(), out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), sys.argv[5])


def with_section(recipe: Recipe, section: str, **changes: Any) -> Recipe:
    """The recipe with knobs of one section changed."""
    return replace(recipe, **{section: replace(getattr(recipe, section), **changes)})
