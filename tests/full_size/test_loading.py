"""Loading and one denoising step of a full-size base: names, memory, and the picture that comes out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tunesmith.engines.stable_diffusion import engine
from tunesmith.recipe.schema import BaseSection

pytestmark = pytest.mark.long

CHILD = """
import json, sys
import torch
import diffusers, transformers
from tunesmith.engines.stable_diffusion import engine
from tunesmith.engines.stable_diffusion.facts import GenerationRequest
from tunesmith.engines.stable_diffusion.load import part_module
from tunesmith.recipe.schema import BaseSection

def peak():
    rows = open("/proc/self/status").read().splitlines()
    return next(int(row.split()[1]) * 1024 for row in rows if row.startswith("VmHWM"))

start = peak()
base = engine.open(BaseSection(path=sys.argv[1]))
cpu, dtype = torch.device("cpu"), getattr(torch, sys.argv[2])
module = part_module(base, "denoiser", cpu, dtype)
weights = sum(p.numel() * p.element_size() for p in module.parameters())
answer = {"start": start, "loaded": peak(), "weights": weights}
if len(sys.argv) > 3:
    del module
    sampler = engine.load_sampler(base, cpu, dtype)
    request = GenerationRequest(prompt="a photo of a cat", steps=1, width=256, height=256, scheduler="ddim")
    *progress, media = engine.sample(sampler, request)
    answer |= {"steps": len(progress), "size": media.data.size, "colours": len(set(media.data.getdata()))}
print(json.dumps(answer))
"""


def child(*words: object) -> dict[str, object]:
    """The child's answer: a process of its own, so that its peak is nobody else's."""
    command = [sys.executable, "-c", CHILD, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    print(answer)
    return answer


def test_the_headers_say_sd15(full_size_base: Path) -> None:
    base = engine.open(BaseSection(path=str(full_size_base)))
    named = engine.open(BaseSection(architecture="sd15"))
    assert {role: part.parameters for role, part in base.parts.items()} == {
        role: part.parameters for role, part in named.parts.items()
    }
    assert base.architecture == named.architecture


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_loading_peaks_at_the_size_of_the_module(full_size_base: Path, dtype: str) -> None:
    answer = child(full_size_base, dtype)
    weights = int(str(answer["weights"]))
    grown = int(str(answer["loaded"])) - int(str(answer["start"]))
    # One tensor more at a time, and what the library allocates for itself.
    assert weights <= grown <= weights * 1.1 + (100 << 20)


def test_one_step_makes_a_picture(full_size_base: Path) -> None:
    answer = child(full_size_base, "bfloat16", "sample")
    assert answer["steps"] == 1
    assert answer["size"] == [256, 256]
    assert int(str(answer["colours"])) > 100
