"""What an adapter file is, from its header alone. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunesmith.adapters.keys import PEFT_PREFIX, refuse_leftovers, split_key
from tunesmith.weights.header import Header
from tunesmith.weights.listing import list_tensors

_TENSORS = "adapter_model.safetensors"


def describe_adapter(path: Path) -> dict[str, Any]:
    """Layout, modules, tensors, ranks {rank: modules}, dtypes, parameters, size in bytes and metadata of an adapter.

    `path` is a file or a PEFT folder. Raises AdapterError where it is no LoRA, WeightsError where it is damaged.
    """
    path = Path(path)
    files = [path] if not path.is_dir() else sorted(path.glob(_TENSORS)) + sorted(path.glob(f"*/{_TENSORS}"))
    ranks: Counter[int] = Counter()
    dtypes: set[str] = set()
    metadata: dict[str, str] = {}
    tensors = parameters = size_bytes = 0
    layout = "peft"
    for file in files:
        header = list_tensors(file)
        stems = _downs(file, header)
        ranks.update(stems.values())
        dtypes.update(info.dtype for info in header.tensors.values())
        metadata.update(header.metadata)
        tensors += len(header.tensors)
        parameters += header.parameters
        size_bytes += header.size_bytes
        if not all(stem.startswith(PEFT_PREFIX) for stem in stems):
            layout = "diffusers" if any("." in stem for stem in stems) else "kohya"
    if not files:
        refuse_leftovers(path, ())
    return {
        "layout": layout,
        "modules": sum(ranks.values()),
        "tensors": tensors,
        "ranks": dict(sorted(ranks.items())),
        "dtypes": sorted(dtypes),
        "parameters": parameters,
        "size_bytes": size_bytes,
        "metadata": metadata,
    }


def _downs(path: Path, header: Header) -> Mapping[str, int]:
    """Stem -> rank; refuses keys of no LoRA."""
    split = {name: split_key(name) for name in header.tensors}
    leftover = [name for name, found in split.items() if found is None]
    if leftover or not split:
        refuse_leftovers(path, leftover)
    return {found[0]: header.tensors[name].shape[0] for name, found in split.items() if found and found[1] == "down"}
