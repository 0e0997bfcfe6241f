"""A folder that appears whole or not at all, though its writer may be killed or not be alone. No torch.

It grows in a hidden folder beside its place, `.<name>.<hex>.preparing`, whose `lock` the kernel frees when the writer
dies, and is renamed at the end. The rename decides between two writers; the locks only spare the second one its work
and tell what a killed one left.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.errors import DataError, DiskFull

if TYPE_CHECKING:
    from filelock import BaseFileLock

_END = ".preparing"
_LONGEST_NAME_BYTES = 200
_TRIES = 5


@contextmanager
def whole_folder(out: Path, *, replace: bool = False) -> Iterator[Path]:
    """An empty folder to fill, which becomes `out` when the block ends without an error; missing parents are made.

    With `replace` it takes the place of the folder that stands there now, deleted once the new one is complete.
    After any error `out` and its parents are as they were. Raises DataError: something else was put at `out` in the
    meantime, or it cannot be written. DiskFull.
    """
    before = _identity(out)
    missing = [parent for parent in out.parents if not parent.exists()]
    placed = False
    with _explained(out):
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            work, lock = _begun(out)
            try:
                yield work / "new"
                _sync(work / "new")
                _place(out, work, before if replace else None)
                placed = True
            finally:
                lock.release()  # first: Windows deletes no open file
                shutil.rmtree(work, ignore_errors=True)
        finally:
            if not placed:
                with suppress(OSError):
                    for parent in missing:
                        parent.rmdir()


def clear_leftovers(out: Path) -> None:
    """Remove what a killed writer of `out` left, and put back what it had just moved aside.

    Raises DataError where a living one is at work.
    """
    if not out.parent.is_dir():
        return
    ours = re.compile(re.escape(_start(out)) + r"[0-9a-f]{12}" + re.escape(_END))
    for work in [path for path in out.parent.iterdir() if ours.fullmatch(path.name)]:
        lock = _lock(work)
        if _taken(lock) is not True:
            raise DataError(
                f"another process is writing {out} at this moment",
                expected="one at a time",
                do=f"wait for it, or name another folder; if nothing runs, delete {work}",
            )
        try:
            if (work / "old").is_dir() and not out.exists():
                (work / "old").rename(out)
            shutil.rmtree(work, ignore_errors=True)
        finally:
            lock.release()
        with suppress(OSError):
            work.rmdir()


def is_filled(folder: Path) -> bool:
    """Whether there is a folder with something in it."""
    return folder.is_dir() and next(folder.iterdir(), None) is not None


def _start(out: Path) -> str:
    name = os.fsencode(out.name)
    return f".{out.name if len(name) <= _LONGEST_NAME_BYTES else hashlib.sha256(name).hexdigest()}."


def _lock(work: Path) -> BaseFileLock:
    from filelock import FileLock

    return FileLock(work / "lock")


def _taken(lock: BaseFileLock) -> bool | None:
    """Whether the lock is ours now. False: somebody holds it. None: this file system cannot tell."""
    from filelock import Timeout

    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    except (OSError, NotImplementedError):
        return None
    return True


def _begun(out: Path) -> tuple[Path, BaseFileLock]:
    """A new work folder and its lock. Another process may take the folder for a leftover before it is locked."""
    for _ in range(_TRIES):
        work = out.with_name(f"{_start(out)}{uuid.uuid4().hex[:12]}{_END}")
        work.mkdir()
        lock = _lock(work)
        if _taken(lock) is not False:  # where nothing can be locked the rename alone decides
            with suppress(FileNotFoundError):
                (work / "new").mkdir()
                return work, lock
            lock.release()
    raise _overtaken(out)


def _identity(folder: Path) -> tuple[int, int] | None:
    """Tells this folder from another that takes its name; None where there is none, or an empty one."""
    if not is_filled(folder):
        return None
    state = folder.stat()
    return state.st_dev, state.st_ino


def _place(out: Path, work: Path, before: tuple[int, int] | None) -> None:
    """Let `work/new` become `out`, where nothing stands or what stood there `before`."""
    new, old = work / "new", work / "old"
    if before is None:
        with suppress(OSError):  # an empty folder is in nobody's way, but Windows renames onto none
            out.rmdir()
    else:
        with suppress(FileNotFoundError):
            out.rename(old)
        if old.exists() and _identity(old) != before:
            old.rename(out)
            raise _overtaken(out)
    try:
        new.rename(out)
    except OSError as error:
        if old.exists() and not out.exists():
            old.rename(out)
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise _overtaken(out) from error
        raise
    _sync_folder(out.parent)


def _overtaken(out: Path) -> DataError:
    return DataError(
        f"another process put something at {out} in the meantime",
        expected="one at a time",
        do="look at what is there; it was left as it is, and nothing of this run was kept",
    )


@contextmanager
def _explained(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"no room left while writing {out}", do="free some space; nothing half-written is left"
            ) from error
        blocker = next((parent for parent in out.parents if parent.exists() and not parent.is_dir()), None)
        if blocker is not None:
            raise DataError(f"{out} cannot be written: {blocker} is a file", do="choose another folder") from error
        raise DataError(
            f"{out} cannot be written ({error.strerror or error})", do="choose another folder, or check its permissions"
        ) from error


def _sync(folder: Path) -> None:
    """Make everything in a folder last through a power cut."""
    for parent, _, names in os.walk(folder):
        for name in names:
            handle = os.open(Path(parent, name), os.O_RDWR if os.name == "nt" else os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        _sync_folder(Path(parent))


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # has no such call
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # network file systems that rename at once anyway
            raise
    finally:
        os.close(handle)
