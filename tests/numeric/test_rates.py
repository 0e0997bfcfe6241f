"""Learning rates against the schedulers of diffusers and transformers."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest
import torch
from diffusers.optimization import get_scheduler
from transformers import get_inverse_sqrt_schedule

from tunesmith.numeric.rates import rate_factor
from tunesmith.recipe.schema import OptimiserSection

STEPS = 50
NAMES = {"linear": "linear", "cosine": "cosine", "cosine_restarts": "cosine_with_restarts"}


def reference(schedule: str, warmup: int, restarts: int) -> list[float]:
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    if schedule == "inverse":
        scheduler = get_inverse_sqrt_schedule(optimiser, num_warmup_steps=warmup)
    else:
        name = NAMES.get(schedule, "constant_with_warmup" if warmup else "constant")
        scheduler = get_scheduler(
            name, optimiser, num_warmup_steps=warmup, num_training_steps=STEPS, num_cycles=restarts
        )
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch asks for an optimiser step that this test has no use for
        for _ in range(STEPS):
            rates.append(optimiser.param_groups[0]["lr"])
            scheduler.step()
    return rates


@pytest.mark.parametrize("warmup", [0, 1, 7])
@pytest.mark.parametrize(
    ("schedule", "restarts"),
    [("constant", 1), ("linear", 1), ("cosine", 1), ("cosine_restarts", 1), ("cosine_restarts", 4), ("inverse", 1)],
)
def test_rates_are_those_of_the_libraries(schedule: str, restarts: int, warmup: int) -> None:
    section = OptimiserSection(schedule=schedule, warmup_steps=warmup, restarts=restarts)
    mine = [rate_factor(section, step, STEPS) for step in range(STEPS)]
    assert mine == pytest.approx(reference(schedule, warmup, restarts), abs=1e-12)
    assert warmup == 0 or mine[0] == 0.0


@pytest.mark.parametrize("schedule", ["linear", "cosine", "cosine_restarts"])
def test_past_the_end_the_rate_stays_zero(schedule: str) -> None:
    section = OptimiserSection(schedule=schedule, restarts=3)
    assert [rate_factor(section, step, 10) for step in (10, 11, 25)] == [0.0, 0.0, 0.0]


def test_an_unknown_schedule_is_an_error() -> None:
    with pytest.raises(ValueError, match="sawtooth"):
        rate_factor(OptimiserSection(schedule="sawtooth"), 1, 2)


def test_rates_need_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import tunesmith.numeric.rates"
    subprocess.run([sys.executable, "-c", code], check=True)
