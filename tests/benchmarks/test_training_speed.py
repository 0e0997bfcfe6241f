"""The benchmark's two loops do the same training: in float32 on a tiny base their losses agree step by step."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("fp32", 1e-5), pytest.param("bf16", 5e-3, marks=pytest.mark.long)]
)
def test_both_loops_take_the_same_steps(precision: str, tolerance: float, tmp_path: Path) -> None:
    """bf16 rounds weights and activations to 8 bits; 0.1 to 0.2 % is what the tiny base shows."""
    command = ["--tiny", "--resolution", "32", "--steps", "2", "--threads", "1", "--precision", precision]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.training_speed", *command, "--json", str(tmp_path / "found.json")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert len(found["ours_losses"]) == 4
    assert len(set(found["reference_losses"])) == 4, "every step has its own picture, noise and weights"
    assert found["ours_losses"] == pytest.approx(found["reference_losses"], rel=tolerance)
    assert found["precision"] == precision
    assert min(found["ours_peak_bytes"], found["reference_peak_bytes"]) > 1 << 27
    assert "s/step" in done.stdout
