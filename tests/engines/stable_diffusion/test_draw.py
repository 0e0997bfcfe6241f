"""One visit: what is random, and that it is random as the recipe says."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from tunesmith.data.item import Item, MediaFile
from tunesmith.engines.stable_diffusion import engine
from tunesmith.engines.stable_diffusion.facts import StableDiffusionKnobs
from tunesmith.engines.stable_diffusion.tokenizer import chunked_ids, open_tokenizer
from tunesmith.numeric.rng import ItemRng
from tunesmith.recipe.schema import BaseSection, DataSection, LengthSection, MethodSection, Recipe

MEAN, STD = torch.arange(64.0).reshape(4, 4, 4), torch.full((4, 4, 4), 0.5)
STORED: Mapping[str, Mapping[str, torch.Tensor]] = {
    "image": {"mean": MEAN, "std": STD},
    "image.flip": {"mean": -MEAN, "std": STD},
    "text": {"states": torch.ones(77, 8)},
    "text.empty": {"states": torch.zeros(77, 8)},
    "mask": {"mask": torch.tensor([[[0.0, 0.0, 1.0, 1.0]] * 4])},
    "pixels": {"pixels": torch.arange(48, dtype=torch.uint8).reshape(3, 4, 4)},
}
IMAGE = MediaFile(None, "s", {"width": 8, "height": 8, "has_alpha": False})  # type: ignore[arg-type]
ITEM = Item("ab12" * 16, {"image": IMAGE}, {"caption": "one, two, three, four"}, "g", concept="cat", weight=0.5)


def _recipe(data: DataSection | None = None, method: MethodSection | None = None, **knobs: Any) -> Recipe:
    return Recipe(
        "stable_diffusion",
        StableDiffusionKnobs(**knobs),
        data=data or DataSection(),
        base=BaseSection(architecture="tiny32"),
        method=method or MethodSection(),
    )


def _draw(recipe: Recipe, position: int = 0, item: Item = ITEM) -> Mapping[str, Any]:
    return engine.draw(item, STORED.__getitem__, recipe, ItemRng(recipe.length.seed, position)).tensors


def test_latents_are_redrawn_each_visit() -> None:
    draws = torch.stack([_draw(_recipe(), position)["latents"] for position in range(400)])
    torch.testing.assert_close(draws.mean(0), MEAN, rtol=0, atol=0.15)  # 0.5 / sqrt(400) is 0.025
    torch.testing.assert_close(draws.std(0), STD, rtol=0, atol=0.1)


def test_frozen_latents_stay_per_item_and_differ_by_seed() -> None:
    frozen = _recipe(latents="frozen")
    assert torch.equal(_draw(frozen, 0)["latents"], _draw(frozen, 9)["latents"])
    other = dataclasses.replace(frozen, length=LengthSection(seed=1))
    assert not torch.equal(_draw(frozen)["latents"], _draw(other)["latents"])
    elsewhere = dataclasses.replace(ITEM, key="cd34" * 16)
    assert not torch.equal(_draw(frozen)["latents"], _draw(frozen, item=elsewhere)["latents"])


def test_mean_latents_are_the_mean() -> None:
    assert torch.equal(_draw(_recipe(latents="mean"))["latents"], MEAN)


def test_flip_takes_the_mirrored_latents_half_the_time() -> None:
    recipe = _recipe(latents="mean", flip=True)
    flipped = [torch.equal(_draw(recipe, position)["latents"], -MEAN) for position in range(300)]
    assert 110 < sum(flipped) < 190
    assert not any(torch.equal(_draw(_recipe(latents="mean"), at)["latents"], -MEAN) for at in range(20))


def test_mask_is_mirrored_with_its_picture_and_has_a_floor() -> None:
    recipe = _recipe(latents="mean", flip=True, mask="alpha", mask_floor=0.25)
    for position in range(20):
        drawn = _draw(recipe, position)
        row = [1.0, 1.0, 0.25, 0.25] if torch.equal(drawn["latents"], -MEAN) else [0.25, 0.25, 1.0, 1.0]
        assert drawn["mask"][0, 0].tolist() == row


def test_an_item_without_a_mask_file_counts_whole() -> None:
    assert torch.equal(_draw(_recipe(mask="file"))["mask"], torch.ones(1, 4, 4))


def test_caption_dropout_takes_the_empty_states() -> None:
    recipe = _recipe(DataSection(caption_dropout=0.3))
    dropped = sum(float(_draw(recipe, position)["states"].max()) == 0 for position in range(300))
    assert 60 < dropped < 120


def test_live_text_is_token_ids() -> None:
    recipe = _recipe(method=MethodSection(components=("denoiser", "text_encoder")), tokens=150)
    drawn = _draw(recipe)
    assert drawn["input_ids"].tolist() == chunked_ids(open_tokenizer(), "one, two, three, four", 150)
    assert "states" not in drawn


def test_tags_are_shuffled_and_kept() -> None:
    recipe = _recipe(DataSection(shuffle_tags=True, keep_tags=1))
    seen = {tuple(_draw(recipe, position)["input_ids"].flatten().tolist()) for position in range(60)}
    allowed = [
        f"one, {a}, {b}, {c}"
        for a in ("two", "three", "four")
        for b in ("two", "three", "four")
        for c in ("two", "three", "four")
        if len({a, b, c}) == 3
    ]
    expected = {tuple(chunked_ids(open_tokenizer(), text, 75)[0]) for text in allowed}
    assert seen == expected


def test_a_rate_of_zero_leaves_the_text_cached() -> None:
    recipe = _recipe(method=MethodSection(components=("denoiser", "text_encoder")))
    recipe = dataclasses.replace(recipe, optimiser=dataclasses.replace(recipe.optimiser, rates={"text_encoder": 0.0}))
    assert "states" in _draw(recipe)


def test_pixels_are_mirrored_too() -> None:
    recipe = _recipe(method=MethodSection(name="full", stage="autoencoder"), flip=True)
    pixels = STORED["pixels"]["pixels"]
    seen = [_draw(recipe, position)["pixels"] for position in range(40)]
    assert any(torch.equal(tensor, pixels) for tensor in seen)
    assert any(torch.equal(tensor, pixels.flip(-1)) for tensor in seen)
    assert all(torch.equal(tensor, pixels) or torch.equal(tensor, pixels.flip(-1)) for tensor in seen)


@pytest.mark.parametrize("count", [1, 3])
def test_collate_stacks(count: int) -> None:
    recipe = _recipe()
    examples = [engine.draw(ITEM, STORED.__getitem__, recipe, ItemRng(0, at)) for at in range(count)]
    batch = engine.collate(examples)
    assert batch.tensors["latents"].shape == (count, 4, 4, 4)
    assert batch.weights.tolist() == [0.5] * count
    assert batch.concepts == ("cat",) * count
