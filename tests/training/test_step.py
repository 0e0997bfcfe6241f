"""One step against a plain torch loop; NaN, Inf and memory that runs out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from training_run import Run, make_run, recipe_of, with_section
from tunesmith.engines.protocol import Batch, Loss
from tunesmith.errors import DeviceError, NonFinite
from tunesmith.events import StepDone
from tunesmith.numeric.measures import relative_l2
from tunesmith.numeric.rng import BatchRng
from tunesmith.training.batches import Microbatch
from tunesmith.training.device import Precision
from tunesmith.training.failures import memory_advice
from tunesmith.training.step import OVERFLOWS_ALLOWED, TrainingStep, seed_modules

CPU = torch.device("cpu")
FULL = {"name": "full"}


def plain_loop(run: Run, steps: int) -> tuple[list[float], dict[str, torch.Tensor]]:
    """What a page of torch would do with the same batches: mean loss, clip, AdamW, cosine by LambdaLR."""
    section, count = run.recipe.optimiser, run.recipe.length.accumulation
    weights = list(run.state.parameters.values())
    optimiser = torch.optim.AdamW(weights, lr=section.rate, weight_decay=section.weight_decay, foreach=False)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=run.step.steps)
    losses = []
    for step in range(steps):
        total = 0.0
        for batch_index in range(step * count, step * count + count):
            (microbatch,) = run.batches.microbatches(batch_index, 1)
            assert microbatch.batch is not None
            loss = run.engine.loss(run.model, microbatch.batch, run.recipe, microbatch.rng)
            (loss.total / count).backward()
            total += float(loss.total.detach()) / count
        torch.nn.utils.clip_grad_norm_(weights, section.clip_norm or float("inf"))
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        losses.append(total)
    return losses, moved(run)


def moved(run: Run) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in run.state.parameters.items()}


def assert_close(mine: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    """Within rounding. A softmax does not see the keys' bias: its gradient is rounding alone, which Adam blows up."""
    for name, value in mine.items():
        if not name.endswith("to_k.bias"):
            assert relative_l2(value, theirs[name]) < 2e-4, name


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("clip", [None, 0.05])
def test_a_step_is_what_a_page_of_torch_does(world: Path, accumulation: int, clip: float | None) -> None:
    recipe = recipe_of(
        world,
        method=FULL,
        optimiser={"schedule": "cosine", "clip_norm": clip},
        length={"accumulation": accumulation, "steps": 5},
        engine={"buckets": False},
        data={"holdout_fraction": 0.0},
    )
    items = make_run(world, recipe).items[:4]  # batches of two, all of one size: mean of means is the mean
    mine, reference = make_run(world, recipe, items=items), make_run(world, recipe, items=items)
    events = [event for event in mine.go(4) if isinstance(event, StepDone)]
    losses, weights = plain_loop(reference, 4)
    assert [event.loss for event in events] == pytest.approx(losses, rel=1e-6)
    assert_close(moved(mine), weights)
    assert [event.position_items for event in events] == [2 * accumulation * k for k in range(1, 5)]


def test_accumulated_batches_equal_one_large_batch(world: Path) -> None:
    """Two batches of two, or one of four: the same items at the same positions, so the same gradient."""
    results = []
    for batch_items, accumulation in ((4, 1), (2, 2), (1, 4)):
        recipe = recipe_of(
            world,
            method=FULL,
            engine={"buckets": False},
            length={"batch_items": batch_items, "accumulation": accumulation},
        )
        run = make_run(world, recipe)
        items = [replace(run.items[0])] * 4  # one item four times: the order of batches of any size is the same
        run = make_run(world, recipe, items=items)
        results.append((run.losses(3), moved(run)))
    for losses, weights in results[1:]:
        assert losses == pytest.approx(results[0][0], rel=1e-5)
        assert_close(weights, results[0][1])


def test_clipping_is_over_everything_that_trains(world: Path) -> None:
    method = {"components": ("denoiser", "text_encoder")}
    recipe = recipe_of(world, method=method, optimiser={"clip_norm": 1e-3})
    run = make_run(world, recipe)
    seen: list[float] = []
    run.state.optimiser.register_step_pre_hook(
        lambda *_: seen.append(
            float(torch.stack([v.grad.norm() for v in run.state.parameters.values() if v.grad is not None]).norm())
        )
    )
    (event,) = run.go(1)
    assert isinstance(event, StepDone)
    assert event.gradient_norm > 1e-3
    assert seen == [pytest.approx(1e-3, rel=1e-2)]


def test_rates_follow_the_schedule_by_component(world: Path) -> None:
    method = {"components": ("denoiser", "text_encoder")}
    optimiser = {"rates": {"text_encoder": 1e-3}, "schedule": "linear", "warmup_steps": 2}
    run = make_run(world, recipe_of(world, method=method, optimiser=optimiser))
    rates = [event.rates for event in run.go(6) if isinstance(event, StepDone)]
    factors = [0.0, 0.5, 1.0, 0.75, 0.5, 0.25]
    assert [rate["denoiser"] for rate in rates] == pytest.approx([1e-2 * factor for factor in factors])
    assert [rate["text_encoder"] for rate in rates] == pytest.approx([1e-3 * factor for factor in factors])


