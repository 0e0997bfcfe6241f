"""One visit of one item: what is random about it, and how visits become a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from tunesmith.data.captions import shuffle_and_drop
from tunesmith.data.item import Item
from tunesmith.engines.protocol import Batch, Example
from tunesmith.engines.stable_audio.choices import knobs, text_is_live
from tunesmith.engines.stable_audio.open import TOKENIZER, open_base
from tunesmith.engines.stable_audio.tokenizer import open_tokenizer, token_ids
from tunesmith.errors import RecipeError
from tunesmith.numeric.rng import ItemRng
from tunesmith.recipe.schema import BaseSection, Recipe

Encoded = Callable[[str], Mapping[str, torch.Tensor]]

_CROP_TRIES = 8  # how often a silent crop is drawn again


def draw(item: Item, encoded: Encoded, recipe: Recipe, rng: ItemRng) -> Example:
    """An example.

    Denoiser: `latents` [channels, frames], `seconds` [2] (start, total), `keep` (0 where conditions are dropped), and
    `states` [tokens, width] or `input_ids` [tokens] with `own_tokens`. Autoencoder: `samples` [channels, samples].
    """
    flipped = knobs(recipe).polarity_flip and rng.uniform("polarity") < 0.5
    if recipe.method.stage == "autoencoder":
        tensors = {"samples": _samples(encoded("samples"), recipe, rng, flipped)}
    else:
        stored = encoded("audio.flip" if flipped else "audio")
        tensors = _latents(stored, recipe, rng) | _text(item, encoded, recipe, rng)
        dropped = rng.uniform("condition") < knobs(recipe).condition_dropout
        tensors["keep"] = torch.tensor(0.0 if dropped else 1.0)
    return Example(tensors, item.key, item.concept, item.weight)


def _latents(stored: Mapping[str, torch.Tensor], recipe: Recipe, rng: ItemRng) -> dict[str, torch.Tensor]:
    """A window of a sound's latents, with the seconds it starts at and the whole sound's length."""
    chosen = knobs(recipe)
    frames, frame_seconds, total = (float(value) for value in stored["facts"])
    window = int(frames)
    start = _start(stored["peaks"], window, recipe, rng)
    mean, std = (stored[name][:, start : start + window] for name in ("mean", "std"))
    latents = mean
    if chosen.latents == "redraw":
        latents = mean + std * torch.randn(mean.shape, generator=rng.generator("latents"))
    seconds = [start * frame_seconds, total]
    if chosen.whole_seconds:
        seconds = [float(math.floor(seconds[0] + 1e-9)), float(math.ceil(seconds[1] - 1e-9))]
    return {"latents": latents, "seconds": torch.tensor(seconds, dtype=torch.float32)}


def _start(peaks: torch.Tensor, window: int, recipe: Recipe, rng: ItemRng) -> int:
    """First unit of a crop; drawn again, a few times, where all of it is too quiet."""
    places = len(peaks) - window + 1
    if places <= 1 or knobs(recipe).crop == "start":
        return 0
    floor = 10.0 ** (knobs(recipe).quiet_dbfs / 20.0)
    start = 0
    for attempt in range(_CROP_TRIES):
        start = min(places - 1, int(rng.uniform(f"crop {attempt}") * places))
        if float(peaks[start : start + window].max()) >= floor:
            break
    return start


def _samples(stored: Mapping[str, torch.Tensor], recipe: Recipe, rng: ItemRng, flipped: bool) -> torch.Tensor:
    """A window of samples, int16 [channels, samples], zero-padded where the sound is shorter."""
    samples, seconds = stored["samples"], knobs(recipe).window_seconds
    if seconds is None:
        raise RecipeError("the autoencoder trains on crops", do="set engine.window_seconds, such as 0.4")
    window = max(1, round(seconds * int(stored["rate"])))
    start = _start(samples.abs().amax(0).float() / 32767.0, window, recipe, rng)
    piece = torch.nn.functional.pad(samples[:, start : start + window], (0, max(0, window - samples.shape[1])))
    return -piece if flipped else piece


def _text(item: Item, encoded: Encoded, recipe: Recipe, rng: ItemRng) -> dict[str, torch.Tensor]:
    caption = item.text.get("caption", "")
    drawn = shuffle_and_drop(caption, recipe.data, uniform=rng.uniform, permutation=rng.permutation)
    if not text_is_live(recipe):  # nothing but a whole caption's dropping can have changed it
        dropped = recipe.data.caption_dropout > 0 and drawn != caption
        stored = encoded("text.empty" if dropped else "text")
        states = stored["states"]
        padded = torch.zeros(int(stored["tokens"]), states.shape[1])
        padded[: len(states)] = states
        return {"states": padded, "own_tokens": torch.tensor(len(states))}
    ids, own = token_ids(_tokenizer(_Named.of(recipe.base)), drawn)
    return {"input_ids": torch.tensor(ids), "own_tokens": torch.tensor(own)}


@dataclass(frozen=True)
class _Named:
    """What decides which tokenizer a base has, as a cache key."""

    path: str | None
    parts: tuple[tuple[str, str], ...]
    architecture: str | None

    @classmethod
    def of(cls, section: BaseSection) -> _Named:
        return cls(section.path, tuple(sorted(section.parts.items())), section.architecture)


@lru_cache(maxsize=8)
def _tokenizer(named: _Named) -> Any:
    """The base's tokenizer; headers are read once, not at every visit."""
    base = open_base(BaseSection(path=named.path, parts=dict(named.parts), architecture=named.architecture))
    part = base.parts.get(TOKENIZER)
    return open_tokenizer(part.path if part else None, int(base.architecture[TOKENIZER]["max_tokens"]))


def collate(examples: Sequence[Example]) -> Batch:
    """Stack examples of one shape; every tensor gets a batch axis in front."""
    names = examples[0].tensors
    return Batch(
        tensors={name: torch.stack([example.tensors[name] for example in examples]) for name in names},
        keys=tuple(example.key for example in examples),
        concepts=tuple(example.concept for example in examples),
        weights=torch.tensor([example.weight for example in examples], dtype=torch.float32),
    )
