"""The encoded cache: what encoders gave, by content, on disk. The only part of `data` that imports torch.

A folder of safetensors files in sub-folders by the key's first two letters. Several processes may use it at once and
any of them may be killed: files appear whole by rename, and every one carries checksums that are checked when it is
read. A damaged entry is deleted and counts as missing, since it can always be encoded again (which is why nothing is
fsynced here).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import uuid
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from tunesmith.errors import DataError, DiskFull

_SUFFIX = ".safetensors"
_TEMPORARY = ".part"
_CHECKSUMS = "crc32"
_HEADER_LIMIT_BYTES = 10_000_000
_ORPHAN_SECONDS = 3600.0
_RESCAN_EVERY_PUTS = 512


def cache_key(input_hash: str, encoder_key: str, variant: str) -> str:
    """Where one encoded input lives: SHA-256 over the hash of the input, the encoder's key and the variant."""
    return hashlib.sha256(json.dumps([input_hash, encoder_key, variant]).encode()).hexdigest()


class Cache:
    """Encoded tensors by key, at most `limit_bytes` of them; the least recently used go first.

    What this process put or read is never evicted by it: a run cannot throw out its own items. If those alone pass the
    limit, `put` raises DiskFull.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._mine: set[str] = set()
        self._known_bytes = 0
        self._puts = 0

    def has(self, key: str) -> bool:
        """Whether a whole entry is there, judged by its header and length; a torn one is deleted."""
        path = self._path(key)
        try:
            whole = _is_whole(path)
        except FileNotFoundError:
            return False
        if not whole:
            path.unlink(missing_ok=True)
            return False
        self._mine.add(key)
        return True

    def put(self, key: str, tensors: Mapping[str, torch.Tensor]) -> None:
        """Store tensors of any dtype (on any device) under `key`, whole or not at all. Raises DiskFull."""
        held = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
        sums = {name: _checksum(tensor) for name, tensor in held.items()}
        data = save(held, metadata={_CHECKSUMS: json.dumps(sums)})
        self._make_room(len(data))
        path = self._path(key)
        temporary = path.with_name(f"{path.stem}.{os.getpid()}.{uuid.uuid4().hex[:8]}{_TEMPORARY}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(data)
            temporary.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull(
                    f"no room for the encoded cache in {self._folder}",
                    do="free some space, or point the home folder elsewhere; what is encoded is kept",
                ) from error
            raise DataError(f"{path} cannot be written ({error.strerror})", do="check the cache folder") from error
        self._mine.add(key)
        self._known_bytes += len(data)

    def get(self, key: str) -> dict[str, torch.Tensor]:
        """The tensors under `key`, on the CPU. Raises DataError where they are missing or damaged (then deleted)."""
        path = self._path(key)
        try:
            data = path.read_bytes()
            tensors = _checked(data)
            os.utime(path)  # the file's time is its place in the order of eviction
        except FileNotFoundError:
            raise _lost(key, "is gone") from None
        except (SafetensorError, ValueError, KeyError) as error:
            path.unlink(missing_ok=True)
            raise _lost(key, "was damaged and is deleted") from error
        self._mine.add(key)
        return tensors

    def size_bytes(self) -> int:
        """What the cache takes on disk, unfinished files of killed processes included."""
        return sum(size for _, _, size in self._entries())

    def prune(self, limit_bytes: int, keep: Collection[str] = ()) -> int:
        """Delete the least recently used entries until at most `limit_bytes` are left; returns the bytes freed.

        Keys in `keep` stay. Unfinished files older than an hour go too.
        """
        entries = sorted(self._entries(), key=lambda entry: entry[1])
        total = sum(size for _, _, size in entries)
        newest = entries[-1][1] if entries else 0.0
        kept, freed = set(keep), 0
        for path, used, size in entries:
            orphan = path.suffix == _TEMPORARY
            unwanted = used < newest - _ORPHAN_SECONDS if orphan else total > limit_bytes and path.stem not in kept
            if unwanted:
                path.unlink(missing_ok=True)
                total -= size
                freed += size
        self._known_bytes = total
        return freed

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}{_SUFFIX}"

    def _entries(self) -> Iterator[tuple[Path, float, int]]:
        """(path, last use, size in bytes) of every file; those that vanish meanwhile are skipped."""
        if not self._folder.is_dir():
            return
        for shard in os.scandir(self._folder):
            if not shard.is_dir(follow_symlinks=False):
                continue
            for entry in os.scandir(shard.path):
                if entry.name.endswith((_SUFFIX, _TEMPORARY)):
                    with contextlib.suppress(FileNotFoundError):
                        status = entry.stat(follow_symlinks=False)
                        yield Path(entry.path), status.st_mtime, status.st_size

    def _make_room(self, wanted_bytes: int) -> None:
        """Evict what others left until `wanted_bytes` more fit under the limit. Raises DiskFull."""
        if self._puts % _RESCAN_EVERY_PUTS == 0:  # other processes add too
            self._known_bytes = self.size_bytes()
        self._puts += 1
        if self._known_bytes + wanted_bytes <= self._limit_bytes:
            return
        # Down to 90 %, so that the next put need not look through the folder again.
        self.prune(max(0, int(self._limit_bytes * 0.9) - wanted_bytes), keep=self._mine)
        if self._known_bytes + wanted_bytes > self._limit_bytes:
            raise DiskFull(
                f"the encoded items of this run alone pass the cache's limit of {self._limit_bytes:,} bytes",
                expected=f"at least {self._known_bytes + wanted_bytes:,}",
                do="raise resources.cache_limit_bytes, or use fewer items or a lower resolution",
            )


def _lost(key: str, what: str) -> DataError:
    return DataError(f"the encoded entry {key[:12]} {what}", do="run the same command again: it is encoded again")


def _checksum(tensor: torch.Tensor) -> int:
    return zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data) if tensor.numel() else 0


def _header(data: bytes) -> dict[str, object]:
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 + length or length > _HEADER_LIMIT_BYTES:
        raise ValueError("header cut short")
    header = json.loads(data[8 : 8 + length])
    if not isinstance(header, dict):
        raise ValueError("no header")
    return header


def _is_whole(path: Path) -> bool:
    """Whether header and file length agree."""
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or not 0 < length <= _HEADER_LIMIT_BYTES:
            return False
        try:
            header = _header(start + file.read(length))
            entries = [entry for name, entry in header.items() if name != "__metadata__"]
            end = max((int(entry["data_offsets"][1]) for entry in entries), default=0)  # type: ignore[index]
        except (ValueError, KeyError, TypeError, IndexError):
            return False
        return os.fstat(file.fileno()).st_size == 8 + length + end


def _checked(data: bytes) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file whose checksums agree; ValueError, KeyError or SafetensorError otherwise."""
    metadata = _header(data).get("__metadata__")
    if not isinstance(metadata, dict):
        raise ValueError("no checksums")
    sums = json.loads(metadata[_CHECKSUMS])
    tensors = load(data)
    if sums != {name: _checksum(tensor) for name, tensor in tensors.items()}:
        raise ValueError("checksums differ")
    return tensors
