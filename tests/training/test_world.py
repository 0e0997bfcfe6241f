"""Several processes: the same weights as one process, stopping agreed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import training_run
from training_run import make_run, recipe_of
from tunesmith.numeric.measures import relative_l2
from tunesmith.training.world import World, world_from_environment

CPU = torch.device("cpu")

RANK = """
import os, sys, torch
from pathlib import Path
import training_run
from tunesmith.training.world import world_from_environment
folder, out = Path(sys.argv[1]), Path(sys.argv[2])
group = world_from_environment(os.environ, torch.device("cpu"))
recipe = training_run.recipe_of(folder, engine={"buckets": False}, length={"batch_items": 3, "accumulation": 2})
run = training_run.make_run(folder, recipe, world=group)
losses = run.losses(3)
stop = [group.rank == 1]  # only one of them is told
assert run.go(9, should_stop=lambda: stop[0]) == []
weights = {name: value.detach() for name, value in run.state.parameters.items()}
torch.save({"losses": losses, "weights": weights, "step": run.state.step}, out / f"{group.rank}.pt")
torch.distributed.destroy_process_group()
"""


def test_slices_cover_everything_once() -> None:
    for size in (1, 2, 3, 5):
        for count in (1, 2, 4, 7):
            found = [at for rank in range(size) for at in range(count)[World(rank, size).share(count)]]
            assert found == list(range(count))


def test_one_process_decides_alone() -> None:
    assert World().any(True)
    assert not World().any(False)
    assert world_from_environment({}, CPU) == World()
    parameter = torch.nn.Parameter(torch.ones(2))
    World().sum_gradients([parameter])
    assert parameter.grad is None


def test_gradients_of_all_ranks_add_up() -> None:
    weights = [torch.nn.Parameter(torch.ones(2, 3)), torch.nn.Parameter(torch.ones(4))]
    weights[0].grad = torch.full((2, 3), 2.0)
    World(0, 2, lambda tensor: tensor.mul_(10)).sum_gradients(weights)
    assert torch.equal(weights[0].grad, torch.full((2, 3), 20.0))
    assert weights[1].grad is not None
    assert torch.equal(weights[1].grad, torch.zeros(4))


def test_two_processes_train_what_one_would(world: Path, tmp_path: Path) -> None:
    recipe = recipe_of(world, engine={"buckets": False}, length={"batch_items": 3, "accumulation": 2})
    alone = make_run(world, recipe)
    losses = alone.losses(3)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    paths = os.pathsep.join([str(Path(training_run.__file__).parent), os.environ["PYTHONPATH"]])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "PYTHONPATH": paths}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(world), str(tmp_path)], env={**os.environ, **shared, "RANK": str(rank)}
        )
        for rank in range(2)
    ]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert found[0]["losses"] == found[1]["losses"]
    assert found[0]["losses"] == pytest.approx(losses, rel=1e-5)
    assert [one["step"] for one in found] == [3, 3]
    for name, value in alone.state.parameters.items():
        assert torch.equal(found[0]["weights"][name], found[1]["weights"][name])
        assert relative_l2(found[0]["weights"][name], value.detach()) < 2e-4, name


def test_the_environment_of_torchrun_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, object] = {}
    monkeypatch.setattr(
        torch.distributed, "init_process_group", lambda backend, **rest: seen.update(backend=backend, **rest)
    )
    environ = {"WORLD_SIZE": "4", "RANK": "3", "MASTER_ADDR": "node", "MASTER_PORT": "29500"}
    group = world_from_environment(environ, CPU)
    assert (group.rank, group.size) == (3, 4)
    assert json.dumps(seen) == json.dumps(
        {"backend": "gloo", "init_method": "tcp://node:29500", "rank": 3, "world_size": 4}
    )
