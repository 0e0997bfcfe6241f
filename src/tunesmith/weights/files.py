"""Tensors one by one from every kind of weights file, and safetensors files written without a second copy in memory."""

from __future__ import annotations

import ctypes
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch

from tunesmith.errors import WeightsError
from tunesmith.weights.atomic import explained, writing
from tunesmith.weights.hashes import header_bytes
from tunesmith.weights.header import DTYPE_BYTES, TensorInfo, read_header
from tunesmith.weights.listing import shards
from tunesmith.weights.pickles import SUFFIXES, StoredTensor, locate

TORCH_DTYPES: Mapping[str, torch.dtype] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F32": torch.float32,
    "C64": torch.complex64,
    "F64": torch.float64,
    "I64": torch.int64,
    "U64": torch.uint64,
}
_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}
_RANK = {name: index for index, name in enumerate(DTYPE_BYTES)}
_COPY_BYTES = 1 << 22


@dataclass(frozen=True)
class TensorFile:
    """An open weights file or set of files. `read` gives one tensor on the CPU, as stored, in memory of its own."""

    path: Path
    infos: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    _read: Callable[[str], torch.Tensor]

    @property
    def names(self) -> tuple[str, ...]:
        """Every tensor's name, in the file's order."""
        return tuple(self.infos)

    def info(self, name: str) -> TensorInfo:
        """Dtype, shape and size of one tensor. Raises WeightsError where there is none of that name."""
        if name not in self.infos:
            raise WeightsError(f"{self.path} holds no tensor called {name!r}", expected=f"one of {len(self.infos)}")
        return self.infos[name]

    def read(self, name: str) -> torch.Tensor:
        """One tensor, in the file's dtype."""
        self.info(name)
        return self._read(name)


@contextmanager
def open_tensors(path: Path) -> Iterator[TensorFile]:
    """Open a safetensors file, a sharded `*.safetensors.index.json`, a folder of safetensors, or a torch checkpoint.

    Raises WeightsError before the first tensor is read where any header is damaged, foreign or hostile.
    """
    path = Path(path)
    if path.suffix.lower() in SUFFIXES and not path.is_dir():
        yield _checkpoint(path)
        return
    metadata: dict[str, str] = {}
    places: dict[str, tuple[Path, StoredTensor]] = {}
    for file, names in shards(path).items():
        header = read_header(file)
        for name in names:
            info = header.tensors[name]
            places[name] = file, StoredTensor(info, header.starts[name], info.count, _contiguous(info.shape))
        metadata.update(header.metadata)
    infos = {name: place.info for name, (_, place) in places.items()}
    # Read, not mapped: the touched pages of a mapped file count as this process's memory until it is closed, which
    # doubles the peak of loading a base.
    yield TensorFile(path, infos, metadata, lambda name: _read_stored(*places[name]))


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a tensor without gaps."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _checkpoint(path: Path) -> TensorFile:
    places = locate(path)
    infos = {name: place.info for name, place in places.items()}
    return TensorFile(path, infos, {}, lambda name: _read_stored(path, places[name]))


def _read_stored(path: Path, place: StoredTensor) -> torch.Tensor:
    dtype = TORCH_DTYPES[place.info.dtype]
    if place.info.count == 0:
        return torch.empty(place.info.shape, dtype=dtype)
    # torch's own memory is aligned; a bytearray's is not, and kernels round differently on it.
    flat = torch.empty(place.span, dtype=dtype)
    buffer = flat.view(torch.uint8).numpy()
    with path.open("rb") as handle:
        handle.seek(place.start)
        if handle.readinto(buffer.data) != buffer.nbytes:
            raise WeightsError(f"{path} is cut short", do="download or copy it again")
    return flat.as_strided(place.info.shape, place.stride)


def tensor_info(tensor: torch.Tensor) -> TensorInfo:
    """How a tensor would be described in a file."""
    if tensor.dtype not in _NAMES:
        raise WeightsError(f"a tensor of {tensor.dtype} cannot be stored", expected=f"one of {', '.join(TORCH_DTYPES)}")
    return TensorInfo(_NAMES[tensor.dtype], tuple(tensor.shape), tensor.numel() * tensor.element_size())


def write_safetensors(
    path: Path,
    tensors: Mapping[str, torch.Tensor] | Iterable[tuple[str, torch.Tensor]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a safetensors file aside, fsync, rename. Equal input gives equal bytes; metadata is sorted.

    From pairs (name, tensor), such as a generator, one tensor is in memory at a time; they are spooled to a temporary
    file in the same folder first, since the header comes before the tensors and needs all their sizes.
    Raises DiskFull, leaving the old file as it was.
    """
    path = Path(path)
    if isinstance(tensors, Mapping):
        found = {name: tensor_info(tensor) for name, tensor in tensors.items()}
        with writing(path) as out:
            for name in _write_header(out, found, metadata or {}):
                _write_tensor(out, tensors[name])
        return
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        spool_file = tempfile.TemporaryFile(dir=path.parent, prefix=".spool-")  # noqa: SIM115 - closed by the block below
    with spool_file as spool, writing(path) as out:
        found, starts, position = {}, {}, 0
        for name, tensor in tensors:
            if name in found:
                raise WeightsError(f"the tensor {name!r} would be written twice to {path}")
            found[name], starts[name] = tensor_info(tensor), position
            position += found[name].size_bytes
            _write_tensor(spool, tensor)
        for name in _write_header(out, found, metadata or {}):
            spool.seek(starts[name])
            _copy(spool, out, found[name].size_bytes)


def edit_metadata(path: Path, metadata: Mapping[str, str], *, final: Path | None = None) -> None:
    """Replace a safetensors file's metadata; the tensors' bytes, and so `tensor_hash`, stay as they are."""
    header = read_header(path)
    with Path(path).open("rb") as source, writing(final or Path(path)) as out:
        for name in _write_header(out, header.tensors, metadata):
            source.seek(header.starts[name])
            _copy(source, out, header.tensors[name].size_bytes)


def _write_header(out: BinaryIO, found: Mapping[str, TensorInfo], metadata: Mapping[str, str]) -> list[str]:
    """Write the header and return the order of the tensors: widest dtype first, then by name, as the library does."""
    order = sorted(found, key=lambda name: (-_RANK[found[name].dtype], name))
    entries: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    position = 0
    for name in order:
        info = found[name]
        end = position + info.size_bytes
        entries[name] = {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": [position, end]}
        position = end
    out.write(header_bytes(entries))
    return order


def _write_tensor(out: BinaryIO, tensor: torch.Tensor) -> None:
    flat = tensor.detach().cpu().contiguous()
    size = flat.numel() * flat.element_size()
    if size:
        # The memory itself, without the copy that bytes() would make; numpy has no bf16 or fp8.
        out.write(memoryview((ctypes.c_char * size).from_address(flat.data_ptr())).cast("B"))


def _copy(source: BinaryIO, out: BinaryIO, size: int) -> None:
    while size > 0:
        chunk = source.read(min(size, _COPY_BYTES))
        if not chunk:
            raise WeightsError("a weights file became shorter while it was being copied")
        out.write(chunk)
        size -= len(chunk)
