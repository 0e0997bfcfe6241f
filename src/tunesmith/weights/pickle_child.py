"""The one file that unpickles. Run as a script, alone in a child process; standard library only.

Reads a checkpoint's `data.pkl` from stdin and writes JSON to stdout: what tensors it names, or why it is refused.
The unpickler maps a fixed list of globals to inert stand-ins and imports nothing: torch and numpy are never loaded
here, and any other global is a refusal. Limits on memory, processor time, open files and file size come first.
"""

from __future__ import annotations

import io
import json
import pickle
import sys
from collections import OrderedDict
from typing import Any

MEMORY_LIMIT_BYTES = 1 << 30
TENSOR_LIMIT = 100_000

STORAGES = {
    "FloatStorage": "F32",
    "DoubleStorage": "F64",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}

# Globals of training logs that real checkpoints carry beside their tensors. They become placeholders that hold
# nothing, so naming them runs nothing; one that turns up inside the tensors is refused all the same.
PLACEHOLDERS = {
    ("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint"),
    ("lightning.pytorch.callbacks.model_checkpoint", "ModelCheckpoint"),
    ("pytorch_lightning.utilities.argparse", "AttributeDict"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy", "dtype"),
    ("numpy", "float64"),
    ("_codecs", "encode"),
}


class Refused(Exception):
    """The pickle names or builds something that a list of tensors does not need."""


class Placeholder:
    """Stands for a listed global and whatever is built from it; takes any arguments and state, keeps none."""

    __slots__ = ()

    def __init__(self, *_arguments: object) -> None:
        pass

    def __setstate__(self, _state: object) -> None:
        pass

    def __setitem__(self, _key: object, _value: object) -> None:
        pass


class TensorRecord:
    """What `_rebuild_tensor_v2` was asked for."""

    __slots__ = ("offset", "shape", "storage", "stride")

    def __init__(self, storage: object, offset: object, shape: object, stride: object) -> None:
        self.storage, self.offset, self.shape, self.stride = storage, offset, shape, stride


def _rebuild_tensor(storage: object, offset: object, shape: object, stride: object, *_rest: object) -> TensorRecord:
    return TensorRecord(storage, offset, shape, stride)


def _rebuild_parameter(data: object, *_rest: object) -> object:
    return data


ALLOWED: dict[tuple[str, str], object] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    **{("torch", name): ("storage type", dtype) for name, dtype in STORAGES.items()},
    **dict.fromkeys(PLACEHOLDERS, Placeholder),
}


_DAMAGE = (pickle.UnpicklingError, EOFError, ValueError, LookupError, TypeError, AttributeError, ImportError)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise Refused(f"it names the global {module}.{name}"[:200])
        return ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        if not (isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage"):
            raise Refused("it refers to something that is not a storage")
        _, kind, key, _, count = pid
        if not (isinstance(kind, tuple) and kind[0] == "storage type" and isinstance(key, str) and _natural(count)):
            raise Refused("it describes a storage in an unknown way")
        return ("storage", kind[1], key, count)


def listed(data: bytes) -> list[list[Any]]:
    """[name, dtype, shape, stride, storage key, offset in numbers, numbers in the storage] of every tensor in `data`.

    A `state_dict` wrapper is unwrapped; numbers and text beside the tensors are left out. Raises Refused.
    """
    try:
        value = _Unpickler(io.BytesIO(data)).load()
    except _DAMAGE as error:
        raise Refused(f"its pickle is damaged ({type(error).__name__}: {error})"[:200]) from error
    if isinstance(value, dict) and isinstance(value.get("state_dict"), dict):
        value = value["state_dict"]
    if not isinstance(value, dict):
        raise Refused("it holds no mapping of names to tensors")
    rows = []
    for name, entry in value.items():
        if isinstance(entry, TensorRecord) and type(name) is str:
            rows.append(_row(name, entry))
        elif not isinstance(entry, (int, float, str, bytes, type(None))):
            raise Refused(f"{str(name)[:80]!r} is a {type(entry).__name__}, not a tensor")
    if not rows:
        raise Refused("it holds no tensors at its top level or under state_dict")
    if len(rows) > TENSOR_LIMIT:
        raise Refused(f"it lists {len(rows):,} tensors, more than {TENSOR_LIMIT:,}")
    return rows


def _row(name: str, record: TensorRecord) -> list[Any]:
    storage: Any = record.storage
    shape: Any = record.shape
    stride: Any = record.stride
    sound = (
        isinstance(storage, tuple)
        and len(storage) == 4
        and storage[0] == "storage"
        and _naturals(shape)
        and _naturals(stride)
        and len(shape) == len(stride) <= 16
        and _natural(record.offset)
    )
    if not sound:
        raise Refused(f"the tensor {name[:80]!r} is described in an unknown way")
    _, dtype, key, count = storage
    return [name, dtype, list(shape), list(stride), key, record.offset, count]


def _natural(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _naturals(values: object) -> bool:
    return isinstance(values, tuple) and all(_natural(value) for value in values)


def _limit(cpu_seconds: int) -> None:
    try:
        import resource
    except ImportError:  # Windows: the restricted unpickler stands alone there
        return
    for kind, bound in (
        (resource.RLIMIT_AS, MEMORY_LIMIT_BYTES),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        bound = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        try:
            resource.setrlimit(kind, (bound, bound))
        except (ValueError, OSError):
            # macOS refuses to lower RLIMIT_AS; the other limits still hold.
            continue


def main() -> int:
    """Read stdin, write one JSON object to stdout: {"tensors": [...]} or {"refused": why}.

    The one argument is the processor time allowed, in seconds.
    """
    _limit(int(sys.argv[1]))
    try:
        answer: dict[str, Any] = {"tensors": listed(sys.stdin.buffer.read())}
    except Refused as refusal:
        answer = {"refused": str(refusal)}
    except (MemoryError, RecursionError) as error:
        answer = {"refused": f"it asks for too much ({type(error).__name__})"}
    sys.stdout.write(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
