"""Engine contract, the generating half: live modules are shared, seeds repeat, stopping stops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch

from contract_cases import CASES
from tunesmith.engines.protocol import Media
from tunesmith.events import Progress

Open = Callable[[str], Any]
CPU = torch.device("cpu")


def _sampler(opened: Any) -> Any:
    return opened.engine.load_sampler(opened.base, CPU, torch.float32)


def _run(opened: Any, sampler: Any, **changed: Any) -> list[Any]:
    request = opened.engine.facts.request(**{**opened.case.request, "prompt": "a small thing", "seed": 5, **changed})
    return list(opened.engine.sample(sampler, request))


@pytest.mark.parametrize("name", CASES)
def test_sampling_reports_progress_and_ends_in_media(name: str, open_case: Open) -> None:
    opened = open_case(name)
    *progress, media = _run(opened, _sampler(opened))
    assert isinstance(media, Media)
    assert progress
    assert all(isinstance(event, Progress) for event in progress)
    assert [event.done for event in progress] == sorted(event.done for event in progress)
    assert progress[-1].done == progress[-1].total
    assert media.parameters["prompt"] == "a small thing"
    assert media.parameters["seed"] == 5
    assert numpy.isfinite(numpy.asarray(media.data, dtype=numpy.float64)).all()


@pytest.mark.parametrize("name", CASES)
def test_a_seed_repeats_and_another_differs(name: str, open_case: Open) -> None:
    opened = open_case(name)
    sampler = _sampler(opened)
    data = []
    for seed in (5, 5, 6):
        torch.manual_seed(len(data))
        data.append(numpy.asarray(_run(opened, sampler, seed=seed)[-1].data))
    assert numpy.array_equal(data[0], data[1])
    assert not numpy.array_equal(data[0], data[2])


@pytest.mark.parametrize("name", CASES)
def test_sampling_stops_when_told(name: str, open_case: Open) -> None:
    opened = open_case(name)
    seen: list[Any] = []
    request = opened.engine.facts.request(**opened.case.request, prompt="x", seed=1)
    for event in opened.engine.sample(_sampler(opened), request, lambda: len(seen) >= 1):
        seen.append(event)
    assert len(seen) <= 2
    assert not any(isinstance(event, Media) for event in seen)


@pytest.mark.parametrize("name", CASES)
def test_a_sampler_shares_the_modules_in_training(name: str, open_case: Open) -> None:
    opened = open_case(name)
    model = opened.model(opened.recipe())
    sampler = opened.engine.load_sampler(opened.base, CPU, torch.float32, model)
    parts = {**sampler.frozen, **sampler.components}
    assert all(parts[role] is module for role, module in model.components.items())
    before = numpy.asarray(_run(opened, sampler)[-1].data)
    with torch.no_grad():
        for module in model.components.values():
            for parameter in module.parameters():
                parameter.add_(torch.arange(parameter.numel()).cos().view_as(parameter))
    assert not numpy.array_equal(before, numpy.asarray(_run(opened, sampler)[-1].data))


@pytest.mark.parametrize("name", CASES)
def test_adapters_can_be_put_on_what_a_sampler_runs(name: str, open_case: Open) -> None:
    opened = open_case(name)
    sampler = _sampler(opened)
    stages = [stage for stage in opened.engine.facts.stages if "lora" in stage.methods]
    for stage in stages:
        assert set(stage.components) <= set(sampler.components)
