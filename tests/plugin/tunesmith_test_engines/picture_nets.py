"""The torch side of `test_pictures`: modules, encoding, the objective, sampling."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from tunesmith.engines.protocol import Batch, Encoder, Example, Loss, Media, Model, Sampler
from tunesmith.events import Progress
from tunesmith.numeric.rng import BatchRng, generator
from tunesmith.recipe.schema import Recipe
from tunesmith_test_engines.picture_shapes import FACTOR, TIMESTEPS, TOKENS, VOCABULARY


class Autoencoder(nn.Module):
    """Pictures [batch, 3, height, width] in [-1, 1] <-> latents [batch, latent, height / 2, width / 2]."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__()
        width, latent = sizes["width"], sizes["latent"]
        self.encoder = nn.ModuleDict(
            {
                "conv_in": nn.Conv2d(3, width, 3, stride=FACTOR, padding=1),
                "conv_out": nn.Conv2d(width, 2 * latent, 3, padding=1),
            }
        )
        self.decoder = nn.ModuleDict(
            {"conv_in": nn.Conv2d(latent, width, 3, padding=1), "conv_out": nn.Conv2d(width, 3, 3, padding=1)}
        )

    def encode(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents."""
        hidden = F.silu(self.encoder["conv_in"](pictures))
        mean, log_std = self.encoder["conv_out"](hidden).chunk(2, dim=1)
        return mean, log_std.clamp(-8, 4).exp()

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures, not clamped."""
        hidden = F.silu(self.decoder["conv_in"](latents))
        return self.decoder["conv_out"](F.interpolate(hidden, scale_factor=FACTOR, mode="nearest"))

    def forward(self, pictures: Tensor) -> Tensor:
        """There and back by the mean."""
        return self.decode(self.encode(pictures)[0])


class Layer(nn.Module):
    """A residual two-layer perceptron."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 2 * width)
        self.fc2 = nn.Linear(2 * width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """[batch, tokens, width] to the same."""
        return hidden + self.fc2(F.silu(self.fc1(hidden)))


class TextEncoder(nn.Module):
    """Token ids [batch, tokens] -> states [batch, tokens, width]."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, sizes["width"])
        self.layers = nn.ModuleList([Layer(sizes["width"])])
        self.norm = nn.LayerNorm(sizes["width"])

    def forward(self, ids: Tensor) -> Tensor:
        """The states after the final norm."""
        hidden = self.embedding(ids)
        for layer in self.layers:
            hidden = layer(hidden)
        return self.norm(hidden)


class Attention(nn.Module):
    """Cross-attention of pixels to text."""

    def __init__(self, width: int, text: int) -> None:
        super().__init__()
        self.to_q = nn.Linear(width, width)
        self.to_k = nn.Linear(text, width)
        self.to_v = nn.Linear(text, width)
        self.to_out = nn.Linear(width, width)

    def forward(self, pixels: Tensor, states: Tensor) -> Tensor:
        """[batch, pixels, width] to the same."""
        q, k, v = self.to_q(pixels), self.to_k(states), self.to_v(states)
        scores = (q @ k.transpose(1, 2)) / math.sqrt(q.shape[-1])
        return self.to_out(scores.softmax(dim=-1) @ v)


class Block(nn.Module):
    """Convolution, attention to the text, projection."""

    def __init__(self, width: int, text: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.attention = Attention(width, text)
        self.proj = nn.Conv2d(width, width, 1)

    def forward(self, hidden: Tensor, states: Tensor) -> Tensor:
        """[batch, width, height, width] to the same."""
        hidden = hidden + F.silu(self.conv(hidden))
        seen = self.attention(hidden.flatten(2).transpose(1, 2), states)
        return hidden + self.proj(seen.transpose(1, 2).unflatten(2, hidden.shape[2:]))


class Denoiser(nn.Module):
    """Predicts the noise in latents from the timestep, the caption's states and a conditioning picture."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__()
        width, latent = sizes["width"], sizes["latent"]
        self.conv_in = nn.Conv2d(latent, width, 3, padding=1)
        self.control_in = nn.Conv2d(3, width, 3, stride=FACTOR, padding=1)
        self.time_embed = nn.Linear(width, width)
        self.block = Block(width, sizes["text"])
        self.conv_out = nn.Conv2d(width, latent, 3, padding=1)

    def forward(self, latents: Tensor, timesteps: Tensor, states: Tensor, control: Tensor) -> Tensor:
        """[batch, latent, height, width] to the same; `control` [batch, 3, 2 height, 2 width]."""
        width = self.time_embed.in_features
        rates = torch.arange(width // 2, device=latents.device) / (width // 2)
        angles = timesteps[:, None].float() * torch.exp(-4.0 * rates)
        clock = torch.cat([angles.sin(), angles.cos()], dim=1).to(latents.dtype)
        hidden = self.conv_in(latents) + self.control_in(control) + self.time_embed(clock)[:, :, None, None]
        return self.conv_out(self.block(hidden, states))


MODULES: Mapping[str, Callable[[Mapping[str, int]], nn.Module]] = {
    "autoencoder": Autoencoder,
    "text_encoder": TextEncoder,
    "denoiser": Denoiser,
}


def alphas_cumprod() -> Tensor:
    """Signal power left at each of TIMESTEPS steps, float32; betas linear 0.001 to 0.08."""
    return torch.cumprod(1 - torch.linspace(0.001, 0.08, TIMESTEPS, dtype=torch.float64), 0).float()


def token_ids(text: str) -> Tensor:
    """[TOKENS] int64: one id a word by its checksum, 1 and up; 0 pads."""
    ids = [1 + zlib.crc32(word.encode()) % (VOCABULARY - 1) for word in text.lower().split()][:TOKENS]
    return torch.tensor(ids + [0] * (TOKENS - len(ids)))


def pixels(image: Image.Image, variant: str) -> Tensor:
    """[3, height, width] in [-1, 1] for a variant such as `16x16` or `16x24/flip`."""
    size, _, flip = variant.partition("/")
    width, height = (int(side) for side in size.split("x"))
    image = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    if flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    raw = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(height, width, 3)
    return raw.permute(2, 0, 1).float() / 127.5 - 1


@torch.no_grad()
def encode(encoder: Encoder, source: Any, variant: str) -> dict[str, Tensor]:
    """What one encoder makes of a file or a text; float32 on the CPU."""
    if encoder.spec.name == "text":
        ids = token_ids(source)
        return {"states": encoder.module(ids[None])[0]}
    with Image.open(source.path) as image:
        picture = pixels(image, variant)
    if encoder.module is None:
        return {"pixels": picture}
    mean, std = encoder.module.encode(picture[None])
    return {"mean": mean[0], "std": std[0]}


def collate(examples: Sequence[Example]) -> Batch:
    """Stack every tensor the examples carry."""
    names = examples[0].tensors
    return Batch(
        {name: torch.stack([example.tensors[name] for example in examples]) for name in names},
        tuple(example.key for example in examples),
        tuple(example.concept for example in examples),
        torch.tensor([example.weight for example in examples], dtype=torch.float32),
    )


def weighted(per_item: Tensor, batch: Batch, named: Mapping[str, Tensor]) -> Loss:
    """The weighted mean over items and its parts."""
    weights = batch.weights.to(per_item.device)
    return Loss((per_item * weights).mean(), per_item.detach(), named)


def denoiser_loss(model: Model, batch: Batch, rng: BatchRng) -> Loss:
    """Mean squared error of the predicted noise; `noise` and `timesteps` in the batch replace drawn ones."""
    latents = batch.tensors["latents"]
    noise = batch.tensors.get("noise")
    timesteps = batch.tensors.get("timesteps")
    noise = rng.normal("noise", latents.shape[1:]) if noise is None else noise
    timesteps = rng.integers("timestep", 0, TIMESTEPS) if timesteps is None else timesteps
    power = alphas_cumprod()[timesteps].view(-1, 1, 1, 1)
    noisy = power.sqrt() * latents + (1 - power).sqrt() * noise
    dtype, device = model.settings["dtype"], model.settings["device"]
    if "ids" in batch.tensors:
        encoder = model.components.get("text_encoder") or model.frozen["text_encoder"]
        states = encoder(batch.tensors["ids"].to(device))
    else:
        states = batch.tensors["states"].to(device)
    moved = (
        noisy.to(device, dtype),
        timesteps.to(device),
        states.to(dtype),
        batch.tensors["control"].to(device, dtype),
    )
    error = (model.components["denoiser"](*moved).float() - noise.to(device)).square()
    return weighted(error.mean(dim=(1, 2, 3)), batch, {"noise_error": error.mean().detach()})


def autoencoder_loss(model: Model, batch: Batch) -> Loss:
    """Mean squared error of the rebuilt pictures and a small pull of the latents to the unit normal."""
    net = model.components["autoencoder"]
    pictures = batch.tensors["pixels"].to(model.settings["device"])
    mean, std = net.encode(pictures)
    error = (net.decode(mean) - pictures).square().mean(dim=(1, 2, 3))
    pull = 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).mean(dim=(1, 2, 3))
    return weighted(error + 1e-4 * pull, batch, {"error": error.mean().detach(), "pull": pull.mean().detach()})


@torch.no_grad()
def psnr_db(model: Model, batch: Batch, recipe: Recipe) -> float:
    """Peak signal to noise ratio of the rebuilt pictures, peak 2."""
    pictures = batch.tensors["pixels"].to(model.settings["device"])
    error = (model.components["autoencoder"](pictures) - pictures).square().mean()
    return float(10 * torch.log10(4 / error))


@torch.no_grad()
def sample(sampler: Sampler, request: Any, should_stop: Callable[[], bool]) -> Iterator[Progress | Media]:
    """Deterministic DDIM from the request's seed."""
    parts = {**sampler.frozen, **sampler.components}
    dtype, sizes = sampler.settings["dtype"], sampler.base.architecture
    height, width = request.height // FACTOR, request.width // FACTOR
    latents = torch.randn(1, sizes["denoiser"]["latent"], height, width, generator=generator(request.seed, 0, "sample"))
    control = torch.zeros(1, 3, request.height, request.width)
    if request.control is not None:
        with Image.open(request.control) as image:
            control = pixels(image, f"{request.width}x{request.height}")[None]
    texts = [request.prompt, request.negative]
    ids = torch.stack([token_ids(text) for text in texts])
    states = parts["text_encoder"](ids).to(dtype)
    powers = alphas_cumprod()
    times = torch.linspace(TIMESTEPS - 1, 0, request.steps).round().long()
    for index, time in enumerate(times):
        if should_stop():
            return
        both = [
            parts["denoiser"](latents.to(dtype), time[None], states[row : row + 1], control.to(dtype)).float()
            for row in range(2)
        ]
        noise = both[1] + request.guidance * (both[0] - both[1])
        power = powers[time]
        clean = ((latents - (1 - power).sqrt() * noise) / power.sqrt()).clamp(-4, 4)
        after = powers[times[index + 1]] if index + 1 < len(times) else torch.tensor(1.0)
        latents = after.sqrt() * clean + (1 - after).sqrt() * noise
        yield Progress(index + 1, request.steps, "steps")
    picture = parts["autoencoder"].decode(latents.to(dtype)).float()[0]
    raw = ((picture.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).contiguous()
    image = Image.frombytes("RGB", (request.width, request.height), bytes(raw.flatten().tolist()))
    named = ("prompt", "negative", "seed", "steps", "guidance", "width", "height")
    yield Media("image", image, {name: getattr(request, name) for name in named})
