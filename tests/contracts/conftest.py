"""Fixtures of the contract suites: an engine opened on its tiny base, its items, everything encoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from contract_cases import CASES, EngineCase, one_shape
from tunesmith.data.item import Item
from tunesmith.engines.protocol import Base, Batch, Engine
from tunesmith.recipe.schema import MethodSection, Recipe


@dataclass(frozen=True)
class Opened:
    """One engine at work: its base on disk, opened, and its items."""

    case: EngineCase
    path: Path
    base: Base
    items: tuple[Item, ...]

    @property
    def engine(self) -> Engine:
        return self.case.engine

    def recipe(self, method: MethodSection | None = None, variant: str = "plain") -> Recipe:
        return self.case.recipe(self.path, method, variant)

    def encoded(self, recipe: Recipe) -> dict[tuple[str, str], Mapping[str, Any]]:
        """(item key, label) -> tensors, exactly what `wants` lists and nothing else."""
        import torch

        found = {}
        for spec in self.engine.encoders(self.base, recipe):
            encoder = self.engine.open_encoder(self.base, recipe, spec.name, torch.device("cpu"))
            for item in self.items:
                for want in self.engine.wants(item, recipe):
                    if want.encoder == spec.name:
                        source = item.media[want.role] if want.text is None else want.text
                        found[item.key, want.label] = self.engine.encode(encoder, source, want.variant)
        return found

    def model(self, recipe: Recipe) -> Any:
        import torch

        return self.engine.load_model(self.base, recipe, torch.device("cpu"), torch.float32)

    def examples(self, recipe: Recipe, count: int = 3) -> list[Any]:
        """Visits at positions 0, 1, ... of items that may share a batch."""
        from tunesmith.numeric.rng import ItemRng

        encoded = self.encoded(recipe)
        items = one_shape(self.case, self.items, recipe)
        chosen = [items[index % len(items)] for index in range(count)]
        return [
            self.engine.draw(item, lambda label, item=item: encoded[item.key, label], recipe, ItemRng(7, place))
            for place, item in enumerate(chosen)
        ]

    def batch(self, recipe: Recipe, count: int = 3) -> Batch:
        return self.engine.collate(self.examples(recipe, count))


@pytest.fixture(scope="session")
def open_case(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Opened]:
    """Open an engine's case by name, once a session."""
    kept: dict[str, Opened] = {}

    def opened(name: str) -> Opened:
        if name not in kept:
            from tunesmith.recipe.schema import BaseSection

            case, folder = CASES[name], tmp_path_factory.mktemp(name)
            path = case.write_base(folder / "first.safetensors", 0)
            kept[name] = Opened(
                case, path, case.engine.open(BaseSection(path=str(path))), case.write_items(folder / "items")
            )
        return kept[name]

    return opened
