"""LoRAs made elsewhere into the catalog."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tunesmith.adapters.adapter import Adapter, check_pair
from tunesmith.adapters.describe import describe_adapter
from tunesmith.adapters.files import read_adapter, write_adapter
from tunesmith.catalog.card import Card
from tunesmith.catalog.shelf import Shelf
from tunesmith.engines.protocol import Base, Engine
from tunesmith.errors import AdapterError, ExchangeError
from tunesmith.exchange.verify import verify_adapter
from tunesmith.recipe.checks import is_plain_name
from tunesmith.recipe.schema import BaseSection
from tunesmith.weights.atomic import explained

_DTYPES = {"F16": "fp16", "BF16": "bf16"}


def import_adapter(
    path: Path, engine: Engine, *, shelf: Shelf, base: Base | None = None, name: str | None = None
) -> Card:
    """Put a LoRA file or PEFT folder on the shelf, its numbers unchanged, and return its card.

    With `base` every layer is checked against it; without, names are read by the engine's first named architecture.
    The name defaults to the one in the file's header, then to the file's own. Raises AdapterError or WeightsError for
    a file that cannot be used; then nothing is on the shelf.
    """
    path = Path(path)
    if name is not None and not is_plain_name(name):
        raise ExchangeError(f"{name!r} cannot be a name", expected="a name that a file can have, up to 100 characters")
    known = base if base is not None else _nominal(engine)
    adapter = read_adapter(path, engine.layouts, known)
    if base is not None:
        check_fits(engine, base, adapter)
    facts = describe_adapter(path)
    dtypes = {_DTYPES.get(dtype, "fp32") for dtype in facts["dtypes"]}
    dtype = dtypes.pop() if len(dtypes) == 1 else "fp32"
    folder = shelf.folder / f".incoming-{uuid.uuid4().hex[:12]}"
    try:
        with explained(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
        header = {key: text for key, text in adapter.metadata.items() if key != "format"}
        write_adapter(folder, adapter, engine.layouts, known, "peft", dtype, header)
        verify_adapter(folder, engine, base=known, adapter=adapter)
        card = _card(path, engine, adapter, name)
        if base is not None:
            card = replace(card, base={"path": base.source})
        return shelf.put(card, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_fits(engine: Engine, base: Base, adapter: Adapter) -> None:
    """Raise AdapterError naming the first layer of `adapter` that `base` lacks or has in another size.

    Components that the base has no file for are left unchecked.
    """
    for component in adapter.components:
        layers = {name: pair for (owner, name), pair in adapter.layers.items() if owner == component}
        part = base.parts.get(component)
        if part is None or part.path is None:
            continue
        shapes = {name: tensor.shape for name, tensor in engine.tensors(base, component)}
        for name, pair in layers.items():
            if f"{name}.weight" not in shapes:
                raise AdapterError(
                    f"the base has no layer {name} in its {component}", expected="the base the LoRA was trained on"
                )
            check_pair(name, pair, shapes[f"{name}.weight"])


def _nominal(engine: Engine) -> Base:
    """A base of the engine's first named architecture, without files: enough to read names by."""
    if not engine.facts.architectures:
        raise ExchangeError(f"{engine.facts.name} has no named architecture", do="name the base of this LoRA")
    return engine.open(BaseSection(architecture=engine.facts.architectures[0]))


def _card(path: Path, engine: Engine, adapter: Adapter, name: str | None) -> Card:
    text = adapter.metadata
    # The header may say anything: what could be a path, or steer a terminal, is not taken for a name.
    stated = (name, text.get("ss_output_name"), text.get("modelspec.title"), path.stem)
    found = next((one for one in stated if one and is_plain_name(one)), "imported")
    trigger = text.get("modelspec.trigger_phrase", "")
    dora = any(pair.magnitude is not None for pair in adapter.layers.values())
    return Card(
        name=found,
        engine=engine.facts.name,
        method="dora" if dora else "lora",
        stage=engine.facts.stages[0].name,
        kind="adapter",
        origin="imported",
        recipe={"imported": {"file": path.name, "metadata": _plain(text)}},
        item_count=_count(text.get("ss_num_train_images", "")),
        step=_count(text.get("ss_steps", "")),
        concepts={found: trigger} if trigger else {},
        licences=(text["modelspec.license"],) if text.get("modelspec.license") else (),
        created_utc=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def _plain(text: Mapping[str, str]) -> dict[str, Any]:
    """Header metadata short enough for a card; thumbnails and long tag lists stay in the tensor file's header."""
    return {key: value for key, value in sorted(text.items()) if len(value) <= 1000}


def _count(text: str) -> int:
    try:
        return max(0, int(json.loads(text)))
    except (ValueError, TypeError):
        return 0
