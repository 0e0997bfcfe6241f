"""The loop: one event per step, ends where it should, rolls back when it must."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from training_run import assert_same_bits, make_run, recipe_of
from tunesmith.errors import DeviceError, JobError, NonFinite
from tunesmith.events import RolledBack, StepDone
from tunesmith.training.loop import Until, train


def test_each_step_is_one_event_and_the_state_is_whole_between_them(world: Path, tmp_path: Path) -> None:
    recipe = recipe_of(world, length={"accumulation": 2}, optimiser={"ema_decay": 0.9})
    run = make_run(world, recipe)
    ticks = iter(range(100))
    events = train(
        run.state,
        run.batches,
        step=run.step,
        until=Until(3),
        should_stop=lambda: False,
        clock=lambda: float(next(ticks)),
    )
    for number, event in enumerate(events, 1):
        assert isinstance(event, StepDone)
        assert (event.step, event.position_items) == (number, run.batches.items_before(2 * number))
        assert event.seconds == 1.0
        run.save(tmp_path)
        assert run.state.step == number
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step-{n:08d}" for n in (1, 2, 3)]


def test_it_stops_when_told_between_two_steps(world: Path) -> None:
    run = make_run(world, recipe_of(world))
    answers = iter([False, False, True])
    assert len(run.go(6, should_stop=lambda: next(answers))) == 2
    assert run.state.step == 2
    assert len(run.go(6)) == 4


def test_it_stops_in_time(world: Path) -> None:
    run = make_run(world, recipe_of(world))

    def clock() -> Iterator[float]:
        now = 1000.0
        while True:
            yield now
            now += 10.0

    ticking = clock()
    events = train(
        run.state,
        run.batches,
        step=run.step,
        until=Until(6, minutes=1.5),
        should_stop=lambda: False,
        clock=lambda: next(ticking),
    )
    assert len(list(events)) == 3  # every step reads the clock three times, ten seconds apart


def test_a_finished_run_does_nothing(world: Path) -> None:
    run = make_run(world, recipe_of(world))
    run.go(2)
    assert run.go(2) == []


def spoiled(run: Any, at: int) -> Any:
    """The run's step, with a NaN written into a weight before step `at`: an update that went wrong."""

    def step(state: Any, microbatches: Any) -> Any:
        if state.step == at:
            next(iter(state.parameters.values())).data[0] = torch.nan
        return run.step(state, microbatches)

    return step


def test_bad_weights_roll_back_to_the_last_file(world: Path, tmp_path: Path) -> None:
    run = make_run(world, recipe_of(world, optimiser={"ema_decay": 0.9}))
    run.go(2)
    run.save(tmp_path)
    saved = run.bits()
    events = []
    with pytest.raises(NonFinite, match="the weights of"):  # noqa: PT012 - the events before it count
        for event in train(
            run.state,
            run.batches,
            step=spoiled(run, 4),
            until=Until(6),
            should_stop=lambda: False,
            clock=lambda: 0.0,
        ):
            events.append(event)
    assert [type(event) for event in events] == [StepDone, StepDone, RolledBack]
    assert events[-1] == replace(events[-1], from_step=5, to_step=2)
    assert_same_bits(run.bits(), saved)
    assert run.state.step == 2
    whole = make_run(world, recipe_of(world, optimiser={"ema_decay": 0.9}))
    whole.go(6)
    run.go(6)  # nothing is wrong any more, so the run can go on from there
    assert_same_bits(run.bits(), whole.bits())


def test_memory_that_runs_out_within_an_update_rolls_back_too(world: Path, tmp_path: Path) -> None:
    run = make_run(world, recipe_of(world))
    run.go(1)
    run.save(tmp_path)
    saved = run.bits()

    def burst(*_: Any) -> None:
        if run.state.step == 2:
            raise MemoryError

    hook = run.state.optimiser.register_step_post_hook(burst)
    with pytest.raises(DeviceError, match="ran out of memory in a training step"):
        run.go(4)
    assert (run.state.step, run.state.first_bad()) == (1, None)
    assert_same_bits(run.bits(), saved)
    hook.remove()
    whole = make_run(world, recipe_of(world))
    whole.go(4)
    run.go(4)
    assert_same_bits(run.bits(), whole.bits())


def test_without_a_file_bad_weights_are_never_saved(world: Path, tmp_path: Path) -> None:
    run = make_run(world, recipe_of(world))
    with pytest.raises(NonFinite):
        run.go(6, step=spoiled(run, 1))
    with pytest.raises(NonFinite, match="holds a NaN or Inf, so this state is not kept"):
        run.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_update_that_broke_off_is_never_saved(world: Path, tmp_path: Path) -> None:
    run = make_run(world, recipe_of(world))
    run.state.optimiser.register_step_post_hook(lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        run.go(1)
    assert run.state.first_bad() == "an update that broke off"
    with pytest.raises(JobError, match="being moved when the step broke off"):
        run.save(tmp_path)
    assert list(tmp_path.iterdir()) == []
