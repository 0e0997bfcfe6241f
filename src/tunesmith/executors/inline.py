"""The inline executor: the work runs in this process. For the foreground, tests and the debugger."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tunesmith.jobs.control import clear_requests, request
from tunesmith.jobs.executor import Handle, Poll
from tunesmith.jobs.folder import JobFolder
from tunesmith.jobs.lock import is_held
from tunesmith.jobs.status import ENDED, read_status

Work = Callable[[Path], int]


def _work(folder: Path) -> int:
    # Deferred: whoever only asks for the executor's name needs no torch.
    from tunesmith.jobs.work import work

    return work(folder)


@dataclass(frozen=True)
class InlineExecutor:
    """Runs the work to its end within `submit`; the handle then knows the exit code."""

    work: Work = _work
    name: str = "inline"

    def submit(self, folder: Path, resources: Mapping[str, str]) -> Handle:
        """Do the work now. Raises JobBusy and JobError; how the work went is told by `poll` and the job's status."""
        job = JobFolder(folder)
        job.manifest()
        if not is_held(job):
            clear_requests(job)
        code = self.work(folder)
        return Handle(self.name, str(folder), {"exit_code": str(code)})

    def poll(self, handle: Handle) -> Poll:
        """`ended` after `submit`; seen from another process, by the lock."""
        folder = JobFolder(Path(handle.reference))
        if is_held(folder):
            return Poll("running")
        code = handle.details.get("exit_code")
        if code is None:
            return Poll("ended" if read_status(folder).state in ENDED else "unknown")
        return Poll("ended", int(code))

    def cancel(self, handle: Handle) -> None:
        """Ask the process that works there; nothing happens where none does."""
        folder = JobFolder(Path(handle.reference))
        if is_held(folder):
            request(folder, "cancel")

    def log(self, handle: Handle) -> str:
        """What the job wrote to its log."""
        file = JobFolder(Path(handle.reference)).log_file
        return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
