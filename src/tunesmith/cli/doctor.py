"""`tunesmith doctor`: what this machine can do, in plain words."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping
from importlib.metadata import version

import typer

from tunesmith.cli.options import AsJson
from tunesmith.cli.screen import Screen, human_bytes
from tunesmith.cli.surroundings import surroundings_of

group = typer.Typer()
LIBRARIES = ("torch", "diffusers", "transformers", "peft", "safetensors")


@group.command(short_help="what this machine can do")
def doctor(context: typer.Context, as_json: AsJson = False) -> None:
    """Measure once what this machine can do, and say it: device, memory, precision, threads, speed, room on disk."""
    import psutil
    import torch

    from tunesmith.recipe.schema import MethodSection, ResourceSection
    from tunesmith.training.device import choose_device, choose_precision, cpu_features, set_threads
    from tunesmith.training.probe import probe_machine

    here = surroundings_of(context)
    screen = Screen(as_json)
    resources = ResourceSection()
    device = choose_device(resources)
    precision = choose_precision(resources, device, MethodSection())
    set_threads(here.settings().threads, device)
    machine = probe_machine(here.home, device)
    memory = psutil.virtual_memory()
    existing = next(folder for folder in (here.home, *here.home.parents) if folder.exists())
    disk = shutil.disk_usage(existing)
    report = {
        "device": str(device),
        "precision": str(precision.dtype).removeprefix("torch."),
        "precision_reason": precision.reason,
        "cpu_features": cpu_features(),
        "threads": torch.get_num_threads(),
        "memory_bytes": memory.total,
        "memory_available_bytes": memory.available,
        "home": here.home,
        "disk_free_bytes": disk.free,
        "matrix_rate": machine.matrix_rate,
        "convolution_rate": machine.convolution_rate,
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }
    if as_json:
        screen.document(report)
        return
    words = dict(report)
    for name in ("memory", "memory_available", "disk_free"):
        words[name] = human_bytes(int(str(words.pop(f"{name}_bytes"))))
    words["matrix_rate"] = _rates(machine.matrix_rate)
    words["convolution_rate"] = _rates(machine.convolution_rate)
    screen.fields(words)
    screen.next_steps("tunesmith demo", "tunesmith plan --data FOLDER --base BASE --steps 1200")


def _rates(rates: Mapping[str, float]) -> str:
    return ", ".join(f"{dtype} {rate / 1e9:.0f} GFLOP/s" for dtype, rate in rates.items())
