"""The moving average against diffusers' EMAModel."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers.training_utils import EMAModel

from training_run import make_run, recipe_of
from tunesmith.training.average import averaged, decay_at


@pytest.mark.parametrize("decay", [0.3, 0.9999])
def test_the_average_is_that_of_diffusers(world: Path, decay: float) -> None:
    run = make_run(world, recipe_of(world, optimiser={"ema_decay": decay}))
    theirs = EMAModel(list(run.state.parameters.values()), decay=decay)
    for until in range(1, 6):
        run.go(until)
        theirs.step(run.state.parameters.values())
        assert decay_at(decay, until) == pytest.approx(theirs.cur_decay_value)
    assert run.state.ema is not None
    for mine, their in zip(run.state.ema.values(), theirs.shadow_params, strict=True):
        torch.testing.assert_close(mine, their, rtol=1e-5, atol=1e-8)
    names = [n for n, v in run.state.parameters.items() if not torch.equal(run.state.ema[n], v.detach())]
    assert names, "the average is the weights themselves"


def test_inside_the_block_the_live_weights_are_the_average(world: Path) -> None:
    run = make_run(world, recipe_of(world, optimiser={"ema_decay": 0.9}))
    run.go(3)
    before = run.bits()
    with averaged(run.state) as which:
        assert which == "ema"
        for name, value in run.state.parameters.items():
            assert torch.equal(value, before[f"ema/{name}"])
        assert run.state.attached is not None
        written = run.state.attached.adapter()
    after = run.bits()
    assert all(torch.equal(after[name], before[name]) for name in before)
    (component, canonical), pair = next(iter(written.layers.items()))
    assert torch.equal(pair.up, before[f"ema/{component}/{canonical}.up"])


def test_without_an_average_the_weights_are_raw(world: Path) -> None:
    run = make_run(world, recipe_of(world))
    with averaged(run.state) as which:
        assert which == "raw"
