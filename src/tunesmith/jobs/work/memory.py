"""The largest resident size of this process, phase by phase. Linux resets its high-water mark when asked to."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5): resets the peak resident set size


def reset_peak() -> bool:
    """Start a new high-water mark from what is resident now; False where the system does not allow it."""
    _reset_device_peaks()
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def peak_bytes() -> int:
    """The high-water mark of resident memory (VmHWM), in bytes; what is resident now where there is no mark."""
    try:
        rows = _STATUS.read_text().splitlines()
    except OSError:
        rows = []
    for row in rows:
        if row.startswith("VmHWM:"):
            return int(row.split()[1]) * 1024
    memory = psutil.Process().memory_info()
    return int(getattr(memory, "peak_wset", memory.rss))


def device_peak_bytes() -> int:
    """What torch held at most on accelerators since the last reset; 0 without one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return 0
    return sum(int(torch.cuda.max_memory_allocated(index)) for index in range(torch.cuda.device_count()))


def _reset_device_peaks() -> None:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return
    torch.cuda.empty_cache()
    for index in range(torch.cuda.device_count()):
        torch.cuda.reset_peak_memory_stats(index)
