"""Hashes of weights files: SHA-256 cached by (path, size, time), and the short ones other tools display. No torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from tunesmith.weights.atomic import write_json
from tunesmith.weights.header import read_header

_CHUNK_BYTES = 1 << 22
_WINDOW_START = 0x100000
_WINDOW_BYTES = 0x10000


class HashCache:
    """SHA-256 of files, kept in one JSON file; an entry counts while path, size and modification time agree."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._entries: dict[str, list[object]] = _entries_of(file)
        self._changed = False

    def get(self, path: Path, progress: Callable[[int], None] = lambda done: None) -> str:
        """The file's SHA-256 in hex, computed where the cache does not hold it; `progress` gets bytes done."""
        path = Path(path).resolve()
        facts = path.stat()
        stamp: list[object] = [facts.st_size, facts.st_mtime_ns]
        entry = self._entries.get(str(path))
        if entry is not None and entry[:2] == stamp and len(entry) == 3:
            return str(entry[2])
        digest = _sha256(path, 0, progress)
        self._entries[str(path)] = [*stamp, digest]
        self._changed = True
        return digest

    def save(self) -> None:
        """Write what is new, keeping what another process added meanwhile; does nothing without a file."""
        if self._file is not None and self._changed:
            self._entries = {**_entries_of(self._file), **self._entries}
            write_json(self._file, self._entries)
            self._changed = False


def _entries_of(file: Path | None) -> dict[str, list[object]]:
    if file is None or not file.is_file():
        return {}
    try:
        value = json.loads(file.read_text("utf-8"))
    except ValueError:
        return {}  # a cache that cannot be read is an empty one
    return {key: entry for key, entry in value.items() if isinstance(entry, list)} if isinstance(value, dict) else {}


def sha256_of(path: Path, cache_file: Path | None = None) -> str:
    """SHA-256 of a file in hex, through the cache kept in `cache_file`."""
    cache = HashCache(cache_file)
    digest = cache.get(path)
    cache.save()
    return digest


def tensor_hash(path: Path) -> str:
    """SHA-256 in hex of a safetensors file's bytes after its header: unchanged by metadata edits (sshs_model_hash)."""
    return _sha256(Path(path), read_header(path).data_start, lambda done: None)


def kohya_legacy_hash(path: Path) -> str:
    """The 8-digit hash that ss_sd_model_hash and old A1111 show: SHA-256 of 64 KiB at 1 MiB, first 8 hex digits."""
    with Path(path).open("rb") as handle:
        handle.seek(_WINDOW_START)
        return hashlib.sha256(handle.read(_WINDOW_BYTES)).hexdigest()[:8]


def sshs_legacy_hash(path: Path) -> str:
    """`kohya_legacy_hash` of the same tensors serialised with only the `ss_` metadata, as kohya files declare it."""
    header = read_header(path)
    metadata = {key: text for key, text in sorted(header.metadata.items()) if key.startswith("ss_")}
    entries: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    for name, start in sorted(header.starts.items(), key=lambda pair: (pair[1], pair[0])):
        info, begin = header.tensors[name], start - header.data_start
        entries[name] = {
            "dtype": info.dtype,
            "shape": list(info.shape),
            "data_offsets": [begin, begin + info.size_bytes],
        }
    prefix = header_bytes(entries)
    window = prefix[_WINDOW_START : _WINDOW_START + _WINDOW_BYTES]
    with Path(path).open("rb") as handle:
        handle.seek(header.data_start + max(0, _WINDOW_START - len(prefix)))
        window += handle.read(_WINDOW_BYTES - len(window))
    return hashlib.sha256(window).hexdigest()[:8]


def header_bytes(entries: dict[str, object]) -> bytes:
    """Length and JSON of a safetensors header, padded with spaces to a multiple of 8 as the library does."""
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _sha256(path: Path, start: int, progress: Callable[[int], None]) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        handle.seek(start)
        done = start
        while chunk := handle.read(_CHUNK_BYTES):
            digest.update(chunk)
            done += len(chunk)
            progress(done)
    return digest.hexdigest()
