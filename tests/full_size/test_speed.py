"""Our training step beside a plain diffusers + peft loop, in one run (benchmarks/), at full size and 256 px."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SPEED_UP = 2.5
PEAK_BYTES = 4e9


@pytest.mark.long
def test_a_step_is_several_times_faster_in_less_memory(full_size_base: Path, tmp_path: Path) -> None:
    report = tmp_path / "speed.json"
    command = [sys.executable, "-m", "benchmarks.training_speed", "--base", str(full_size_base), "--steps", "6"]
    threads = str(os.cpu_count())
    done = subprocess.run(
        [*command, "--json", str(report)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    print(done.stdout)
    figures = json.loads(report.read_text())
    if figures["precision"] == "bf16":
        assert figures["ratio"] >= SPEED_UP
        assert figures["ours_peak_bytes"] <= PEAK_BYTES
