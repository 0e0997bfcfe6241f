"""What a weights file, sharded set or folder holds, whichever kind it is. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunesmith.errors import WeightsError
from tunesmith.weights.header import Header, TensorInfo, read_header
from tunesmith.weights.pickles import SUFFIXES, read_pickle_header

_INDEX_LIMIT_BYTES = 32 << 20
_VARIANTS = (".fp16", ".bf16", ".fp32", ".ema", ".non_ema")


def list_tensors(path: Path) -> Header:
    """The header of a safetensors file, a sharded index, a folder of safetensors or a torch checkpoint.

    Metadata of several shards is joined. Raises WeightsError for anything else, and for damaged or hostile files.
    """
    path = Path(path)
    if path.suffix.lower() in SUFFIXES and not path.is_dir():
        return read_pickle_header(path)
    tensors: dict[str, TensorInfo] = {}
    metadata: dict[str, str] = {}
    for file, names in shards(path).items():
        header = read_header(file)
        tensors.update({name: header.tensors[name] for name in names})
        metadata.update(header.metadata)
    return Header(tensors, metadata)


def shards(path: Path) -> Mapping[Path, tuple[str, ...]]:
    """Safetensors files behind `path`, each with the tensor names that are read from it. Raises WeightsError."""
    if path.is_dir():
        indices = sorted(path.glob("*.safetensors.index.json"))
        if len(indices) == 1:
            return _indexed(indices[0])
        return _folder(path)
    if path.name.endswith(".index.json"):
        return _indexed(path)
    return {path: tuple(read_header(path).tensors)}


def _folder(path: Path) -> Mapping[Path, tuple[str, ...]]:
    files = sorted(path.glob("*.safetensors"))
    # model.fp16.safetensors beside model.safetensors is the same model again.
    plain = [file for file in files if not file.stem.endswith(_VARIANTS)]
    files = plain or files
    if not files:
        raise WeightsError(f"{path} holds no *.safetensors file", do="check the folder, or name the file itself")
    found = {file: tuple(read_header(file).tensors) for file in files}
    owner: dict[str, Path] = {}
    for file, names in found.items():
        for name in names:
            if name in owner:
                raise WeightsError(
                    f"{owner[name].name} and {file.name} in {path} both hold {name!r}", do="name the one file you mean"
                )
            owner[name] = file
    return found


def _indexed(index: Path) -> Mapping[Path, tuple[str, ...]]:
    names: dict[Path, list[str]] = {}
    for name, file in _weight_map(index).items():
        if not isinstance(file, str) or Path(file).name != file or "\\" in file or not file.endswith(".safetensors"):
            raise WeightsError(f"{index} points to {str(file)[:80]!r}", expected="a *.safetensors file beside it")
        names.setdefault(index.parent / file, []).append(name)
    for path, wanted in names.items():
        held = read_header(path).tensors
        missing = [name for name in wanted if name not in held]
        if missing:
            raise WeightsError(f"{path} lacks {missing[0]!r} ({len(missing)} of {len(wanted)})", do="download it again")
    return {path: tuple(wanted) for path, wanted in names.items()}


def _weight_map(index: Path) -> Mapping[str, Any]:
    try:
        if index.stat().st_size > _INDEX_LIMIT_BYTES:
            raise WeightsError(f"{index} is larger than an index is", expected="at most 32 MiB")
        value = json.loads(index.read_text("utf-8"))
    except OSError as error:
        raise WeightsError(f"{index} cannot be read: {error.strerror}", do="check the path") from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{index} is not JSON ({error})", do="download it again") from error
    found = value.get("weight_map") if isinstance(value, dict) else None
    if not isinstance(found, dict) or not found:
        raise WeightsError(f"{index} has no weight_map", expected="an index of sharded safetensors")
    return found
