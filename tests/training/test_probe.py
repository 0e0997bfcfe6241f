"""The probe: measured rates, kept where the plan reads them."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

import psutil
import torch

from tunesmith.engines.protocol import Machine
from tunesmith.training.device import computes_bf16
from tunesmith.training.probe import memory_bytes, probe_machine

CPU = torch.device("cpu")


def test_a_probe_is_short_plausible_and_stored(tmp_path: Path) -> None:
    began = time.perf_counter()
    machine = probe_machine(tmp_path / "home", CPU)
    assert time.perf_counter() - began < 30  # three seconds on a free machine; tests share theirs
    assert machine.matrix_rate.keys() == machine.convolution_rate.keys()
    assert ("bf16" in machine.matrix_rate) == machine.bf16 == computes_bf16(CPU)
    assert all(1e8 < rate < 1e15 for rate in (*machine.matrix_rate.values(), *machine.convolution_rate.values()))
    assert machine.disk_rate_bytes > 0
    assert (machine.device, machine.threads) == ("cpu", torch.get_num_threads())
    stored = json.loads((tmp_path / "home" / "machine.json").read_text())
    assert Machine(**stored) == machine
    assert stored == asdict(machine)
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["machine.json"]


def test_rates_are_operations_over_the_median_time(tmp_path: Path) -> None:
    ticks = iter(range(10**6))
    machine = probe_machine(tmp_path, CPU, clock=lambda: float(next(ticks)))
    assert machine.matrix_rate["fp32"] == 2 * 1024**3  # one tick a call
    assert machine.convolution_rate["fp32"] == 2 * 320**2 * 9 * 32**2


def test_a_containers_limit_counts(tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    assert memory_bytes(CPU, (limit,)) == psutil.virtual_memory().total
    limit.write_text("1000000\n")
    assert memory_bytes(CPU, (limit,)) == 1_000_000
    limit.write_text("max\n")
    assert memory_bytes(CPU, (limit,)) == psutil.virtual_memory().total