def test_an_items_weight_multiplies_its_loss(world: Path) -> None:
    recipe = recipe_of(world, length={"batch_items": 1}, optimiser={"clip_norm": None})
    plain = make_run(world, recipe)
    norms = []
    for weight in (1.0, 0.5):
        run = make_run(world, recipe, items=[replace(item, weight=weight) for item in plain.items])
        (event,) = run.go(1)
        assert isinstance(event, StepDone)
        norms.append(event.gradient_norm)
    assert norms[1] == pytest.approx(0.5 * norms[0], rel=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_precision_is_that_of_the_arithmetic(world: Path, precision: str) -> None:
    run = make_run(world, recipe_of(world, method=FULL, resources={"precision": precision}))
    seen: set[torch.dtype] = set()
    layer = next(m for m in run.model.components["denoiser"].modules() if isinstance(m, torch.nn.Conv2d))
    layer.register_forward_hook(lambda _module, _inputs, output: seen.add(output.dtype))
    run.go(2)
    assert seen == {torch.float32 if precision == "fp32" else torch.bfloat16}
    assert {v.dtype for v in run.state.parameters.values()} == {torch.float32}


# ------------------------------------------------------------------------------------------------ what goes wrong


class Broken:
    """The run's engine, with a loss that `change` may spoil."""

    def __init__(self, run: Run, change: Callable[[Batch, Loss], Loss]) -> None:
        self._run, self._change = run, change

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run.engine, name)

    def loss(self, model: Any, batch: Batch, recipe: Any, rng: Any) -> Loss:
        return self._change(batch, self._run.engine.loss(model, batch, recipe, rng))


def broken_step(run: Run, change: Callable[[Batch, Loss], Loss], precision: Precision | None = None) -> TrainingStep:
    return replace(run.step, engine=Broken(run, change), precision=precision or run.step.precision)


def spoil_item(run: Run, index: int) -> Callable[[Batch, Loss], Loss]:
    """Item `index` gives a NaN loss."""
    key = run.items[index].key

    def change(batch: Batch, loss: Loss) -> Loss:
        bad = torch.tensor([key == other for other in batch.keys])
        per_item = torch.where(bad, torch.nan, loss.per_item)
        return Loss(loss.total * (torch.nan if bad.any() else 1.0), per_item, loss.named)

    return change


@pytest.mark.parametrize("accumulation", [1, 3])
def test_a_bad_loss_stops_before_the_weights_move_and_names_the_item(world: Path, accumulation: int) -> None:
    run = make_run(world, recipe_of(world, length={"accumulation": accumulation}))
    run.go(1)
    before, place = run.bits(), (run.state.step, run.state.batch_index, run.state.position_items)
    step = broken_step(run, spoil_item(run, 2))
    with pytest.raises(NonFinite) as caught:
        run.go(9, step=step)
    assert "with 002.png" in caught.value.found
    assert "the loss" in caught.value.found
    assert "lower optimiser.rate (now 0.01)" in caught.value.do
    if accumulation == 3:  # every step sees every item, so the first one after the good one already failed
        after = run.bits()
        assert all(torch.equal(after[name], before[name]) for name in before)
        assert place == (run.state.step, run.state.batch_index, run.state.position_items)


def spoil_gradient(run: Run, index: int) -> Callable[[Batch, Loss], Loss]:
    """Item `index` has a finite loss with an infinite slope: sqrt at 0."""
    key = run.items[index].key

    def change(batch: Batch, loss: Loss) -> Loss:
        if key not in batch.keys:
            return loss
        return Loss(loss.total + (loss.total - loss.total.detach()).sqrt(), loss.per_item, loss.named)

    return change


def test_a_bad_gradient_names_tensor_and_batch(world: Path) -> None:
    recipe = recipe_of(world, length={"accumulation": 5, "batch_items": 1}, resources={"precision": "bf16"})
    run = make_run(world, recipe)
    with pytest.raises(NonFinite) as caught:
        run.go(1, step=broken_step(run, spoil_gradient(run, 3)))
    first = next(iter(run.state.parameters))
    assert f"the gradient of {first} with 003.png" in caught.value.found
    assert "set resources.precision=fp32" in caught.value.do
    assert run.state.step == 0


def test_bad_weights_are_named(world: Path) -> None:
    run = make_run(world, recipe_of(world))
    name, value = next(iter(run.state.parameters.items()))
    value.data[0] = torch.inf
    with pytest.raises(NonFinite, match=f"the weights of {name}"):
        run.go(1)


