"""`tunesmith doctor`: what this machine can do, in plain words."""

from __future__ import annotations

import platform
import shutil
from importlib.metadata import version

import typer

from tunesmith.cli.options import AsJson
from tunesmith.cli.screen import Screen, human_bytes
from tunesmith.cli.surroundings import surroundings_of

group = typer.Typer()
LIBRARIES = ("torch", "diffusers", "transformers", "peft", "safetensors")


@group.command()
def doctor(context: typer.Context, as_json: AsJson = False) -> None:
    """Say what this machine can do: device, memory, precision, threads, libraries, room on disk."""
    import psutil
    import torch

    from tunesmith.recipe.schema import MethodSection, ResourceSection
    from tunesmith.training.device import choose_device, choose_precision, cpu_features

    here = surroundings_of(context)
    screen = Screen(as_json)
    resources = ResourceSection()
    device = choose_device(resources)
    precision = choose_precision(resources, device, MethodSection())
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
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }
    if as_json:
        screen.document(report)
        return
    words = dict(report)
    for name in ("memory", "memory_available", "disk_free"):
        words[name] = human_bytes(int(words.pop(f"{name}_bytes")))  # type: ignore[call-overload]
    screen.fields(words)
    screen.next_steps("tunesmith demo", "tunesmith plan --data FOLDER --base BASE --steps 1200")
