"""Which device, which precision, how many threads: chosen, explained, and recorded, since bits depend on them."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tunesmith.errors import DeviceError
from tunesmith.recipe.schema import MethodSection, ResourceSection

CPU_INFO = Path("/proc/cpuinfo")
# What the CPU kernels of torch, oneDNN and MKL choose by.
_FEATURES = (
    "avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni",
    "amx_tile", "amx_bf16", "amx_int8", "asimd", "bf16", "i8mm", "sve",
)  # fmt: skip
_BF16_FEATURES = ("avx512_bf16", "amx_bf16", "bf16")


@dataclass(frozen=True)
class Precision:
    """How numbers are kept. `dtype` is that of frozen weights; what trains is float32 always.

    `autocast` is the dtype of the arithmetic where something is kept wider; `scaler` says that gradients are scaled
    against fp16 underflow; `reason` explains the choice to the user.
    """

    dtype: torch.dtype
    autocast: torch.dtype | None
    scaler: bool
    reason: str

    @property
    def name(self) -> str:
        """fp32, bf16 or fp16."""
        return {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[self.dtype]


def choose_device(resources: ResourceSection) -> torch.device:
    """The device asked for; `auto` takes CUDA, then MPS, then the CPU. Raises DeviceError where it is missing."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if resources.device == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    kind, _, index = resources.device.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not index.isdigit()):
        raise DeviceError(f"resources.device is {resources.device!r}", expected="auto, cpu, cuda, cuda:1 or mps")
    if kind == "cuda" and not cuda:
        built = torch.version.cuda is not None or torch.version.hip is not None
        why = "no working GPU was found" if built else "this torch was built without CUDA"
        raise DeviceError(f"resources.device is {resources.device}, but {why}", do="set resources.device=auto or cpu")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"there is no {resources.device}", expected=f"cuda:0 to cuda:{torch.cuda.device_count() - 1}")
    if kind == "mps" and not mps:
        raise DeviceError("resources.device is mps, but this is no Mac with a GPU", do="set resources.device=auto")
    return torch.device(resources.device)


def choose_precision(resources: ResourceSection, device: torch.device, method: MethodSection) -> Precision:
    """The precision asked for; `auto` takes bf16 where the hardware computes in it, else fp32.

    Raises DeviceError for fp16 away from CUDA, where neither gradient scaling nor the speed exists.
    """
    whole = method.name in ("full", "scratch")
    kept = "what trains stays fp32 and is cast for the arithmetic" if whole else "the adapter stays fp32"
    match resources.precision:
        case "fp32":
            return Precision(torch.float32, None, False, "fp32, as asked for")
        case "fp16":
            if device.type != "cuda":
                raise DeviceError(f"fp16 does not train on {device.type}", do="set resources.precision=auto")
            return Precision(torch.float16, torch.float16, True, f"fp16 with gradient scaling, as asked for; {kept}")
        case "bf16":
            slow = "" if computes_bf16(device) else "; this hardware only emulates it, so fp32 would be faster"
            return Precision(torch.bfloat16, torch.bfloat16, False, f"bf16, as asked for{slow}; {kept}")
    if computes_bf16(device):
        name = "the CPU" if device.type == "cpu" else str(device)
        return Precision(torch.bfloat16, torch.bfloat16, False, f"bf16, because {name} computes in it; {kept}")
    return Precision(torch.float32, None, False, f"fp32, because {device.type} here does not compute in bf16")


def computes_bf16(device: torch.device) -> bool:
    """Whether the hardware itself multiplies bf16 numbers."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "mps":
        return bool(torch.backends.mps.is_macos_or_newer(14, 0))
    return any(feature in cpu_features() for feature in _BF16_FEATURES)


def cpu_features(cpuinfo: Path = CPU_INFO) -> tuple[str, ...]:
    """What this CPU offers that kernels choose by, torch's own level first. Linux lists flags; elsewhere only that."""
    level = torch.backends.cpu.get_cpu_capability()
    flags: set[str] = set()
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip().lower() in ("flags", "features"):
                flags = set(value.split())
                break
    return (str(level), *(feature for feature in _FEATURES if feature in flags))


def cpu_model(cpuinfo: Path = CPU_INFO) -> str:
    """The CPU's name: kernels also choose by maker and cache sizes."""
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip().lower() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def available_threads() -> int:
    """How many CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def set_threads(threads: int | None, device: torch.device) -> int:
    """Fix what bits depend on in this process: the CPU threads (None: torch's own choice), kernels that always add in
    the same order on a CPU. Returns the thread count. Call once, before anything is computed."""
    if threads is not None:
        torch.set_num_threads(threads)
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True, warn_only=True)
        # A debugging aid of the above that costs time. torch declares it in a way mypy cannot see.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return torch.get_num_threads()


def environment_record(device: torch.device, precision: Precision) -> dict[str, Any]:
    """Everything a result's bits depend on besides recipe and data; kept in every state."""
    record: dict[str, Any] = {
        "device": device.type,
        "precision": precision.name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "cpu": cpu_model(),
        "cpu_features": list(cpu_features()),
    }
    if device.type == "cuda":
        record["gpu"] = torch.cuda.get_device_name(device)
    return record


def environment_notes(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """One "not bit-exact: …" for each thing that differs between two records."""
    names = [name for name in (*recorded, *now) if recorded.get(name) != now.get(name)]
    return tuple(
        f"not bit-exact: {name} was {_words(recorded.get(name))} and is {_words(now.get(name))}"
        for name in dict.fromkeys(names)
    )


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
