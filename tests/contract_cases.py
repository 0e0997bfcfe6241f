"""What the engine contract suite runs on: per engine a tiny base, a few items, and the recipes to try. No torch here.

A new engine joins the suite by one more entry in CASES.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.data.item import Item
from tunesmith.engines.index import engine_named
from tunesmith.engines.protocol import Engine, Machine
from tunesmith.recipe.schema import BaseSection, DataSection, MethodSection, Recipe
from tunesmith_test_engines.items import picture_items, sound_items

MACHINE = Machine("cpu", 8 << 30, 1, False, {"fp32": 1e10}, {"fp32": 1e10})


@dataclass(frozen=True)
class EngineCase:
    """One engine's entry. `write_base(path, seed)` writes different weights for different seeds.

    `settings` are values of the engine's own knobs that keep it tiny, `request` those of a generation request;
    `recorded` maps batch tensor names that replace random draws to what an item's value is made from:
    the name of a tensor of the same shape, or a number. `without_gradient` lists parameters that the objective never
    uses.
    """

    engine_name: str
    write_base: Callable[[Path, int], Path]
    write_items: Callable[[Path], tuple[Item, ...]]
    settings: Mapping[str, Any]
    variants: Mapping[str, Mapping[str, Any]]
    request: Mapping[str, Any]
    recorded: Mapping[str, str | int | float]
    without_gradient: frozenset[str] = frozenset()

    @property
    def engine(self) -> Engine:
        return engine_named(self.engine_name)

    def recipe(self, path: Path, method: MethodSection | None = None, variant: str = "plain") -> Recipe:
        """A recipe on the base at `path`; `variant` names an entry of `variants`: changed knobs by section."""
        changed = self.variants[variant]
        settings = self.engine.facts.section(**{**self.settings, **changed.get("engine", {})})
        return Recipe(
            self.engine_name,
            settings,
            data=DataSection(**changed.get("data", {})),
            base=BaseSection(path=str(path)),
            method=method or MethodSection(name="full", stage=self.engine.facts.stages[0].name),
        )

    def methods(self) -> dict[str, MethodSection]:
        """Every stage with its usual and with all components, fully trained and with adapters."""
        found = {}
        for stage in self.engine.facts.stages:
            for label, every in {"usual": False, "all": True}.items():
                for name in set(stage.methods) & {"full", "lora"}:
                    components = (stage.adaptable if name == "lora" else stage.components) if every else ()
                    section = MethodSection(name=name, stage=stage.name, components=components, rank=2, conv_rank=2)
                    found[f"{stage.name}-{name}-{label}"] = section
        return dict(sorted(found.items()))


def _write_pictures(path: Path, seed: int) -> Path:
    from tunesmith_test_engines.pictures import write_pictures_base

    return write_pictures_base(path, seed=seed)


def _write_tokens(path: Path, seed: int) -> Path:
    from tunesmith_test_engines.tokens import write_tokens_base

    return write_tokens_base(path, seed=seed)


def _write_tiny_sd(path: Path, seed: int) -> Path:
    from safetensors.torch import save_file

    from tiny_sd import single_file_tensors

    tensors = single_file_tensors()
    if seed:
        tensors = {name: tensor + 0.01 * seed for name, tensor in tensors.items()}
    save_file(tensors, path)
    return path


def _write_stable_diffusion(path: Path, seed: int) -> Path:
    from tiny_sd import write_single_file

    return write_single_file(path, seed=seed)


def _write_stable_audio(path: Path, seed: int) -> Path:
    from tiny_audio import write_folder

    return write_folder(path, seed)


CASES: Mapping[str, EngineCase] = {
    "test_pictures": EngineCase(
        "test_pictures",
        _write_pictures,
        lambda folder: picture_items(folder, 4),
        settings={},
        variants={
            "plain": {},
            "flip": {"engine": {"flip": True}, "data": {"caption_dropout": 0.5}},
            "tags": {"data": {"shuffle_tags": True, "tag_dropout": 0.3, "caption_dropout": 0.3}},
        },
        request={"steps": 2},
        recorded={"noise": "latents", "timesteps": 40},
    ),
    "test_tokens": EngineCase(
        "test_tokens",
        _write_tokens,
        sound_items,
        settings={"crop_tokens": 12},
        variants={"plain": {}, "dropout": {"data": {"caption_dropout": 0.5}}},
        request={"tokens": 5},
        recorded={},
    ),
    "stable_diffusion": EngineCase(
        "stable_diffusion",
        _write_tiny_sd,
        lambda folder: picture_items(folder, 4, control=False),
        settings={"resolution": 32},
        variants={
            "plain": {},
            "flip": {
                "engine": {"flip": True, "buckets": True, "bucket_low": 16, "bucket_high": 64, "bucket_step": 16},
                "data": {"caption_dropout": 0.5},
            },
            "tags": {"data": {"shuffle_tags": True, "tag_dropout": 0.3, "caption_dropout": 0.3}},
        },
        request={"steps": 2, "width": 32, "height": 32},
        recorded={"noise": "latents", "timesteps": 400},
    ),
    "stable_audio": EngineCase(
        "stable_audio",
        _write_stable_audio,
        sound_items,
        settings={"window_seconds": 0.5},
        variants={
            "plain": {},
            "flip": {
                "engine": {"polarity_flip": True, "whole_seconds": False, "crop": "start", "condition_dropout": 0.5},
                "data": {"caption_dropout": 0.5},
            },
            "tags": {"data": {"shuffle_tags": True, "tag_dropout": 0.3, "caption_dropout": 0.3}},
        },
        request={"steps": 2, "seconds": 0.2},
        recorded={"noise": "latents", "times": 0.4},
    ),
}

METHODS = [(case, label) for case, entry in CASES.items() for label in entry.methods()]
VARIANTS = [(case, variant) for case, entry in CASES.items() for variant in entry.variants]


def one_shape(case: EngineCase, items: tuple[Item, ...], recipe: Recipe) -> tuple[Item, ...]:
    """The largest set of items that may share a batch."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(case.engine.shape(item, recipe), []).append(item)
    return tuple(max(groups.values(), key=len))
