"""A loaded base with checkpoints attached by name and weight, ready to generate."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tunesmith.adapters.adapter import Adapter, Pair
from tunesmith.adapters.attach import attach_adapter
from tunesmith.adapters.attached import Attached
from tunesmith.engines.protocol import Base, Engine, Layouts, Media, Model, Sampler, Target
from tunesmith.errors import AdapterError
from tunesmith.events import Progress

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Attachment:
    """An adapter to attach. `name` is what its weight is set by, and what the generated file remembers."""

    adapter: Adapter
    weight: float = 1.0
    name: str = "default"


@dataclass(frozen=True)
class Session:
    """Made by `open_session`. Weights change in place; `close` takes the adapters off, the base is as before."""

    engine: Engine
    sampler: Sampler
    attached: Mapping[str, Attached]
    weights: dict[str, float] = field(default_factory=dict)

    def generate(self, request: Any, should_stop: Callable[[], bool] = lambda: False) -> Iterator[Progress | Media]:
        """Progress, then the media, which also remembers the attached checkpoints and their weights.

        `request` is an instance of the engine's `facts.request`. Ends without media when told to stop.
        """
        for event in self.engine.sample(self.sampler, request, should_stop):
            if isinstance(event, Media) and self.attached:
                used = [{"name": name, "weight": weight} for name, weight in self.weights.items() if weight != 0]
                event = dataclasses.replace(event, parameters={**event.parameters, "checkpoints": used})
            yield event

    def set_weights(self, weights: Mapping[str, float]) -> None:
        """Change the named weights, leave the others; 0 gives the base's own output. AdapterError for other names."""
        for name in weights:
            if name not in self.attached:
                known = ", ".join(self.attached) or "none: nothing is attached"
                raise AdapterError(f"no checkpoint is attached as {name!r}", expected=f"one of {known}")
        for name, weight in weights.items():
            self.attached[name].scale(weight)
            self.weights[name] = weight

    @contextmanager
    def with_weights(self, weights: Mapping[str, float]) -> Iterator[Session]:
        """The same session with other weights, until the block ends: base beside adapter on one seed."""
        before = {name: self.weights[name] for name in weights if name in self.weights}
        self.set_weights(weights)
        try:
            yield self
        finally:
            self.set_weights(before)

    @contextmanager
    def without(self) -> Iterator[Session]:
        """The bare base, until the block ends."""
        with self.with_weights(dict.fromkeys(self.attached, 0.0)):
            yield self

    def close(self) -> None:
        """Take every adapter off, the last one first."""
        for attached in reversed(tuple(self.attached.values())):
            attached.detach()


def open_session(
    engine: Engine,
    base: Base,
    *,
    device: torch.device,
    dtype: torch.dtype,
    attachments: Sequence[Attachment] = (),
    model: Model | None = None,
) -> Session:
    """Load a base (or share the live modules of `model`) and attach the adapters in order.

    Raises AdapterError for two attachments of one name and for layers the base does not have; then nothing stays on.
    """
    names = [attachment.name for attachment in attachments]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise AdapterError(f"two checkpoints are called {twice!r}", do="give each a name of its own")
    sampler = engine.load_sampler(base, device, dtype, model)
    attached: dict[str, Attached] = {}
    session = Session(engine, sampler, attached)
    try:
        for index, attachment in enumerate(attachments):
            targets = adapter_targets(attachment.adapter, engine.layouts)
            own = f"session_{index}"  # people put dots and spaces in names, which module names cannot hold
            attached[attachment.name] = attach_adapter(
                sampler.components, targets, attachment.adapter, own, attachment.weight
            )
            session.weights[attachment.name] = attachment.weight
    except AdapterError:
        session.close()
        raise
    return session


def adapter_targets(adapter: Adapter, layouts: Layouts) -> tuple[Target, ...]:
    """Where the layers of an adapter go in the running modules."""
    return tuple(
        Target(component, canonical, layouts.live_name(component, canonical), _kind(pair))
        for (component, canonical), pair in adapter.layers.items()
    )


def _kind(pair: Pair) -> str:
    if pair.down.ndim == 2:
        return "linear"
    return "conv1x1" if set(pair.down.shape[2:]) == {1} else "conv"
