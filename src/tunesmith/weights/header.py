"""Safetensors headers, read without torch and without trusting them.

The file format: 8 bytes little-endian length, that many bytes of JSON, then the tensors' bytes without gaps.
Caps of our own come first: a header of 1.2 million empty tensors is legal and takes a gigabyte to parse.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith.errors import WeightsError

HEADER_LIMIT_BYTES = 10 << 20
TENSOR_LIMIT = 100_000
NAME_LIMIT = 1000

# In the order the safetensors library sorts by, widest alignment last; files list the widest first.
DTYPE_BYTES: Mapping[str, int] = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E5M2": 1,
    "F8_E4M3": 1,
    "I16": 2,
    "U16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "U32": 4,
    "F32": 4,
    "C64": 8,
    "F64": 8,
    "I64": 8,
    "U64": 8,
}


@dataclass(frozen=True)
class TensorInfo:
    """One tensor as its file describes it. `dtype` is the safetensors name (F16, BF16, F32, I64 ...)."""

    dtype: str
    shape: tuple[int, ...]
    size_bytes: int

    @property
    def count(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """What a weights file holds. `starts` are offsets in bytes from the beginning of the file, for safetensors."""

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str] = field(default_factory=dict)
    starts: Mapping[str, int] = field(default_factory=dict)
    data_start: int = 0

    @property
    def parameters(self) -> int:
        """Numbers in all tensors together."""
        return sum(info.count for info in self.tensors.values())

    @property
    def size_bytes(self) -> int:
        """Bytes of all tensors together."""
        return sum(info.size_bytes for info in self.tensors.values())


def header_hash(tensors: Mapping[str, TensorInfo]) -> str:
    """SHA-256 over every tensor's name, dtype and shape, in order of name: which architecture, not which weights."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        info = tensors[name]
        digest.update(f"{name}\0{info.dtype}\0{','.join(map(str, info.shape))}\n".encode())
    return digest.hexdigest()


def read_header(path: Path) -> Header:
    """The header of one safetensors file. Raises WeightsError for anything that is not a whole, plain one."""
    path = Path(path)
    size = _size_of(path)
    with path.open("rb") as handle:
        start = handle.read(8)
        refuse_foreign(path, start + handle.read(512), size)
        length = int.from_bytes(start, "little")
        if length > HEADER_LIMIT_BYTES or length < 2:
            raise WeightsError(
                f"{path} announces a header of {length:,} bytes",
                expected=f"a safetensors file, its header at most {HEADER_LIMIT_BYTES:,} bytes",
                do="check that this is the file you meant, and download or copy it again",
            )
        if 8 + length > size:
            raise _damaged(path, f"ends inside its header ({size:,} bytes of {8 + length:,})")
        handle.seek(8)
        raw = handle.read(length)
    return _checked(path, _parsed(path, raw), 8 + length, size)


def refuse_foreign(path: Path, start: bytes, size: int) -> None:
    """Raise WeightsError naming what a file really is where its first bytes show that it is no safetensors file."""
    if size < 8:
        raise _damaged(path, "is empty" if size == 0 else f"has only {size} bytes")
    found = foreign_kind(start)
    if found is not None:
        what, advice = found
        raise WeightsError(f"{path} is {what}, not a safetensors file", do=advice)


def foreign_kind(start: bytes) -> tuple[str, str] | None:
    """What a file is by its first bytes, with advice, or None where nothing known speaks against safetensors."""
    text = start.lstrip()[:64].lower()
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, three lines of text", "fetch the real file with `git lfs pull`"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "a web page", "the download was an error page: download the file itself, signed in where needed"
    if start.startswith(b"PK\x03\x04"):
        return "a zip archive, probably a torch checkpoint", "name it *.ckpt or *.pt so that it is read as one"
    if start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05" and start[8:9] != b"{":
        return "a raw pickle", "convert it to safetensors with the tool that made it"
    if start.startswith(b"GGUF"):
        return "a GGUF file", "use the safetensors version of this model"
    return None


def _size_of(path: Path) -> int:
    try:
        if path.is_dir():
            raise WeightsError(f"{path} is a folder", expected="a weights file")
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        raise WeightsError(f"{path} does not exist", expected="a weights file", do="check the path") from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}", do="check its permissions") from error


def _parsed(path: Path, raw: bytes) -> Mapping[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            seen: set[str] = set()
            twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
            raise _damaged(path, f"names {twice!r} twice in its header")
        return result

    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"has a header that is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise _damaged(path, "has a header that is not a JSON object")
    return value


def _checked(path: Path, value: Mapping[str, Any], data_start: int, size: int) -> Header:
    metadata = value.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise _damaged(path, "has metadata that is not text by name")
    entries = {name: entry for name, entry in value.items() if name != "__metadata__"}
    if len(entries) > TENSOR_LIMIT:
        raise WeightsError(f"{path} lists {len(entries):,} tensors", expected=f"at most {TENSOR_LIMIT:,}")
    tensors, spans = {}, []
    for name, entry in entries.items():
        check_name(path, name)
        info, begin, end = _entry(path, name, entry)
        tensors[name] = info
        spans.append((begin, end, name))
    position = 0
    for begin, end, name in sorted(spans):
        if begin != position:
            raise _damaged(path, f"leaves a gap or an overlap before {name!r}")
        position = end
    if data_start + position != size:
        word = "is cut short" if data_start + position > size else "has bytes after its last tensor"
        raise _damaged(path, f"{word}: {size:,} bytes, its header asks for {data_start + position:,}")
    starts = {name: data_start + begin for begin, _, name in spans}
    return Header(tensors, metadata, starts, data_start)


def _entry(path: Path, name: str, entry: Any) -> tuple[TensorInfo, int, int]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _damaged(path, f"does not say dtype, shape and offsets of {name!r}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in DTYPE_BYTES:
        raise WeightsError(f"{path} stores {name!r} as {dtype!r}", expected=f"one of {', '.join(DTYPE_BYTES)}")
    if not (_whole_numbers(shape) and _whole_numbers(offsets) and len(offsets) == 2 and len(shape) <= 16):
        raise _damaged(path, f"has a shape or offsets of {name!r} that are not whole numbers")
    expected = math.prod(shape) * DTYPE_BYTES[dtype]
    if offsets[1] - offsets[0] != expected:
        raise _damaged(path, f"gives {name!r} {offsets[1] - offsets[0]:,} bytes where its shape needs {expected:,}")
    return TensorInfo(dtype, tuple(shape), expected), offsets[0], offsets[1]


def check_name(path: Path, name: str) -> None:
    """Raise WeightsError for a tensor name that is overlong, holds control characters or climbs out of a folder."""
    odd = len(name) > NAME_LIMIT or not name.isprintable() or ".." in name.replace("\\", "/").split("/")
    if odd or not name:
        raise WeightsError(f"{path} holds a tensor called {name[:60]!r}", expected="plain names", do="do not use it")


def _whole_numbers(values: Any) -> bool:
    return isinstance(values, Sequence) and all(
        isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in values
    )


def _damaged(path: Path, what: str) -> WeightsError:
    return WeightsError(f"{path} {what}", expected="a whole safetensors file", do="download or copy it again")
