"""`tunesmith doctor`: what this machine can do, in plain words, and which commands fit it."""

from __future__ import annotations

import dataclasses
import platform
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

import typer

from tunesmith.cli.options import AsJson
from tunesmith.cli.screen import Screen, human_bytes, human_seconds
from tunesmith.cli.surroundings import surroundings_of

if TYPE_CHECKING:
    from tunesmith.jobs.fitting import Fit

group = typer.Typer()
LIBRARIES = ("torch", "diffusers", "transformers", "peft", "safetensors")


@group.command(short_help="what this machine can do")
def doctor(context: typer.Context, as_json: AsJson = False) -> None:
    """Measure once what this machine can do, say what stands in the way, and which presets fit it."""
    import psutil
    import torch

    from tunesmith.engines.index import engine_names
    from tunesmith.jobs.fitting import fit_presets
    from tunesmith.recipe.schema import MethodSection, ResourceSection
    from tunesmith.training.device import choose_device, choose_precision, cpu_features, set_threads
    from tunesmith.training.diagnosis import diagnose, gather_facts
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
    facts = gather_facts(
        memory_bytes=machine.memory_bytes, disk_free_bytes=disk.free, disk_rate_bytes=machine.disk_rate_bytes
    )
    found = diagnose(facts)
    fits = [fit for name in engine_names() for fit in fit_presets(name, machine, limit_bytes=machine.memory_bytes)]
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
        "disk_rate_bytes": machine.disk_rate_bytes,
        "matrix_rate": machine.matrix_rate,
        "convolution_rate": machine.convolution_rate,
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }
    if as_json:
        told = {"diagnosis": [vars(one) for one in found], "presets": [dataclasses.asdict(fit) for fit in fits]}
        screen.document({**report, **told})
        return
    for one in found:
        screen.say(f"{one.topic + ':':<8} {one.words}", *([f"         ! {one.do}"] if one.do else []))
    screen.say(f"device:  {device}, {report['precision']}: {precision.reason}")
    screen.say(f"threads: {report['threads']}; {_rates(machine.matrix_rate)} (matrices)")
    screen.say(f"home:    {here.home}")
    screen.say("", *_fitting(fits, machine.memory_bytes))
    screen.next_steps("tunesmith demo", *_commands(fits))


def _fitting(fits: Sequence[Fit], limit_bytes: int) -> list[str]:
    """Each preset in one line: does it fit, and how long it takes."""
    lines = ["presets on a full-size base, 30 items:"]
    for fit in fits:
        took = ""
        if fit.minutes is not None:
            low, high = (human_seconds(minutes * 60) for minutes in fit.minutes)
            took = f"; {fit.steps} steps in {low} to {high}"
        verdict = "fits" if fit.fits else f"too large for {human_bytes(limit_bytes)}"
        lines.append(f"  {fit.engine} {fit.preset}: {verdict}, {human_bytes(fit.peak_bytes)} at its peak{took}")
    return lines


def _commands(fits: Sequence[Fit]) -> list[str]:
    """The first preset that fits, or the starter where none does."""
    for fit in fits:
        if fit.fits:
            return [f"tunesmith plan preset={fit.preset} --data FOLDER --base BASE --name NAME"]
    return ["tunesmith train --base starter --data FOLDER --name NAME --steps 400 --resolution 64"]


def _rates(rates: Mapping[str, float]) -> str:
    return ", ".join(f"{dtype} {rate / 1e9:.0f} GFLOP/s" for dtype, rate in rates.items())
