"""Checkpoints from the catalog as files that other tools read; done only once they were read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.adapters.adapter import Adapter
from tunesmith.adapters.files import read_adapter, write_adapter
from tunesmith.catalog.card import Card
from tunesmith.catalog.shelf import Shelf, weights_path
from tunesmith.engines.protocol import Base, Engine
from tunesmith.errors import ExchangeError
from tunesmith.exchange.metadata import card_sidecar, training_metadata
from tunesmith.exchange.settling import check_target, settle, weights_target
from tunesmith.exchange.verify import Verification, verify_adapter, verify_base
from tunesmith.recipe.schema import BaseSection
from tunesmith.weights.atomic import reserve, write_json
from tunesmith.weights.hashes import HashCache
from tunesmith.weights.pickles import SUFFIXES as PICKLED

BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}


@dataclass(frozen=True)
class Exported:
    """A finished export: what to open, its layout and size, and what reading it back found."""

    path: Path
    layout: str
    size_bytes: int
    verification: Verification


def export_checkpoint(
    card: Card, shelf: Shelf, *, engine: Engine, base: Base, layout: str, path: Path, dtype: str
) -> Exported:
    """Write a checkpoint at `path` in one of the engine's layouts, and prove it by reading it back.

    An adapter takes an adapter layout (kohya, diffusers, peft), full weights a weight layout; `base` is the one the
    adapter was trained on. A kohya file gets `<stem>.json` beside it, from which web UIs fill their card.
    Raises ExchangeError; nothing half-written stays.
    """
    if card.kind == "weights":
        return _export_weights(weights_path(shelf.path(card)), engine, layout=layout, path=Path(path), dtype=dtype)
    adapter = read_adapter(shelf.path(card), engine.layouts, base)
    lines = training_metadata(card, base, hashes=HashCache(shelf.home / "cache" / "hashes.json"))
    exported = export_adapter(
        adapter, path, engine=engine, base=base, layout=layout, dtype=dtype, metadata=lines if layout == "kohya" else {}
    )
    if layout == "kohya":
        _write_sidecar(exported.path.with_suffix(".json"), card_sidecar(card, engine.layouts.metadata(layout, base)))
    return exported


def _write_sidecar(path: Path, content: Mapping[str, Any]) -> None:
    """Write the web UI's card, unless a file of that name is something else."""
    if path.exists():
        try:
            present = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError):
            return
        if not isinstance(present, dict) or "activation text" not in present:
            return
    write_json(path, content)


def export_adapter(
    adapter: Adapter,
    path: Path,
    *,
    engine: Engine,
    base: Base,
    layout: str,
    dtype: str,
    metadata: Mapping[str, str] | None = None,
) -> Exported:
    """Write an adapter at `path` and prove it by reading it back.

    A file gets the ending .safetensors where it lacks it. Raises ExchangeError, AdapterError, DiskFull; then nothing
    half-written stays.
    """
    _check_layout(engine, layout, dtype, engine.layouts.adapter_layouts, "an adapter")
    path = adapter_path(Path(path), layout)
    check_target(path, base)
    reserve(path.parent, adapter.parameters * BYTES[dtype])

    def write(draft: Path) -> Path:
        write_adapter(draft, adapter, engine.layouts, base, layout, dtype, metadata or {})
        return draft

    opened, proof = settle(path, write, lambda draft: verify_adapter(draft, engine, base=base, adapter=adapter))
    return Exported(opened, layout, size_of(opened), proof)


def adapter_path(path: Path, layout: str) -> Path:
    """Where an adapter lands: a file gets the ending .safetensors where it lacks it. Raises ExchangeError."""
    if layout == "peft" or path.suffix == ".safetensors":
        return path
    if path.suffix in PICKLED:
        raise ExchangeError(f"{path.name} is no name for a {layout} file", expected="a name ending in .safetensors")
    return path.with_name(f"{path.name}.safetensors")


def _export_weights(source: Path, engine: Engine, *, layout: str, path: Path, dtype: str) -> Exported:
    _check_layout(engine, layout, dtype, engine.layouts.weight_layouts, "full weights")
    trained = engine.open(BaseSection(path=str(source)))
    path = weights_target(path, layout)
    check_target(path, trained)
    reserve(path.parent, sum(part.parameters for part in trained.parts.values()) * BYTES[dtype])
    expected = {
        role: dict(engine.tensors(trained, role)) for role, part in trained.parts.items() if part.path is not None
    }
    opened, proof = settle(
        path,
        lambda draft: engine.write_base(trained, {}, draft, layout, dtype),
        lambda draft: verify_base(draft, engine, expected=expected, dtype=dtype),
    )
    return Exported(opened, layout, size_of(opened), proof)


def _check_layout(engine: Engine, layout: str, dtype: str, layouts: tuple[str, ...], what: str) -> None:
    if layout not in layouts or dtype not in BYTES:
        raise ExchangeError(
            f"{engine.facts.name} does not export {what} as {layout} in {dtype}",
            expected=f"{', '.join(layouts)} in {', '.join(BYTES)}",
        )


def size_of(path: Path) -> int:
    """Bytes of a file, or of everything in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
