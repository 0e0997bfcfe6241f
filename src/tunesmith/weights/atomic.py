"""How everything is written: aside, fsynced, renamed. No torch.

A reader sees the old file or the new one, never half of either, and a failed write leaves the old file untouched and
no temporary one behind. On Windows folders cannot be fsynced; there the rename alone orders the writes.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from tunesmith.errors import DiskFull, TunesmithError

_FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what the operating system says about writing `path` into one clear error.

    Raises DiskFull for a full disk or quota, TunesmithError for a path that cannot exist or may not be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFull(
                f"no room left on the disk while writing {path}",
                expected="more free space, or a larger quota",
                do="free some space and run the same command again; nothing half-written was kept",
            ) from error
        blocker = next((parent for parent in path.parents if parent.exists() and not parent.is_dir()), None)
        if blocker is not None:
            raise TunesmithError(
                f"{path} cannot be written: {blocker} is a file",
                expected="a folder there",
                do="choose another output path",
            ) from error
        if isinstance(error, FileNotFoundError):
            raise
        raise TunesmithError(
            f"{path} cannot be written: {error.strerror or error}",
            do="check the path and its permissions, or choose another",
        ) from error


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A binary file that becomes `path` when the block ends without an error; its folder is made where missing.

    Raises DiskFull or TunesmithError (see `explained`); the old file is intact after any failure.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex[:12]}.tmp")
    with explained(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as handle:
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        fsync_folder(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace the contents of `path`, whole or not at all."""
    with writing(path) as handle:
        handle.write(data)


def write_text(path: Path, text: str) -> None:
    """Replace `path` with `text` in UTF-8, newlines as given."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Replace `path` with indented JSON; NaN and Inf are a ValueError, since no JSON reader takes them."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def fsync_folder(path: Path) -> None:
    """Make the renames inside a folder last through a power cut; does nothing where the system has no such call."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems refuse fsync on folders; their renames are synchronous already.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def replace_folder(temporary: Path, final: Path) -> None:
    """Fsync everything in `temporary`, then let it take the place of `final`; both lie on one file system.

    An existing `final` is moved aside first and deleted after the rename: a crash in between leaves it as
    `.<name>.<hex>.old` beside, and `temporary` complete.
    """
    with explained(final):
        for folder, _, files in os.walk(temporary):
            for name in files:
                _fsync_file(Path(folder, name))
            fsync_folder(Path(folder))
        final.parent.mkdir(parents=True, exist_ok=True)
        aside = None
        if final.exists():
            aside = final.with_name(f".{final.name[:100]}.{uuid.uuid4().hex[:12]}.old")
            final.rename(aside)
        try:
            temporary.rename(final)
        except OSError:
            if aside is not None:
                aside.rename(final)
            raise
        fsync_folder(final.parent)
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True) if aside.is_dir() else aside.unlink()


def _fsync_file(path: Path) -> None:
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def free_bytes(path: Path) -> int:
    """Room on the disk that holds `path`, or would hold it, in bytes a normal user may take."""
    path = Path(path).absolute()
    existing = next(place for place in (path, *path.parents) if place.exists())
    return shutil.disk_usage(existing).free


def reserve(path: Path, size_bytes: int) -> None:
    """Raise DiskFull unless the disk of `path` has `size_bytes` free. Ask before starting long work."""
    free = free_bytes(path)
    if free < size_bytes:
        raise DiskFull(
            f"{free / 1e9:.2f} GB are free where {path} would be written",
            expected=f"{size_bytes / 1e9:.2f} GB",
            do="free some space, or choose another disk",
        )
