from __future__ import annotations

from typing import Any

import pytest

from recipe_engines import lookup
from tunesmith.recipe.load import recipe_from, resume_differences
from tunesmith.recipe.schema import Recipe

OLD = {
    "engine": "toy",
    "base": {"path": "x"},
    "data": {"paths": ["a"]},
    "length": {"steps": 100, "epochs": 4},
    "output": {"preview_prompts": ["a fox"]},
}


def recipe(changes: dict[str, Any]) -> Recipe:
    document: dict[str, Any] = {name: dict(v) if isinstance(v, dict) else {"name": v} for name, v in OLD.items()}
    for path, value in changes.items():
        section, _, name = path.partition(".")
        document.setdefault(section, {})[name] = value
    return recipe_from(document, lookup)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"length.steps": 101},
        {"length.epochs": 9, "length.max_minutes": 2.0},
        {"resources.device": "cuda", "resources.threads": 4, "resources.precision": "bf16"},
        {"output.save_every_steps": 5, "output.state_every_minutes": 1.0, "output.state_every_steps": 3},
        {"output.validate_every_steps": 5, "output.preview_every_steps": 5, "output.preview_prompts": ["b"]},
        {"output.exports": ["kohya"], "output.folder": "out"},
    ],
)
def test_what_may_change(changes: dict[str, Any]) -> None:
    assert resume_differences(recipe({}), recipe(changes)) == ()


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("length.steps", 99, "length.steps: 100 -> 99 (may only grow)"),
        ("length.epochs", 3, "length.epochs: 4 -> 3 (may only grow)"),
        ("length.steps", None, "length.steps: 100 -> not set"),
        ("length.seed", 1, "length.seed: 0 -> 1"),
        ("length.batch_items", 2, "length.batch_items: 1 -> 2"),
        ("data.paths", ["b"], "data.paths: ['a'] -> ['b']"),
        ("base.path", "y", "base.path: 'x' -> 'y'"),
        ("method.rank", 4, "method.rank: 16 -> 4"),
        ("optimiser.schedule", "cosine", "optimiser.schedule: 'constant' -> 'cosine'"),
        ("engine.resolution", 128, "engine.resolution: 64 -> 128"),
        ("output.name", "z", "output.name: 'untitled' -> 'z'"),
        ("output.dtype", "fp32", "output.dtype: 'fp16' -> 'fp32'"),
    ],
)
def test_what_starts_a_new_run(path: str, value: Any, said: str) -> None:
    assert resume_differences(recipe({}), recipe({path: value})) == (said,)


def test_another_engine() -> None:
    old = recipe({})
    other = Recipe(engine="other", settings=None)
    assert resume_differences(old, other) == ("engine.name: toy -> other",)
