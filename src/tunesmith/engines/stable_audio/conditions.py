"""What the denoiser is told: a sequence for cross-attention (text, start, total) and one global vector (start, total).

Source: stable-audio-tools, models/conditioners.py and models/diffusion.py; checked against diffusers'
StableAudioPipeline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tunesmith.engines.stable_audio.encode import text_mask


@dataclass(frozen=True)
class Conditions:
    """`cross` [batch, tokens + 2, width] and `whole` [batch, 1, 2 * width]."""

    cross: torch.Tensor
    whole: torch.Tensor


def conditions(
    projection: nn.Module, states: torch.Tensor, own: torch.Tensor, seconds: torch.Tensor, keep: torch.Tensor | None
) -> Conditions:
    """Conditions from text states [batch, tokens, width], their own tokens [batch] and seconds [batch, 2].

    Padding is zeroed after the projection. Where `keep` [batch] is 0 the whole cross sequence, seconds included, is
    zero, as stable-audio-tools drops it in training; the global vector stays.
    """
    weight = next(projection.parameters())
    mask = text_mask(own, states.shape[1]).to(weight.device, weight.dtype).unsqueeze(-1)
    start, total = seconds.to(weight.device).unbind(1)
    made: Any = projection(
        text_hidden_states=states.to(weight.device, weight.dtype), start_seconds=start, end_seconds=total
    )
    numbers = [made.seconds_start_hidden_states, made.seconds_end_hidden_states]
    cross = torch.cat([made.text_hidden_states * mask, *numbers], dim=1)
    if keep is not None:
        cross = cross * keep.to(weight.device, weight.dtype)[:, None, None]
    return Conditions(cross, torch.cat(numbers, dim=2))


def rotary(denoiser_sizes: Mapping[str, Any], frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(cosines, sines) [frames + 1, head width / 2] float32: one place for the global vector before the latents."""
    from diffusers.models.embeddings import get_1d_rotary_pos_embed

    width = int(denoiser_sizes["attention_head_dim"]) // 2
    cosines, sines = get_1d_rotary_pos_embed(width, frames + 1, use_real=True, repeat_interleave_real=False)
    return cosines, sines


def predict(
    denoiser: nn.Module,
    noisy: torch.Tensor,
    times: torch.Tensor,
    told: Conditions,
    places: tuple[torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    """The velocity [batch, channels, frames] float32 at times [batch] in 0 to 1, computed in the denoiser's dtype."""
    weight = denoiser.get_parameter("preprocess_conv.weight")
    device, dtype = weight.device, weight.dtype
    answer: torch.Tensor = denoiser(
        noisy.to(device, dtype),
        times.to(device),
        encoder_hidden_states=told.cross.to(device, dtype),
        global_hidden_states=told.whole.to(device, dtype),
        rotary_embedding=(places[0].to(device), places[1].to(device)),
        return_dict=False,
    )[0]
    return answer.float()
