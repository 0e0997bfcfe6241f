"""Encoders: sounds to latent distributions, captions to states, samples as they are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from tunesmith.data.audio import read_audio
from tunesmith.data.item import MediaFile
from tunesmith.engines.protocol import Base, Encoder
from tunesmith.engines.stable_audio.choices import OVERLAP_SECONDS, TILE_SECONDS, encoder_specs, window_frames
from tunesmith.engines.stable_audio.load import part_module
from tunesmith.engines.stable_audio.open import TOKENIZER
from tunesmith.engines.stable_audio.shapes import hop_length
from tunesmith.engines.stable_audio.tokenizer import open_tokenizer, token_ids
from tunesmith.errors import DataError, RecipeError
from tunesmith.recipe.schema import Recipe


@dataclass(frozen=True)
class EncoderSettings:
    """What an opened encoder needs besides its module. `hop` samples make a latent frame."""

    rate: int
    channels: int
    hop: int
    base: Base
    tokenizer: Any = None
    max_tokens: int = 0


def open_encoder(base: Base, recipe: Recipe, name: str, device: torch.device) -> Encoder:
    """Load one encoder in float32."""
    spec = next((spec for spec in encoder_specs(base, recipe) if spec.name == name), None)
    if spec is None:
        raise RecipeError(f"this recipe has no encoder {name!r}")
    sizes = base.architecture["autoencoder"]
    rate, hop = int(sizes["sampling_rate"]), hop_length(sizes)
    module: Any = None
    if name in ("autoencoder", "text_encoder"):
        module = part_module(base, name, device, torch.float32, recipe.length.seed)
    if name == "autoencoder":
        del module.decoder
        module.use_tiling = True
        module.tile_sample_min_length = round(TILE_SECONDS * rate / hop) * hop
        module.tile_sample_overlap = max(1, round(OVERLAP_SECONDS * rate / hop)) * hop
    tokenizer, tokens = None, int(base.architecture[TOKENIZER]["max_tokens"])
    if name == "text_encoder":
        part = base.parts.get(TOKENIZER)
        tokenizer = open_tokenizer(part.path if part else None, tokens)
    settings = EncoderSettings(rate, int(sizes["audio_channels"]), hop, base, tokenizer, tokens)
    return Encoder(spec, module, settings)


@torch.no_grad()
def encode(encoder: Encoder, source: MediaFile | str, variant: str) -> Mapping[str, torch.Tensor]:
    """One input through one encoder; CPU tensors.

    autoencoder: `mean` and `std` [channels, frames], `peaks` [frames] of the samples, and `facts` (frames of the
    window, seconds of a frame, seconds of the whole sound); text_encoder: `states` [tokens, width] of the text's own
    tokens and `tokens`, how many they are padded to; samples: `samples` [channels, samples] int16 and `rate`.
    """
    settings: EncoderSettings = encoder.settings
    if encoder.spec.name == "text_encoder":
        return _encode_text(encoder, str(source))
    if not isinstance(source, MediaFile):
        raise DataError(f"the {encoder.spec.name} encoder was given text", expected="a sound file")
    sound, _ = read_audio(source.path, rate=settings.rate, channels=settings.channels)
    samples = torch.from_numpy(sound)
    if encoder.spec.name == "samples":
        whole = (samples.clamp(-1.0, 1.0) * 32767.0).round().to(torch.int16)
        return {"samples": whole, "rate": torch.tensor(settings.rate)}
    return _encode_sound(encoder, samples, variant)


def _encode_sound(encoder: Encoder, samples: torch.Tensor, variant: str) -> Mapping[str, torch.Tensor]:
    settings, module = encoder.settings, encoder.module
    length, _, turned = variant.partition("/")
    frames = window_frames(settings.base, None if length == "window" else float(length.removesuffix("s")))
    seconds = samples.shape[-1] / settings.rate
    whole = max(frames, math.ceil(samples.shape[-1] / settings.hop))  # or the tail would be lost
    padded = torch.zeros(settings.channels, whole * settings.hop)
    padded[:, : samples.shape[-1]] = -samples if turned == "flip" else samples
    device = next(module.parameters()).device
    posterior = module.encode(padded.unsqueeze(0).to(device)).latent_dist
    mean, std = posterior.mean[0].float().cpu(), posterior.std[0].float().cpu()
    peaks = padded.abs().amax(0).reshape(whole, settings.hop).amax(1)
    facts = torch.tensor([frames, settings.hop / settings.rate, seconds], dtype=torch.float64)
    return {"mean": mean.contiguous(), "std": std.contiguous(), "peaks": peaks, "facts": facts}


def _encode_text(encoder: Encoder, text: str) -> Mapping[str, torch.Tensor]:
    settings: EncoderSettings = encoder.settings
    ids, own = token_ids(settings.tokenizer, text)
    states = prompt_states(encoder.module, torch.tensor([ids]), torch.tensor([own]))
    return {"states": states[0, :own].float().cpu().contiguous(), "tokens": torch.tensor(settings.max_tokens)}


def prompt_states(encoder: torch.nn.Module, ids: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """States [batch, tokens, width] of ids [batch, tokens], of which the first `own` [batch] are no padding."""
    device = next(encoder.parameters()).device
    states: torch.Tensor = encoder(input_ids=ids.to(device), attention_mask=text_mask(own, ids.shape[1]).to(device))[0]
    return states


def text_mask(own: torch.Tensor, tokens: int) -> torch.Tensor:
    """1 for a text's own tokens, 0 for padding: int64 [batch, tokens] from counts [batch]."""
    return (torch.arange(tokens)[None, :] < own.cpu()[:, None]).long()
