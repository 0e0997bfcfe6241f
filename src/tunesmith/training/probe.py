"""What this machine can do: matrix and convolution rates per dtype, measured in about two seconds and stored."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import psutil
import torch

from tunesmith.engines.protocol import Machine
from tunesmith.training.device import computes_bf16
from tunesmith.weights.atomic import write_json

_MATRIX = 1024  # side of the square matrices
_CONVOLUTION = (320, 32)  # channels and side of a 3x3 convolution, as in the middle of a picture model
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_DISK_BYTES = 32 << 20


def probe_machine(home: Path, device: torch.device, clock: Callable[[], float] = time.perf_counter) -> Machine:
    """Measure for at most three seconds and keep the result as <home>/machine.json (the fields of Machine).

    Rates are medians in floating-point operations per second; memory in bytes is what a process here may take.
    """
    dtypes = {"fp32": torch.float32}
    if computes_bf16(device):
        dtypes["bf16"] = torch.bfloat16
    if device.type == "cuda":
        dtypes["fp16"] = torch.float16
    seconds = 1.6 / (2 * len(dtypes))
    matrix, convolution = {}, {}
    with torch.no_grad():
        for name, dtype in dtypes.items():
            matrix[name] = _rate(*_matrix_product(device, dtype), device=device, seconds=seconds, clock=clock)
            convolution[name] = _rate(*_convolved(device, dtype), device=device, seconds=seconds, clock=clock)
    machine = Machine(
        device=str(device),
        memory_bytes=memory_bytes(device),
        threads=torch.get_num_threads(),
        bf16="bf16" in dtypes,
        matrix_rate=matrix,
        convolution_rate=convolution,
        disk_rate_bytes=_disk_rate(home, clock),
    )
    write_json(home / "machine.json", asdict(machine))
    return machine


def memory_bytes(device: torch.device, limits: tuple[Path, ...] = _LIMITS) -> int:
    """Memory of the device in bytes; for a CPU the machine's, or the container's limit where that is lower."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    found = [int(psutil.virtual_memory().total)]
    for path in limits:
        if path.exists() and (text := path.read_text(encoding="ascii").strip()).isdigit():
            found.append(int(text))
    return min(found)


def _matrix_product(device: torch.device, dtype: torch.dtype) -> tuple[Callable[[], object], float]:
    a = torch.ones(_MATRIX, _MATRIX, device=device, dtype=dtype)
    return (lambda: a @ a), 2.0 * _MATRIX**3


def _convolved(device: torch.device, dtype: torch.dtype) -> tuple[Callable[[], object], float]:
    channels, side = _CONVOLUTION
    x = torch.ones(1, channels, side, side, device=device, dtype=dtype)
    weight = torch.ones(channels, channels, 3, 3, device=device, dtype=dtype)
    return (lambda: torch.nn.functional.conv2d(x, weight, padding=1)), 2.0 * channels**2 * 9 * side**2


def _rate(
    work: Callable[[], object], operations: float, *, device: torch.device, seconds: float, clock: Callable[[], float]
) -> float:
    work()  # the first call loads kernels and packs weights
    times = list(_timed(work, device, seconds, clock))
    return operations / statistics.median(times)


def _timed(
    work: Callable[[], object], device: torch.device, seconds: float, clock: Callable[[], float]
) -> Iterator[float]:
    started = clock()
    for _ in range(1000):
        began = clock()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        ended = clock()
        yield max(ended - began, 1e-9)
        if ended - started >= seconds:
            return


def _disk_rate(home: Path, clock: Callable[[], float]) -> float:
    home.mkdir(parents=True, exist_ok=True)
    path = home / f".probe-{os.getpid()}"
    try:
        began = clock()
        with path.open("wb") as file:
            file.write(b"\0" * _DISK_BYTES)
            file.flush()
            os.fsync(file.fileno())
        return _DISK_BYTES / max(clock() - began, 1e-9)
    finally:
        path.unlink(missing_ok=True)
