"""LoRAs from elsewhere: their numbers unchanged on the shelf, or one clear refusal and nothing there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from small_adapters import pictures_adapter
from tunesmith.adapters.files import read_adapter, write_adapter
from tunesmith.catalog.shelf import Shelf
from tunesmith.engines.protocol import Base
from tunesmith.errors import AdapterError, WeightsError
from tunesmith.exchange.importing import import_adapter
from tunesmith.recipe.schema import BaseSection
from tunesmith_test_engines.pictures import engine, write_pictures_base

HEADER = {
    "ss_output_name": "old friend",
    "ss_steps": "800",
    "ss_num_train_images": "12",
    "modelspec.trigger_phrase": "ohwx",
    "modelspec.license": "CC-BY-4.0",
    "ss_tag_frequency": "x" * 5000,
}


@pytest.fixture
def base(tmp_path: Path) -> Base:
    """An opened base."""
    return engine.open(BaseSection(path=str(write_pictures_base(tmp_path / "base.safetensors"))))


@pytest.mark.parametrize("layout", ["kohya", "diffusers", "peft"])
@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
@pytest.mark.parametrize("with_base", [False, True])
def test_an_outside_lora_is_shelved_unchanged(
    tmp_path: Path, base: Base, layout: str, dtype: str, with_base: bool
) -> None:
    path = tmp_path / ("outside" if layout == "peft" else "outside.safetensors")
    write_adapter(path, pictures_adapter(base), engine.layouts, base, layout, dtype, HEADER)
    shelf = Shelf(tmp_path / "home")
    card = import_adapter(path, engine, shelf=shelf, base=base if with_base else None)
    assert (card.name, card.origin, card.kind, card.step, card.item_count) == (
        "old friend",
        "imported",
        "adapter",
        800,
        12,
    )
    assert card.concepts == {"old friend": "ohwx"}
    assert card.licences == ("CC-BY-4.0",)
    assert bool(card.base) == with_base
    given = read_adapter(path, engine.layouts, base)
    kept = read_adapter(shelf.path(card), engine.layouts, base)
    assert given.layers.keys() == kept.layers.keys()
    for layer, pair in given.layers.items():
        assert kept.layers[layer].alpha == pair.alpha
        assert all(torch.equal(a, b) for a, b in zip(pair.tensors, kept.layers[layer].tensors, strict=True))
    assert kept.metadata["ss_tag_frequency"] == HEADER["ss_tag_frequency"]
    assert "ss_tag_frequency" not in card.recipe["imported"]["metadata"]
    assert [entry.name for entry in shelf.folder.iterdir() if entry.is_dir()] == [card.id]


def test_the_name_can_be_given_or_comes_from_the_file(tmp_path: Path, base: Base) -> None:
    path, shelf = tmp_path / "cat v2.safetensors", Shelf(tmp_path / "home")
    write_adapter(path, pictures_adapter(base), engine.layouts, base, "diffusers", "fp16", {})
    assert import_adapter(path, engine, shelf=shelf).name == "cat v2"
    assert import_adapter(path, engine, shelf=shelf, name="Tom").name == "Tom"


def test_a_lora_for_another_base_is_refused_where_the_base_is_known(tmp_path: Path, base: Base) -> None:
    small = engine.open(BaseSection(path=str(write_pictures_base(tmp_path / "small.safetensors", "tinier"))))
    path, shelf = tmp_path / "a.safetensors", Shelf(tmp_path / "home")
    write_adapter(path, pictures_adapter(small), engine.layouts, small, "kohya", "fp16", {})
    with pytest.raises(AdapterError, match="another base"):
        import_adapter(path, engine, shelf=shelf, base=base)
    assert shelf.list() == ()


@pytest.mark.parametrize("content", ["loha", "html", "nan"])
def test_files_that_cannot_be_used_leave_the_shelf_empty(tmp_path: Path, base: Base, content: str) -> None:
    path, shelf = tmp_path / "a.safetensors", Shelf(tmp_path / "home")
    if content == "html":
        path.write_text("<!DOCTYPE html><html>sign in</html>")
    elif content == "loha":
        save_file({"lora_unet_conv_in.hada_w1_a": torch.ones(2, 2)}, path)
    else:
        stem = "lora_unet_block_attention_to_q"
        nan = torch.full((2, 16), float("nan"))
        save_file({f"{stem}.lora_down.weight": nan, f"{stem}.lora_up.weight": torch.ones(16, 2)}, path)
    with pytest.raises((AdapterError, WeightsError)):
        import_adapter(path, engine, shelf=shelf, base=base)
    assert shelf.list() == ()
    assert not shelf.folder.exists() or list(shelf.folder.iterdir()) == []
