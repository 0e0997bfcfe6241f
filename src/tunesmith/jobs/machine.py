"""What the machine offers: the stored probe, and what is free right now. No torch."""

from __future__ import annotations

import json
import os
from dataclasses import fields
from pathlib import Path

import psutil

from tunesmith.engines.protocol import Machine

_CGROUP = Path("/sys/fs/cgroup")


def read_machine(home: Path) -> Machine | None:
    """The machine as it was measured once (`machine.json`); None before that, or where the file makes no sense."""
    try:
        content = json.loads((home / "machine.json").read_text(encoding="utf-8"))
        return Machine(**{entry.name: content[entry.name] for entry in fields(Machine) if entry.name in content})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def unmeasured_machine(device: str) -> Machine:
    """What can be said without measuring: memory and threads, no rates."""
    return Machine(
        device=device,
        memory_bytes=psutil.virtual_memory().total,
        threads=os.cpu_count() or 1,
        bf16=False,
        matrix_rate={},
        convolution_rate={},
    )


def available_memory_bytes(cgroup: Path = _CGROUP) -> int:
    """Memory a new process may take: what the system has free, or what is left of the container's limit."""
    free = int(psutil.virtual_memory().available)
    limit, used = _number(cgroup / "memory.max"), _number(cgroup / "memory.current")
    if limit is None or used is None:
        return free
    # The file cache counts as used and is given back under pressure.
    reclaimable = _statistic(cgroup / "memory.stat", "inactive_file")
    return min(free, max(0, limit - used + reclaimable))


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text().strip())
    except (OSError, ValueError):
        return None


def _statistic(file: Path, name: str) -> int:
    try:
        rows = dict(row.split() for row in file.read_text().splitlines())
        return int(rows.get(name, 0))
    except (OSError, ValueError):
        return 0