class FakeScaler(torch.amp.GradScaler):
    """The real scaler's arithmetic on a CPU, where its fused checks also run."""

    def __init__(self) -> None:
        super().__init__("cpu", init_scale=8.0)


def overflow_until(call: int) -> Callable[[Batch, Loss], Loss]:
    """Scaled gradients overflow in the first `call` forward passes."""
    calls: list[int] = []

    def change(batch: Batch, loss: Loss) -> Loss:
        calls.append(1)
        if len(calls) > call:
            return loss
        return Loss(loss.total + (loss.total - loss.total.detach()).sqrt(), loss.per_item, loss.named)

    return change


def test_a_routine_fp16_overflow_skips_the_step_and_halves_the_scale(world: Path) -> None:
    run = make_run(world, recipe_of(world, optimiser={"ema_decay": 0.9}))
    run.state.scaler = FakeScaler()
    before = run.bits()
    events = [event for event in run.go(3, step=broken_step(run, overflow_until(2))) if isinstance(event, StepDone)]
    assert [event.named.get("overflow") for event in events] == [1.0, 1.0, None]
    assert run.state.scaler.get_scale() == 2.0
    assert run.state.overflows == 0
    assert run.state.step == 3
    after = run.bits()
    assert any(not torch.equal(after[name], before[name]) for name in before)


def test_skipped_steps_leave_weights_and_average(world: Path) -> None:
    run = make_run(world, recipe_of(world, optimiser={"ema_decay": 0.9}))
    run.state.scaler = FakeScaler()
    run.go(3)  # now the average is not the weights
    before = run.bits()
    run.go(5, step=broken_step(run, overflow_until(2)))
    after = run.bits()
    assert all(torch.equal(after[name], value) for name, value in before.items() if not name.startswith("group"))


def test_repeated_overflow_is_an_error_that_offers_bf16(world: Path) -> None:
    run = make_run(world, recipe_of(world))
    run.state.scaler = FakeScaler()
    precision = Precision(torch.float16, None, True, "")
    step = broken_step(run, overflow_until(999), precision)
    with pytest.raises(NonFinite, match="precision=bf16"):
        run.go(99, step=step)
    assert run.state.step == OVERFLOWS_ALLOWED


def test_a_scaler_without_overflow_changes_nothing(world: Path) -> None:
    plain, scaled = make_run(world, recipe_of(world)), make_run(world, recipe_of(world))
    scaled.state.scaler = FakeScaler()
    assert plain.losses(3) == scaled.losses(3)  # a power of two as scale: exact
    a, b = plain.bits(), scaled.bits()
    assert all(torch.equal(a[name], b[name]) for name in a if name.startswith("parameter"))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("MPS backend out of memory"),
        MemoryError(),
    ],
    ids=["cuda", "cpu", "mps", "python"],
)
def test_running_out_of_memory_keeps_the_state_and_says_what_helps(world: Path, error: Exception) -> None:
    run = make_run(world, recipe_of(world))
    run.go(1)
    before = run.bits()

    def change(batch: Batch, loss: Loss) -> Loss:
        raise error

    with pytest.raises(DeviceError) as caught:
        run.go(2, step=broken_step(run, change))
    assert "batch_items=1 length.accumulation=2" in caught.value.do
    after = run.bits()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert run.state.step == 1
    assert not run.state.updating


def test_other_errors_of_torch_stay_what_they_are(world: Path) -> None:
    run = make_run(world, recipe_of(world))

    def change(batch: Batch, loss: Loss) -> Loss:
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        run.go(1, step=broken_step(run, change))


def test_memory_advice_names_only_what_is_left_to_do() -> None:
    recipe = recipe_of(Path(), method={"rank": 64}, length={"batch_items": 4})
    wide = memory_advice(recipe)
    words = ("batch_items=1 length.accumulation=4", "precision=bf16", "checkpointing=true", "method.rank", "resolution")
    assert all(word in wide for word in words)
    narrow = with_section(recipe, "length", batch_items=1)
    narrow = with_section(narrow, "method", gradient_checkpointing=True, rank=4)
    narrow = with_section(narrow, "resources", precision="bf16")
    assert memory_advice(narrow) == "use a lower resolution or shorter crops"
    assert "method.name=lora" in memory_advice(with_section(recipe, "method", name="full"))


def test_a_rank_without_items_adds_nothing(world: Path) -> None:
    run = make_run(world, recipe_of(world))
    empty = Microbatch(None, run.batches.microbatches(0, 1)[0].rng, 1, ())
    assert run.step.gradients(run.state, empty, 1) is None


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_the_devices_own_generator_is_set_too(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    seeds: list[int] = []
    monkeypatch.setattr(getattr(torch, kind), "manual_seed", seeds.append)
    for positions in ((3, 4), (3, 9), (5,)):
        seed_modules(BatchRng(0, positions), torch.device(kind))
    assert seeds[0] == seeds[1] != seeds[2]
    assert torch.initial_seed() == seeds[2]
