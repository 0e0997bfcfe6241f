"""Everything that is in memory while a job trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from tunesmith.adapters.files import read_adapter
from tunesmith.data.cache import Cache
from tunesmith.engines.protocol import Model
from tunesmith.jobs.work.opening import Opened
from tunesmith.training.batches import Batches
from tunesmith.training.device import Precision, environment_record
from tunesmith.training.encode import CachedReader
from tunesmith.training.holdout import Holdout
from tunesmith.training.packed import pack_frozen_convolutions
from tunesmith.training.prepare import prepare
from tunesmith.training.state import TrainState


@dataclass(frozen=True)
class Live:
    """`holdout` is None where nothing is held out; `environment` is what a state records of where it was made;
    `fresh` says that no state was restored."""

    opened: Opened
    model: Model
    state: TrainState
    batches: Batches
    holdout: Holdout | None
    device: torch.device
    precision: Precision
    environment: Mapping[str, Any]
    fresh: bool = True

    @property
    def steps(self) -> int:
        """The run's length."""
        return self.opened.steps


def load_live(opened: Opened, cache: Cache, *, device: torch.device, precision: Precision) -> Live:
    """The model with what trains on it, at step 0."""
    engine, recipe, gathered = opened.engine, opened.settled, opened.gathered
    model = engine.load_model(opened.base, recipe, device, precision.dtype)
    init = None
    if opened.init_adapter is not None:
        init = read_adapter(opened.init_adapter, engine.layouts, opened.base)
    state = prepare(engine, model, recipe=recipe, init=init, scaler=precision.scaler)
    for module in (*model.components.values(), *model.frozen.values()):
        pack_frozen_convolutions(module)
    reader = CachedReader(engine, opened.base, recipe=recipe, cache=cache)
    holdout = None
    if gathered.held_out:
        holdout = Holdout(engine, model, recipe=recipe, items=gathered.held_out, reader=reader, precision=precision)
    return Live(
        opened=opened,
        model=model,
        state=state,
        batches=Batches(engine, gathered.training, recipe=recipe, reader=reader),
        holdout=holdout,
        device=device,
        precision=precision,
        environment=environment_record(device, precision),
    )
