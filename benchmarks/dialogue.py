"""How the measuring process talks to the measured ones: one JSON object a line, a request, then its answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Contender:
    """A training loop in a process of its own, so that its peak memory is its own too."""

    def __init__(self, module: str, arguments: list[str], threads: int) -> None:
        self.name = module.rpartition(".")[2]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-m", module, *arguments]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send one request and wait for its answer."""
        if request:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return dict(json.loads(line))
        raise SystemExit(f"{self.name} ended early with status {self._process.wait()}")

    def end(self) -> int:
        """Peak resident memory of the whole process in bytes; then it is gone."""
        peak = int(self.ask(done=True)["peak_bytes"])
        self._process.wait()
        return peak


@contextmanager
def started(*contenders: Contender) -> Iterator[tuple[Contender, ...]]:
    """No process outlives the measurement."""
    try:
        yield contenders
    finally:
        for contender in contenders:
            if contender._process.poll() is None:
                contender._process.kill()


def answer(step: Callable[[int], float], **ready: Any) -> None:
    """In the measured process: say that everything is loaded, then do steps as asked, timing each."""
    _say(ready=True, **ready)
    for line in sys.stdin:
        request = json.loads(line)
        if "step" not in request:
            break
        wall, processor = time.perf_counter(), time.process_time()
        loss = step(int(request["step"]))
        _say(loss=loss, seconds=time.perf_counter() - wall, processor_seconds=time.process_time() - processor)
    _say(peak_bytes=peak_bytes())


def peak_bytes() -> int:
    """VmHWM: the most this process ever had resident."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def _say(**fields: Any) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()
