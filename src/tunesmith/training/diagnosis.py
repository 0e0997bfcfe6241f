"""What stands in the way on this machine, and what to do about it: facts first, then sentences.

`gather_facts` asks the system, `diagnose` only reasons about what it was told.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

TORCH_INDEX = "https://download.pytorch.org/whl"
LEAST_MEMORY_BYTES, LEAST_DISK_BYTES, SLOW_DISK_BYTES = 8 << 30, 10 << 30, 60e6
_DRIVER_FILE = Path("/proc/driver/nvidia/version")
# Optional wheel: (what is missing without it, how to get it). Only asked for where there is a GPU to use it.
_OPTIONAL = {"bitsandbytes": ("8-bit AdamW (optimiser.name=adamw8bit)", "pip install bitsandbytes")}


@dataclass(frozen=True)
class MachineFacts:
    """What the system says. `system` is Linux, Windows or Darwin; `driver_cuda` the newest CUDA that the NVIDIA driver
    runs, None without a driver; `torch_cuda` the CUDA torch was built for, None for a build without it; `kernels` and
    `capability` name GPU architectures such as sm_90."""

    system: str
    machine: str
    wsl: bool
    python: str
    torch: str
    torch_cuda: str | None
    cuda_works: bool
    driver_cuda: str | None
    capability: str | None
    kernels: tuple[str, ...]
    mps_built: bool
    mps_works: bool
    long_paths: bool
    missing: tuple[str, ...]
    memory_bytes: int
    disk_free_bytes: int
    disk_rate_bytes: float


@dataclass(frozen=True)
class Diagnosis:
    """One thing worth saying. `do` is empty where all is well."""

    topic: str
    words: str
    do: str = ""


def gather_facts(*, memory_bytes: int, disk_free_bytes: int, disk_rate_bytes: float) -> MachineFacts:
    """Ask system, driver and torch."""
    works = torch.cuda.is_available()
    major, minor = torch.cuda.get_device_capability() if works else (0, 0)
    release = platform.release().lower()
    return MachineFacts(
        system=platform.system(),
        machine=platform.machine(),
        wsl="microsoft" in release,
        python=platform.python_version(),
        torch=torch.__version__,
        torch_cuda=torch.version.cuda,
        cuda_works=works,
        driver_cuda=_driver_cuda(),
        capability=f"sm_{major}{minor}" if works else None,
        kernels=tuple(torch.cuda.get_arch_list()) if works else (),
        mps_built=torch.backends.mps.is_built(),
        mps_works=torch.backends.mps.is_available(),
        long_paths=_long_paths(),
        missing=tuple(name for name in _OPTIONAL if importlib.util.find_spec(name) is None),
        memory_bytes=memory_bytes,
        disk_free_bytes=disk_free_bytes,
        disk_rate_bytes=disk_rate_bytes,
    )


def diagnose(facts: MachineFacts) -> tuple[Diagnosis, ...]:
    """Sentences about system, GPU, optional wheels, memory and disk, in that order."""
    return (_system(facts), *_gpu(facts), *_wheels(facts), *_room(facts))


def _system(facts: MachineFacts) -> Diagnosis:
    name = {"Darwin": "macOS"}.get(facts.system, facts.system)
    if facts.wsl:
        name = "Linux inside Windows (WSL)"
    words = f"{name} on {facts.machine}, Python {facts.python}, torch {facts.torch}"
    if facts.system == "Windows" and not facts.long_paths:
        return Diagnosis(
            "system",
            f"{words}; paths are limited to 260 characters",
            "let Windows use long paths (LongPathsEnabled in its registry), or keep --home short",
        )
    if facts.wsl:
        return Diagnosis("system", f"{words}; files under /mnt are slow, so keep pictures and --home inside Linux")
    return Diagnosis("system", words)


def _gpu(facts: MachineFacts) -> tuple[Diagnosis, ...]:
    if facts.cuda_works:
        if facts.kernels and facts.capability not in facts.kernels and not _covered(facts):
            return (
                Diagnosis(
                    "gpu",
                    f"the GPU is of kind {facts.capability}, and this torch has kernels for {', '.join(facts.kernels)}",
                    f"install a torch built for it: pip install --upgrade torch --index-url {TORCH_INDEX}/cu128",
                ),
            )
        return (Diagnosis("gpu", f"NVIDIA GPU ({facts.capability}) through CUDA {facts.torch_cuda}"),)
    if facts.driver_cuda is not None and facts.torch_cuda is None:
        return (
            Diagnosis(
                "gpu",
                f"there is an NVIDIA driver (up to CUDA {facts.driver_cuda}), but torch {facts.torch} is a CPU build",
                f"pip install --force-reinstall torch --index-url {TORCH_INDEX}/{_wheel_for(facts.driver_cuda)}",
            ),
        )
    if facts.driver_cuda is not None and facts.torch_cuda is not None:
        older = _number(facts.driver_cuda) < _number(facts.torch_cuda)
        reason = "which is newer than the driver" if older else "and it still finds no GPU"
        do = (
            f"update the NVIDIA driver, or pip install --force-reinstall torch --index-url "
            f"{TORCH_INDEX}/{_wheel_for(facts.driver_cuda)}"
            if older
            else "check `nvidia-smi`, CUDA_VISIBLE_DEVICES and the container's --gpus flag"
        )
        words = f"the driver runs up to CUDA {facts.driver_cuda}, torch was built for {facts.torch_cuda}, {reason}"
        return (Diagnosis("gpu", words, do),)
    if facts.mps_works:
        return (Diagnosis("gpu", "Apple GPU through MPS"),)
    if facts.system == "Darwin" and facts.machine == "arm64":
        reason = "this macOS is too old for it" if facts.mps_built else "this torch was built without it"
        return (Diagnosis("gpu", f"an Apple GPU is there, but {reason}", "update macOS to 14 or newer, and torch"),)
    return (Diagnosis("gpu", "no GPU: everything runs on the CPU, full-size models slowly"),)


def _wheels(facts: MachineFacts) -> tuple[Diagnosis, ...]:
    if not facts.cuda_works:
        return ()
    return tuple(
        Diagnosis("wheels", f"{name} is not installed: no {_OPTIONAL[name][0]}", _OPTIONAL[name][1])
        for name in facts.missing
    )


def _room(facts: MachineFacts) -> tuple[Diagnosis, ...]:
    gib, free = facts.memory_bytes / 2**30, facts.disk_free_bytes / 2**30
    memory = Diagnosis("memory", f"{gib:.1f} GiB in all")
    if facts.memory_bytes < LEAST_MEMORY_BYTES:
        memory = Diagnosis(
            "memory",
            f"{gib:.1f} GiB in all, too little for a full-size base",
            "close other programs, or train on the starter",
        )
    rate = facts.disk_rate_bytes / 1e6
    disk = Diagnosis("disk", f"{free:.0f} GiB free, written at {rate:.0f} MB/s")
    if facts.disk_free_bytes < LEAST_DISK_BYTES:
        disk = Diagnosis(
            "disk", f"only {free:.1f} GiB free", "free some space, or name a folder on another disk with --home"
        )
    elif facts.disk_rate_bytes < SLOW_DISK_BYTES:
        disk = Diagnosis(
            "disk", f"{free:.0f} GiB free, but slow: {rate:.0f} MB/s", "name a folder on a faster disk with --home"
        )
    return memory, disk


def _covered(facts: MachineFacts) -> bool:
    """Whether kernels of the same family run on this GPU: those of sm_80 run on sm_86, never those of sm_90."""
    wanted = _architecture(facts.capability or "")
    kernels = [_architecture(name) for name in facts.kernels]
    return any(kernel[0] == wanted[0] and kernel[1] <= wanted[1] for kernel in kernels)


def _architecture(name: str) -> tuple[int, int]:
    digits = re.sub(r"\D", "", name) or "0"
    return int(digits[:-1] or 0), int(digits[-1])


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def _wheel_for(driver_cuda: str) -> str:
    """The newest index of torch wheels that a driver runs."""
    known = ((13, 0, "cu130"), (12, 8, "cu128"), (12, 6, "cu126"))
    return next((name for major, minor, name in known if _number(driver_cuda) >= (major, minor)), "cpu")


def _driver_cuda() -> str | None:
    """The newest CUDA that the driver runs, as nvidia-smi says; "0" where there is a driver that does not say."""
    program = shutil.which("nvidia-smi")
    if program is not None:
        try:
            said = subprocess.run([program], capture_output=True, text=True, timeout=10, check=False).stdout
        except (OSError, subprocess.TimeoutExpired):
            said = ""
        found = re.search(r"CUDA Version:\s*([\d.]+)", said)
        if found:
            return found[1]
    return "0" if _DRIVER_FILE.exists() else None


def _long_paths() -> bool:
    """Whether paths may be longer than 260 characters; only Windows can say no."""
    if sys.platform != "win32":
        return True
    import winreg

    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"SYSTEM\CurrentControlSet\Control\FileSystem") as key:
            return bool(winreg.QueryValueEx(key, "LongPathsEnabled")[0])
    except OSError:
        return os.name != "nt"
