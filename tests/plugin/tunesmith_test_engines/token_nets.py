"""The torch side of `test_tokens`."""

from __future__ import annotations

import math
import wave
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tunesmith.engines.protocol import Batch, Example, Loss, Media, Model, Sampler
from tunesmith.events import Progress
from tunesmith.numeric.rng import generator
from tunesmith.recipe.schema import Recipe
from tunesmith_test_engines.token_shapes import CLASSES, RATE, WORDS


class Codec(nn.Module):
    """Samples in [-1, 1] <-> tokens: the nearest of CLASSES levels."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.levels = nn.Parameter(torch.zeros(sizes["levels"]))

    def encode(self, samples: Tensor) -> Tensor:
        """[samples] to int64 [samples]."""
        return (samples[:, None] - self.levels.float()[None]).abs().argmin(dim=1)

    def decode(self, tokens: Tensor) -> Tensor:
        """The inverse, up to the rounding."""
        return self.levels.float()[tokens]


class Layer(nn.Module):
    """Causal attention and a perceptron, both residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(width, width, bias=False)
        self.to_v = nn.Linear(width, width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 2 * width, bias=False)
        self.down = nn.Linear(2 * width, width, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """[batch, length, width] to the same."""
        length = hidden.shape[1]
        scores = self.to_q(hidden) @ self.to_k(hidden).transpose(1, 2) / math.sqrt(hidden.shape[-1])
        future = torch.ones(length, length, dtype=torch.bool, device=hidden.device).triu(1)
        hidden = hidden + self.to_out(scores.masked_fill(future, -1e4).softmax(dim=-1) @ self.to_v(hidden))
        return hidden + self.down(F.silu(self.up(hidden)))


class Decoder(nn.Module):
    """Tokens [batch, length], their place in the song and words -> logits [batch, length, CLASSES]."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__()
        width = sizes["width"]
        self.tokens = nn.Embedding(CLASSES, width)
        self.words = nn.Embedding(WORDS, width)
        self.layers = nn.ModuleList([Layer(width)])
        self.norm = nn.RMSNorm(width)
        self.head = nn.Parameter(torch.zeros(width, CLASSES))

    def forward(self, tokens: Tensor, offsets: Tensor, words: Tensor) -> Tensor:
        """`offsets` [batch] is where each crop starts; `words` [batch, count] ids of the caption."""
        width = self.tokens.embedding_dim
        rates = torch.exp(-5.0 * torch.arange(width // 2, device=tokens.device) / (width // 2))
        places = offsets[:, None, None] + torch.arange(tokens.shape[1], device=tokens.device)[None, :, None]
        angles = places.float() * rates
        clock = torch.cat([angles.sin(), angles.cos()], dim=-1)
        hidden = self.tokens(tokens) + self.words(words).mean(dim=1, keepdim=True)
        hidden = hidden + clock.to(hidden.dtype)
        for layer in self.layers:
            hidden = layer(hidden)
        return self.norm(hidden) @ self.head


MODULES: Mapping[str, Callable[[Mapping[str, int]], nn.Module]] = {"codec": Codec, "decoder": Decoder}


def word_ids(text: str) -> Tensor:
    """[4] int64 ids by checksum; 0 pads."""
    ids = [1 + zlib.crc32(word.encode()) % (WORDS - 1) for word in text.lower().split()][:4]
    return torch.tensor(ids + [0] * (4 - len(ids)))


def read_samples(path: Path) -> Tensor:
    """A 16-bit mono WAV file, brought to RATE by averaging: float32 [samples] in [-1, 1]."""
    with wave.open(str(path)) as file:
        raw = file.readframes(file.getnframes())
        step = max(1, file.getframerate() // RATE)
    samples = torch.frombuffer(bytearray(raw), dtype=torch.int16).float() / 32768
    whole = len(samples) // step * step
    return samples[:whole].view(-1, step).mean(dim=1)


def crop(tokens: Tensor, length: int, place: float) -> tuple[Tensor, Tensor]:
    """[length + 1] tokens and where they start; short files are padded with the middle level."""
    missing = length + 1 - len(tokens)
    if missing > 0:
        tokens = torch.cat([tokens, torch.full((missing,), CLASSES // 2)])
    start = min(int(place * (len(tokens) - length)), len(tokens) - length - 1)
    return tokens[start : start + length + 1], torch.tensor(start)


def collate(examples: Sequence[Example]) -> Batch:
    """Stack."""
    names = examples[0].tensors
    return Batch(
        {name: torch.stack([example.tensors[name] for example in examples]) for name in names},
        tuple(example.key for example in examples),
        tuple(example.concept for example in examples),
        torch.tensor([example.weight for example in examples], dtype=torch.float32),
    )


def loss(model: Model, batch: Batch) -> Loss:
    """Cross-entropy of the next token, mean over the crop."""
    device = model.settings["device"]
    tokens, offsets, words = (batch.tensors[name].to(device) for name in ("tokens", "offset", "words"))
    logits = model.components["decoder"](tokens[:, :-1], offsets, words).float()
    per_item = F.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none").mean(dim=1)
    weights = batch.weights.to(device)
    hit = (logits.argmax(dim=-1) == tokens[:, 1:]).float().mean()
    return Loss((per_item * weights).mean(), per_item.detach(), {"accuracy": hit})


@torch.no_grad()
def accuracy(model: Model, batch: Batch, recipe: Recipe) -> float:
    """Share of next tokens that the likeliest guess hits."""
    return float(loss(model, batch).named["accuracy"])


@torch.no_grad()
def sample(sampler: Sampler, request: Any, should_stop: Callable[[], bool]) -> Iterator[Progress | Media]:
    """Token by token from the request's seed."""
    decoder = sampler.components["decoder"]
    chance = generator(request.seed, 0, "sample")
    tokens = torch.full((1, 1), CLASSES // 2)
    words = word_ids(request.prompt)[None]
    for done in range(request.tokens):
        if should_stop():
            return
        logits = decoder(tokens, torch.zeros(1), words)[:, -1].float() / request.temperature
        tokens = torch.cat([tokens, torch.multinomial(logits.softmax(dim=-1), 1, generator=chance)], dim=1)
        yield Progress(done + 1, request.tokens, "tokens")
    samples = sampler.frozen["codec"].decode(tokens[0, 1:])[None].numpy()
    named = {"prompt": request.prompt, "seed": request.seed, "temperature": request.temperature, "rate": RATE}
    yield Media("audio", samples, named)
