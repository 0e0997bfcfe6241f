"""Update rules against a few lines of their papers' formulas, or the library itself called as its users do."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tunesmith.errors import PlanRefused
from tunesmith.recipe.schema import OptimiserSection
from tunesmith.training.optimisers import make_optimiser
from tunesmith.training.state import Group

CPU = torch.device("cpu")
RATES = (0.05, 0.02)


def start() -> list[torch.nn.Parameter]:
    rng = torch.Generator().manual_seed(4)
    return [torch.nn.Parameter(torch.randn(3, 4, generator=rng)) for _ in RATES]


def gradients(weights: list[Any], step: int) -> list[Tensor]:
    """Of a bowl whose middle moves, so that signs change."""
    return [weight.detach() - 0.3 * math.sin(step) for weight in weights]


def trained(section: OptimiserSection, rates: tuple[float, ...] = RATES, steps: int = 5) -> list[Tensor]:
    weights = start()
    groups = [Group(f"c{at}", rate, {f"c{at}/w": weights[at]}) for at, rate in enumerate(rates)]
    optimiser = make_optimiser(section, groups, CPU)
    for step in range(steps):
        for weight, gradient in zip(weights, gradients(weights, step), strict=True):
            weight.grad = gradient
        optimiser.step()
    return [weight.detach() for weight in weights]


def formula(update: Callable[[Tensor, Tensor, dict[str, Tensor], int, float], Tensor], steps: int = 5) -> list[Tensor]:
    """The same loop in float64 with `update(weight, gradient, memory, step from 1, rate)`."""
    weights = [weight.detach().double() for weight in start()]
    memory: list[dict[str, Tensor]] = [{} for _ in weights]
    for step in range(steps):
        slopes = gradients(weights, step)
        weights = [
            update(weight, slope, kept, step + 1, rate)
            for weight, slope, kept, rate in zip(weights, slopes, memory, RATES, strict=True)
        ]
    return weights


def adamw(weight: Tensor, slope: Tensor, kept: dict[str, Tensor], step: int, rate: float) -> Tensor:
    """Loshchilov & Hutter, 2019, algorithm 2."""
    kept["m"] = 0.8 * kept.get("m", torch.zeros_like(weight)) + 0.2 * slope
    kept["v"] = 0.95 * kept.get("v", torch.zeros_like(weight)) + 0.05 * slope**2
    mean, square = kept["m"] / (1 - 0.8**step), kept["v"] / (1 - 0.95**step)
    return weight - rate * (mean / (square.sqrt() + 1e-3) + 0.1 * weight)


def lion(weight: Tensor, slope: Tensor, kept: dict[str, Tensor], step: int, rate: float) -> Tensor:
    """Chen et al., 2023, algorithm 2."""
    mean = kept.get("m", torch.zeros_like(weight))
    kept["m"] = 0.95 * mean + 0.05 * slope
    return weight - rate * ((0.8 * mean + 0.2 * slope).sign() + 0.1 * weight)


def adafactor(weight: Tensor, slope: Tensor, kept: dict[str, Tensor], step: int, rate: float) -> Tensor:
    """Shazeer & Stern, 2018, algorithm 4, with the decay of torch: weights first, by the plain rate."""
    beta, floor = 1 - step**-0.8, torch.finfo(torch.float32).eps
    relative = max(1e-3, float(weight.square().mean().sqrt())) * min(rate, 1 / math.sqrt(step))
    weight = weight * (1 - rate * 0.1)
    rows, columns = slope.square().mean(1, keepdim=True), slope.square().mean(0, keepdim=True)
    kept["r"] = beta * kept.get("r", torch.zeros_like(rows)) + (1 - beta) * rows
    kept["c"] = beta * kept.get("c", torch.zeros_like(columns)) + (1 - beta) * columns
    move = slope / (kept["r"] @ kept["c"] / kept["r"].mean()).clamp(min=floor**2).sqrt()
    return weight - relative * move / max(1.0, float(move.square().mean().sqrt()))


@pytest.mark.parametrize(
    ("knobs", "rule"),
    [
        ({"name": "adamw", "betas": (0.8, 0.95), "eps": 1e-3}, adamw),
        ({"name": "lion", "betas": (0.8, 0.95)}, lion),
        ({"name": "adafactor"}, adafactor),
    ],
    ids=["adamw", "lion", "adafactor"],
)
def test_updates_follow_the_paper(knobs: dict[str, Any], rule: Any) -> None:
    for mine, expected in zip(trained(OptimiserSection(weight_decay=0.1, **knobs)), formula(rule), strict=True):
        torch.testing.assert_close(mine.double(), expected, rtol=2e-5, atol=2e-6)  # float32 against float64


def test_prodigy_is_the_library_called_plainly() -> None:
    from pytorch_optimizer import Prodigy

    weights = start()
    library = Prodigy(weights, lr=0.9, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1)
    for step in range(40):
        for weight, gradient in zip(weights, gradients(weights, step), strict=True):
            weight.grad = gradient
        library.step()
    section = OptimiserSection(name="prodigy", betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1)
    for mine, theirs in zip(trained(section, (0.9, 0.9), 40), weights, strict=True):
        torch.testing.assert_close(mine, theirs.detach())


def test_prodigy_guards_its_estimate_where_there_is_a_warm_up() -> None:
    groups = [Group("c", 1.0, {"c/w": start()[0]})]
    for steps in (0, 5):
        optimiser = make_optimiser(OptimiserSection(name="prodigy", warmup_steps=steps), groups, CPU)
        assert optimiser.param_groups[0]["safeguard_warmup"] is (steps > 0)


@pytest.mark.parametrize("name", ["adamw", "lion", "adafactor", "prodigy"])
@pytest.mark.parametrize("knob", ["weight_decay", "betas", "eps"])
def test_every_knob_moves_its_rule_or_is_refused(name: str, knob: str) -> None:
    changed = {"weight_decay": 0.5, "betas": (0.5, 0.6), "eps": 0.1}[knob]
    section = OptimiserSection(name=name, **{knob: changed})
    rates, steps = ((1.0, 1.0), 40) if name == "prodigy" else ((0.05, 0.05), 5)  # its rate starts at a millionth
    if (name, knob) in {("adafactor", "betas"), ("adafactor", "eps"), ("lion", "eps")}:
        with pytest.raises(PlanRefused, match=f"optimiser.{knob} means nothing to {name}"):
            trained(section, rates)
    else:
        before, after = trained(OptimiserSection(name=name), rates, steps), trained(section, rates, steps)
        assert not torch.equal(before[0], after[0])


def test_each_component_has_its_own_rate() -> None:
    slow, fast = trained(OptimiserSection(), (1e-3, 1e-3), 1), trained(OptimiserSection(), (1e-3, 1e-1), 1)
    assert torch.equal(slow[0], fast[0])
    assert not torch.equal(slow[1], fast[1])


@pytest.mark.parametrize(
    ("section", "match"),
    [
        (OptimiserSection(name="prodigy"), "one rate for everything"),
        (OptimiserSection(betas=(0.9,)), "two numbers"),
        (OptimiserSection(betas=(0.9, 1.0)), "two numbers"),
        (OptimiserSection(name="sgd"), "no optimiser is called"),
    ],
)
def test_what_cannot_work_is_refused(section: OptimiserSection, match: str) -> None:
    with pytest.raises(PlanRefused, match=match):
        trained(section)


def test_8_bit_adamw_names_the_extra_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(PlanRefused, match=r"tunesmith\[adamw8bit\]"):
        trained(OptimiserSection(name="adamw8bit"))


def test_8_bit_adamw_gets_every_knob(monkeypatch: pytest.MonkeyPatch) -> None:
    """bitsandbytes itself needs a GPU; its constructor takes what torch's does."""
    library = SimpleNamespace(AdamW8bit=torch.optim.AdamW)
    monkeypatch.setitem(sys.modules, "bitsandbytes", SimpleNamespace(optim=library))
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", library)
    section = OptimiserSection(name="adamw8bit", betas=(0.8, 0.95), eps=1e-3, weight_decay=0.1)
    for mine, expected in zip(trained(section), formula(adamw), strict=True):
        torch.testing.assert_close(mine.double(), expected, rtol=2e-5, atol=2e-6)
