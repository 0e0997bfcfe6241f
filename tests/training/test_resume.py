"""The promise: n steps equal k steps, a state on disk, fresh objects and n - k steps, bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import training_run
from training_run import Run, assert_same_bits, make_run, recipe_of

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("test_pictures", {"method": {"conv_rank": 1, "dropout": 0.2}}),
    "lora both components, own rates, ema": (
        "test_pictures",
        {
            "method": {"components": ("denoiser", "text_encoder")},
            "optimiser": {"rates": {"text_encoder": 3e-3}, "ema_decay": 0.9, "schedule": "cosine", "warmup_steps": 2},
        },
    ),
    "dora, accumulation": ("test_pictures", {"method": {"name": "dora"}, "length": {"accumulation": 2}}),
    "full, ema": ("test_pictures", {"method": {"name": "full"}, "optimiser": {"ema_decay": 0.99}}),
    "scratch, accumulation": ("test_pictures", {"method": {"name": "scratch"}, "length": {"accumulation": 3}}),
    "autoencoder": ("test_pictures", {"method": {"name": "scratch", "stage": "autoencoder"}}),
    "tokens, full, captions dropped": (
        "test_tokens",
        {"method": {"name": "full"}, "data": {"caption_dropout": 0.5, "shuffle_tags": True}},
    ),
    "adafactor": ("test_pictures", {"optimiser": {"name": "adafactor"}}),
    "lion, ema": ("test_tokens", {"optimiser": {"name": "lion", "rate": 1e-3, "ema_decay": 0.9}}),
    "prodigy": ("test_pictures", {"optimiser": {"name": "prodigy", "rate": 1.0}, "method": {"name": "full"}}),
    "prodigy, warm-up, two components": (
        "test_pictures",
        {
            "optimiser": {"name": "prodigy", "rate": 1.0, "warmup_steps": 3},
            "method": {"components": ("denoiser", "text_encoder")},
        },
    ),
    "two threads": ("test_pictures", {"resources": {"threads": 2}, "method": {"name": "full"}}),
    "bf16": ("test_pictures", {"resources": {"precision": "bf16"}, "optimiser": {"ema_decay": 0.9}}),
}


def fresh(world: Path, case: str) -> Run:
    engine, changes = CASES[case]
    return make_run(world, recipe_of(world, engine, **changes))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("at", [1, 4])
def test_a_resumed_run_equals_an_uninterrupted_one(world: Path, tmp_path: Path, case: str, at: int) -> None:
    whole = fresh(world, case)
    start = whole.bits()
    losses = whole.losses(6)
    first = fresh(world, case)
    before = first.losses(at)
    first.save(tmp_path)
    torch.rand(3)  # whatever else the process draws must not matter
    second = fresh(world, case)
    assert second.load(tmp_path) == ()
    after = second.losses(6)
    assert before + after == losses
    assert_same_bits(second.bits(), whole.bits())
    moved = [name for name, value in whole.bits().items() if name in start and not torch.equal(value, start[name])]
    assert any(name.startswith("parameter/") for name in moved)
    places = ("step", "batch_index", "position_items", "overflows")
    assert [getattr(second.state, name) for name in places] == [getattr(whole.state, name) for name in places]


def test_a_second_resume_is_exact_too(world: Path, tmp_path: Path) -> None:
    whole = fresh(world, "dora, accumulation")
    whole.go(5)
    for until in (2, 3, 5):
        part = fresh(world, "dora, accumulation")
        if until > 2:
            part.load(tmp_path)
        part.go(until)
        part.save(tmp_path)
    assert_same_bits(part.bits(), whole.bits())


@pytest.mark.parametrize("method", ["lora", "scratch"])
def test_another_process_goes_on_exactly(world: Path, tmp_path: Path, method: str) -> None:
    changes = {"method": {"name": method}, "optimiser": {"ema_decay": 0.9}, "length": {"accumulation": 2}}
    whole = make_run(world, recipe_of(world, "test_pictures", **changes))
    whole.go(2)
    whole.save(tmp_path / "states")
    whole.go(4)
    arguments = json.dumps({"name": "test_pictures", **changes})
    command = [sys.executable, training_run.__file__, world, tmp_path / "states", tmp_path / "bits", 4, arguments]
    paths = os.pathsep.join([str(Path(training_run.__file__).parent), os.environ["PYTHONPATH"]])
    subprocess.run([str(word) for word in command], check=True, env={**os.environ, "PYTHONPATH": paths})
    assert_same_bits(torch.load(tmp_path / "bits", weights_only=True), whole.bits())


def test_without_validation_or_with_the_weights_are_the_same(world: Path) -> None:
    from tunesmith.training.holdout import Holdout

    plain = fresh(world, "lora")
    plain.go(4)
    watched = fresh(world, "lora")
    holdout = Holdout(
        watched.engine,
        watched.model,
        recipe=watched.recipe,
        items=watched.items[:2],
        reader=watched.reader,
        precision=watched.step.precision,
    )
    for until in range(1, 5):
        watched.go(until)
        holdout.measure(watched.state)
    assert_same_bits(watched.bits(), plain.bits())
