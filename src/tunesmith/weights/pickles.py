"""Headers of torch checkpoints (`.ckpt`, `.pt`, `.pth`, `.bin`), from their zip directory and a child process.

Only the zip format is read (torch.save since 1.6). Its pickle is parsed by `pickle_child.py` in a process of its own;
this process sees plain JSON and checks it against the sizes in the zip directory. No torch.
"""

from __future__ import annotations

import json
import math
import os
import struct
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tunesmith.errors import WeightsError
from tunesmith.weights.header import DTYPE_BYTES, Header, TensorInfo, check_name, foreign_kind

SUFFIXES = frozenset({".ckpt", ".pt", ".pth", ".bin"})
PICKLE_LIMIT_BYTES = 64 << 20
MEMBER_LIMIT = 200_000
CPU_LIMIT_SECONDS = 10
TIMEOUT_SECONDS = 60.0
# What the zipfile module raises on damaged archives, beside its own error.
_DAMAGE = (
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    OverflowError,
    struct.error,
)
CHILD = Path(__file__).with_name("pickle_child.py")


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor's numbers lie: from byte `start` of the checkpoint file, `span` numbers long, strided."""

    info: TensorInfo
    start: int
    span: int
    stride: tuple[int, ...]


def read_pickle_header(path: Path) -> Header:
    """Names, dtypes and shapes of a zip checkpoint. Raises WeightsError for hostile, damaged and older files."""
    return Header({name: stored.info for name, stored in locate(path).items()})


def locate(path: Path) -> Mapping[str, StoredTensor]:
    """Every tensor of a zip checkpoint by name, with the place of its bytes. Raises WeightsError."""
    path = Path(path)
    try:
        with path.open("rb") as handle:
            start = handle.read(512)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}", do="check the path") from error
    if not start.startswith(b"PK\x03\x04"):
        raise _not_zip(path, start)
    try:
        with zipfile.ZipFile(path) as archive:
            members = _directory(path, archive)
            name = _pickle_name(path, members)
            data = archive.read(name)
            order = members.get(name.removesuffix("data.pkl") + "byteorder")
            if order is not None and (order.file_size > 16 or archive.read(order) != b"little"):
                raise WeightsError(f"{path} stores its numbers big-endian", expected="little-endian")
    except _DAMAGE as error:
        raise WeightsError(f"{path} is a damaged zip archive ({error})", do="download or copy it again") from error
    prefix = name.removesuffix("data.pkl") + "data/"
    rows = _parse(path, data)
    with path.open("rb") as handle:
        starts = {
            key: _data_start(path, handle, members[key]) for key in {prefix + row[4] for row in rows} & set(members)
        }
    return {row[0]: _stored(path, row, members.get(prefix + row[4]), starts.get(prefix + row[4], 0)) for row in rows}


def _not_zip(path: Path, start: bytes) -> WeightsError:
    if not start:
        return WeightsError(f"{path} is empty", do="download or copy it again")
    known = foreign_kind(start)
    if start[:1] == b"\x80" or start[257:262] == b"ustar":
        return WeightsError(
            f"{path} is a checkpoint in an older format (raw pickle or tar), which can run code when opened",
            expected="a zip checkpoint, as torch.save writes since 1.6, or safetensors",
            do="prefer the safetensors version of this model; otherwise convert it where it came from",
        )
    if known is not None:
        return WeightsError(f"{path} is {known[0]}, not a torch checkpoint", do=known[1])
    if start[8:9] == b"{":
        return WeightsError(f"{path} looks like a safetensors file", do="name it *.safetensors")
    return WeightsError(f"{path} is no torch checkpoint", expected="a zip archive", do="download or copy it again")


