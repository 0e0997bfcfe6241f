"""Encode once: every encoder opened in turn, what the cache lacks computed, the encoder freed."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch

from tunesmith.data.cache import Cache, cache_key
from tunesmith.data.item import Item, MediaFile
from tunesmith.engines.protocol import Base, EncoderSpec, Engine, Want
from tunesmith.errors import DataError, NonFinite
from tunesmith.events import Event, Phase, Progress
from tunesmith.recipe.schema import Recipe
from tunesmith.training.batches import name_of
from tunesmith.training.failures import explained_memory


def never() -> bool:
    """Nobody asks to stop."""
    return False


@dataclass(frozen=True)
class _Input:
    """One thing to encode, and an item it belongs to."""

    item: Item
    want: Want
    key: str

    @property
    def source(self) -> MediaFile | str:
        return self.item.media[self.want.role] if self.want.text is None else self.want.text


def encode_items(
    engine: Engine,
    base: Base,
    *,
    recipe: Recipe,
    items: Sequence[Item],
    cache: Cache,
    device: torch.device,
    should_stop: Callable[[], bool] = never,
) -> Iterator[Event]:
    """Fill the cache with everything `items` need; what it holds already is left alone.

    Yields a phase per encoder that has work and progress over all inputs. Ends early when told to stop; running it
    again goes on. Raises NonFinite where an encoder gives a NaN, naming the item; DiskFull from the cache.
    """
    specs = engine.encoders(base, recipe)
    inputs = {spec.name: _inputs(engine, recipe, spec, items) for spec in specs}
    missing = {name: [one for one in found.values() if not cache.has(one.key)] for name, found in inputs.items()}
    total = sum(len(found) for found in inputs.values())
    done = total - sum(len(left) for left in missing.values())
    yield Progress(done, total, "inputs")
    for spec in specs:
        left = missing[spec.name]
        if not left or should_stop():
            continue
        yield Phase("encode", f"{spec.name}: {len(left)} to encode, {len(inputs[spec.name]) - len(left)} kept")
        with explained_memory(recipe, device, f"loading encoder {spec.name}"):
            encoder = engine.open_encoder(base, recipe, spec.name, device)
        for one in left:
            if should_stop():
                return
            with explained_memory(recipe, device, f"encoding {name_of(one.item)}"):
                tensors = engine.encode(encoder, one.source, one.want.variant)
            _check(tensors, spec, one)
            cache.put(one.key, tensors)
            done += 1
            yield Progress(done, total, "inputs")
        del encoder
        _free(device)


@dataclass(frozen=True)
class CachedReader:
    """`reader(item)(label)`: the encoded tensors of one want, from the cache. Raises DataError where they are gone."""

    engine: Engine
    base: Base
    recipe: Recipe = field(kw_only=True)
    cache: Cache = field(kw_only=True)

    @cached_property
    def _keys(self) -> Mapping[str, str]:
        return {spec.name: spec.key for spec in self.engine.encoders(self.base, self.recipe)}

    def __call__(self, item: Item) -> Callable[[str], Mapping[str, torch.Tensor]]:
        """How to read what belongs to `item`."""
        wants = {want.label: want for want in self.engine.wants(item, self.recipe)}

        def encoded(label: str) -> Mapping[str, torch.Tensor]:
            if label not in wants:
                raise KeyError(f"{label!r} was not wanted for {name_of(item)}; wanted: {', '.join(wants)}")
            return self.cache.get(_key(item, wants[label], self._keys[wants[label].encoder]))

        return encoded


def _inputs(engine: Engine, recipe: Recipe, spec: EncoderSpec, items: Sequence[Item]) -> dict[str, _Input]:
    """Cache key -> input, each once, in the order of the items."""
    found: dict[str, _Input] = {}
    for item in items:
        for want in engine.wants(item, recipe):
            if want.encoder == spec.name:
                key = _key(item, want, spec.key)
                found.setdefault(key, _Input(item, want, key))
    return found


def _key(item: Item, want: Want, encoder_key: str) -> str:
    if want.text is not None:
        return cache_key(hashlib.sha256(want.text.encode("utf-8")).hexdigest(), encoder_key, want.variant)
    if want.role not in item.media:
        raise DataError(f"{name_of(item)} has no {want.role}", expected=f"a file for role {want.role}")
    return cache_key(item.media[want.role].sha256, encoder_key, want.variant)


def _check(tensors: Mapping[str, torch.Tensor], spec: EncoderSpec, one: _Input) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise NonFinite(
                f"encoder {spec.name} gave a NaN or Inf in {name} for {name_of(one.item)}",
                do="look at that file; if it is fine, set resources.precision=fp32",
            )


def _free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
