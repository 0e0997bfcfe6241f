"""One visit of one item: what is random about it, and how visits become a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from tunesmith.data.captions import shuffle_and_drop
from tunesmith.data.item import Item
from tunesmith.engines.protocol import Batch, Example
from tunesmith.engines.stable_diffusion.choices import knobs, text_is_live
from tunesmith.engines.stable_diffusion.open import tokenizer_folder
from tunesmith.engines.stable_diffusion.tokenizer import chunked_ids, open_tokenizer
from tunesmith.numeric.rng import ItemRng, generator
from tunesmith.recipe.schema import Recipe

Encoded = Callable[[str], Mapping[str, torch.Tensor]]


def draw(item: Item, encoded: Encoded, recipe: Recipe, rng: ItemRng) -> Example:
    """An example. Denoiser: `latents` [4, h, w], `states` [tokens, width] or `input_ids` [chunks, 77], maybe `mask`.

    Stage autoencoder: `pixels` uint8 [3, height, width].
    """
    mirrored = knobs(recipe).flip and rng.uniform("flip") < 0.5
    if recipe.method.stage == "autoencoder":
        pixels = encoded("pixels")["pixels"]
        tensors = {"pixels": pixels.flip(-1) if mirrored else pixels}
    else:
        tensors = {"latents": _latents(item, encoded("image.flip" if mirrored else "image"), recipe, rng)}
        tensors |= _text(item, encoded, recipe, rng)
        if knobs(recipe).mask != "none":
            tensors["mask"] = _mask(item, encoded, recipe, mirrored, like=tensors["latents"])
    return Example(tensors, item.key, item.concept, item.weight)


def _latents(item: Item, stored: Mapping[str, torch.Tensor], recipe: Recipe, rng: ItemRng) -> torch.Tensor:
    mean, std = stored["mean"], stored["std"]
    how = knobs(recipe).latents
    if how == "mean":
        return mean
    if how == "frozen":  # one draw per picture for the whole run, as tools do that cache samples
        position = int(item.key[:12], 16) if _is_hex(item.key[:12]) else sum(item.key.encode())
        source = generator(recipe.length.seed, position, "frozen latents")
    else:
        source = rng.generator("latents")
    return mean + std * torch.randn(mean.shape, generator=source)


def _is_hex(text: str) -> bool:
    return bool(text) and all(character in "0123456789abcdef" for character in text)


def _text(item: Item, encoded: Encoded, recipe: Recipe, rng: ItemRng) -> dict[str, torch.Tensor]:
    caption = item.text.get("caption", "")
    drawn = shuffle_and_drop(caption, recipe.data, uniform=rng.uniform, permutation=rng.permutation)
    if not text_is_live(recipe):  # nothing but a whole caption's dropping can have changed it
        dropped = recipe.data.caption_dropout > 0 and drawn != caption
        return {"states": encoded("text.empty" if dropped else "text")["states"]}
    tokenizer = open_tokenizer(tokenizer_folder(recipe.base))
    return {"input_ids": torch.tensor(chunked_ids(tokenizer, drawn, knobs(recipe).tokens))}


def _mask(item: Item, encoded: Encoded, recipe: Recipe, mirrored: bool, like: torch.Tensor) -> torch.Tensor:
    """Weights [1, h, w] from the floor to 1; all ones where the item has no mask of its own."""
    chosen = knobs(recipe)
    if chosen.mask == "file" and "mask" not in item.media:
        return torch.ones(1, *like.shape[1:])
    mask = encoded("mask")["mask"]
    mask = mask.flip(-1) if mirrored else mask
    return chosen.mask_floor + (1.0 - chosen.mask_floor) * mask


def collate(examples: Sequence[Example]) -> Batch:
    """Stack examples of one shape; every tensor gets a batch axis in front."""
    names = examples[0].tensors
    return Batch(
        tensors={name: torch.stack([example.tensors[name] for example in examples]) for name in names},
        keys=tuple(example.key for example in examples),
        concepts=tuple(example.concept for example in examples),
        weights=torch.tensor([example.weight for example in examples], dtype=torch.float32),
    )
