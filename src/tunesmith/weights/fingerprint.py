"""Hash of what a part holds, wherever its file lies: cache keys follow the weights, not the path. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from tunesmith.weights.header import DTYPE_BYTES, read_header
from tunesmith.weights.listing import shards
from tunesmith.weights.pickles import SUFFIXES, locate

_BLOCK_BYTES = 1 << 22


def weights_fingerprint(path: Path, prefix: str = "") -> str:
    """SHA-256 (16 hex digits) over the tensors whose names start with `prefix`: names, shapes and bytes.

    Of a folder without weights (a tokenizer's), over its files.
    """
    return _fingerprint(path, prefix, tuple(_stamps(path)))


def _stamps(path: Path) -> Iterator[tuple[str, int, int]]:
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if file.is_file():
            status = file.stat()
            yield file.name, status.st_size, status.st_mtime_ns


@lru_cache(maxsize=64)
def _fingerprint(path: Path, prefix: str, stamps: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    if path.is_dir() and not any(name.endswith(".safetensors") for name, _, _ in stamps):
        for name, _, _ in stamps:
            digest.update(name.encode() + b"\0" + hashlib.sha256((path / name).read_bytes()).digest())
        return digest.hexdigest()[:16]
    for name, shape, file, start, size in sorted(_places(path), key=lambda place: place[0]):
        if name.startswith(prefix):
            digest.update(f"{name[len(prefix) :]}{shape}\0".encode())
            _add(digest, file, start, size)
    return digest.hexdigest()[:16]


def _places(path: Path) -> Iterator[tuple[str, tuple[int, ...], Path, int, int]]:
    if path.suffix.lower() in SUFFIXES and not path.is_dir():
        for name, stored in locate(path).items():
            yield name, stored.info.shape, path, stored.start, stored.span * DTYPE_BYTES[stored.info.dtype]
        return
    for file, names in shards(path).items():
        header = read_header(file)
        for name in names:
            info = header.tensors[name]
            yield name, info.shape, file, header.starts[name], info.size_bytes


def _add(digest: hashlib._Hash, file: Path, start: int, size: int) -> None:
    with file.open("rb") as handle:
        handle.seek(start)
        while size > 0 and (block := handle.read(min(size, _BLOCK_BYTES))):
            digest.update(block)
            size -= len(block)