def _directory(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The zip directory, checked before anything is read: nothing packed, nothing larger than the file itself."""
    size = path.stat().st_size
    infos = archive.infolist()
    members = {info.filename: info for info in infos}
    odd = next((info for info in infos if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1), None)
    if odd is not None:
        raise WeightsError(
            f"{path} packs {odd.filename[:80]!r} ({odd.compress_size:,} bytes that unpack to {odd.file_size:,})",
            expected="a checkpoint as torch.save writes it, nothing compressed or encrypted",
            do="do not use it unless you trust where it came from; save it again with torch.save there",
        )
    if len(members) != len(infos) or len(infos) > MEMBER_LIMIT:
        raise WeightsError(f"{path} has {len(infos):,} members, or two of one name", expected="a torch checkpoint")
    if sum(info.file_size for info in infos) > size or any(info.file_size != info.compress_size for info in infos):
        raise WeightsError(f"{path} claims to hold more bytes than it has", expected="a whole torch checkpoint")
    return members


def _pickle_name(path: Path, members: Mapping[str, zipfile.ZipInfo]) -> str:
    names = [name for name in members if name == "data.pkl" or (name.endswith("/data.pkl") and name.count("/") == 1)]
    if len(names) != 1:
        raise WeightsError(f"{path} is a zip archive without one data.pkl", expected="a torch checkpoint")
    if members[names[0]].file_size > PICKLE_LIMIT_BYTES:
        raise WeightsError(f"{path} has a pickle of {members[names[0]].file_size:,} bytes", expected="at most 64 MiB")
    return names[0]


def _parse(path: Path, data: bytes) -> list[list[Any]]:
    try:
        # An environment of its own: nothing from ours can reach the child.
        environment = {"SYSTEMROOT": os.environ["SYSTEMROOT"]} if "SYSTEMROOT" in os.environ else {}
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(CHILD), str(CPU_LIMIT_SECONDS)],
            input=data,
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
            env=environment,
            check=False,
        )
        answer = json.loads(done.stdout) if done.returncode == 0 else {}
    except subprocess.TimeoutExpired:
        answer = {"refused": f"reading it took more than {TIMEOUT_SECONDS:g} s"}
    except ValueError:
        answer = {}
    if "tensors" not in answer:
        why = answer.get("refused", "the process that read it broke down or hit its limits")
        raise WeightsError(
            f"{path} is not opened: {why}",
            expected="a checkpoint that holds tensors and nothing that runs",
            do="use the safetensors version of this model",
        )
    tensors: list[list[Any]] = answer["tensors"]
    return tensors


def _stored(path: Path, row: list[Any], member: zipfile.ZipInfo | None, start: int) -> StoredTensor:
    name, dtype, shape, stride, key, offset, count = row
    check_name(path, name)
    if member is None:
        raise WeightsError(f"{path} lacks the storage {key[:40]!r} of {name!r}", do="download or copy it again")
    item = DTYPE_BYTES[dtype]
    numbers = math.prod(shape)
    span = 0 if numbers == 0 else 1 + sum((length - 1) * step for length, step in zip(shape, stride, strict=True))
    room = member.file_size // item
    if count > room or offset + max(span, numbers) > room:
        raise WeightsError(
            f"{path} describes {name!r} as {numbers:,} numbers where its storage holds {room:,}",
            expected="every tensor to have its own bytes",
            do="do not use this file",
        )
    return StoredTensor(TensorInfo(dtype, tuple(shape), numbers * item), start + offset * item, span, tuple(stride))


def _data_start(path: Path, handle: BinaryIO, member: zipfile.ZipInfo) -> int:
    """First byte of a stored member: its local header has a name and extra field of its own lengths."""
    handle.seek(member.header_offset)
    local = handle.read(30)
    if len(local) != 30 or local[:4] != b"PK\x03\x04":
        raise WeightsError(f"{path} has a damaged member {member.filename[:80]!r}", do="download or copy it again")
    name_length, extra_length = struct.unpack("<HH", local[26:30])
    start: int = member.header_offset + 30 + name_length + extra_length
    if start + member.file_size > path.stat().st_size:
        raise WeightsError(f"{path} is cut short", do="download or copy it again")
    return start
