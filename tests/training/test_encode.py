"""Encode once: resumable, stops when told, never again what is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from training_run import items_of, recipe_of
from tunesmith.data.cache import Cache
from tunesmith.data.item import Item
from tunesmith.engines.index import engine_named
from tunesmith.errors import DataError, DeviceError, NonFinite
from tunesmith.events import Event, Phase, Progress
from tunesmith.training.components import settled
from tunesmith.training.encode import CachedReader, encode_items

CPU = torch.device("cpu")


class Counting:
    """The engine, noting what it opens and encodes; `change` may spoil what comes out."""

    def __init__(self, change: Callable[[dict[str, Any]], Any] = dict) -> None:
        self._engine, self._change = engine_named("test_pictures"), change
        self.opened: list[str] = []
        self.encoded: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def open_encoder(self, base: Any, recipe: Any, name: str, device: Any) -> Any:
        self.opened.append(name)
        return self._engine.open_encoder(base, recipe, name, device)

    def encode(self, encoder: Any, source: Any, variant: str) -> Any:
        self.encoded.append(encoder.spec.name)
        return self._change(dict(self._engine.encode(encoder, source, variant)))


@pytest.fixture
def setting(world: Path, tmp_path: Path) -> Callable[..., tuple[Counting, list[Event]]]:
    recipe = settled(engine_named("test_pictures").facts, recipe_of(world))
    cache = Cache(tmp_path / "cache", 1 << 30)

    def go(items: Any = None, counting: Counting | None = None, **arguments: Any) -> tuple[Counting, list[Event]]:
        counting = counting or Counting()
        base = counting.open(recipe.base)
        chosen = items_of(world, "test_pictures") if items is None else items
        found = list(
            encode_items(counting, base, recipe=recipe, items=chosen, cache=cache, device=CPU, **arguments)  # type: ignore[arg-type]
        )
        return counting, found

    return go


def test_each_encoder_opens_once_and_everything_is_encoded_once(setting: Any) -> None:
    counting, events = setting()
    assert counting.opened == ["text", "image", "control"]
    assert [counting.encoded.count(name) for name in counting.opened] == [5, 5, 3]
    assert next(event.detail for event in events if isinstance(event, Phase)) == "text: 5 to encode, 0 kept"
    progress = [event for event in events if isinstance(event, Progress)]
    assert [event.done for event in progress] == list(range(14))
    assert {event.total for event in progress} == {13}
    counting, events = setting()
    assert counting.opened == []
    assert events == [Progress(13, 13, "inputs")]


def test_a_new_caption_never_encodes_its_picture_again(setting: Any, world: Path) -> None:
    setting()
    items = list(items_of(world, "test_pictures"))
    items[1] = replace(items[1], text={"caption": "something else"})
    counting, _ = setting(items)
    assert counting.encoded == ["text"]


def test_equal_inputs_are_encoded_once(setting: Any, world: Path) -> None:
    items = items_of(world, "test_pictures")
    counting, _ = setting([items[0], replace(items[0], key="other")])
    assert sorted(counting.encoded) == ["control", "image", "text"]


def test_it_stops_when_told_and_goes_on_later(setting: Any) -> None:
    answers = iter([False] * 8 + [True] * 9)
    first, _ = setting(should_stop=lambda: next(answers))
    done = len(first.encoded)
    assert 0 < done < 13
    second, events = setting()
    assert events[0] == Progress(done, 13, "inputs")
    assert done + len(second.encoded) == 13


def test_a_nan_names_the_file_and_is_not_kept(setting: Any) -> None:
    def spoil(tensors: dict[str, Any]) -> dict[str, Any]:
        return {name: value / 0 if name == "mean" else value for name, value in tensors.items()}

    with pytest.raises(NonFinite, match=r"encoder image gave a NaN or Inf in mean for 000\.png"):
        setting(counting=Counting(spoil))
    counting, _ = setting()
    assert counting.encoded.count("image") == 5


def test_running_out_of_memory_names_what_was_being_encoded(setting: Any) -> None:
    def burst(tensors: dict[str, Any]) -> dict[str, Any]:
        raise MemoryError

    with pytest.raises(DeviceError, match=r"ran out of memory encoding 000\.png; what was saved is kept"):
        setting(counting=Counting(burst))


def test_the_reader_finds_by_label(world: Path, tmp_path: Path) -> None:
    engine = engine_named("test_pictures")
    recipe = settled(engine.facts, recipe_of(world))
    base, items = engine.open(recipe.base), items_of(world, "test_pictures")
    cache = Cache(tmp_path / "cache", 1 << 30)
    reader = CachedReader(engine, base, recipe=recipe, cache=cache)
    with pytest.raises(DataError, match="is gone"):
        reader(items[0])("image")
    list(encode_items(engine, base, recipe=recipe, items=items, cache=cache, device=CPU))
    encoder = engine.open_encoder(base, recipe, "image", CPU)
    shape = engine.shape(items[0], recipe)
    expected = engine.encode(encoder, items[0].media["image"], shape)
    found = reader(items[0])("image")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    with pytest.raises(KeyError, match="'mask' was not wanted"):
        reader(items[0])("mask")


def test_a_missing_file_of_an_item_is_named(setting: Any, world: Path) -> None:
    broken = items_of(world, "test_pictures")[0]

    class Wanting(Counting):
        def wants(self, item: Item, recipe: Any) -> Any:
            return [replace(want, role="mask") for want in self._engine.wants(item, recipe) if want.role == "image"]

    with pytest.raises(DataError, match=r"000\.png has no mask"):
        setting([broken], Wanting())
