"""Operations against torch's own counter on the meta device."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tunesmith.engines.stable_audio.architecture import NAMED, named_architecture
from tunesmith.engines.stable_audio.conditions import rotary
from tunesmith.engines.stable_audio.load import build_module
from tunesmith.engines.stable_audio.operations import autoencoder_work, denoiser_work, text_work
from tunesmith.engines.stable_audio.shapes import hop_length


def counted(run: object) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()  # type: ignore[operator]
    return float(counter.get_total_flops())


@pytest.mark.parametrize("name", NAMED)
def test_denoiser(name: str) -> None:
    sizes, frames, tokens = named_architecture(name)["denoiser"], 40, 20
    cosines, sines = (table.to("meta") for table in rotary(sizes, frames))
    with torch.device("meta"):
        module = build_module("denoiser", sizes)
        cross = torch.empty(1, tokens + 2, sizes["cross_attention_input_dim"])
        whole = torch.empty(1, 1, sizes["global_states_input_dim"])
        latents, times = torch.empty(1, sizes["in_channels"], frames), torch.empty(1)
    found = counted(
        lambda: module(
            latents,
            times,
            encoder_hidden_states=cross,
            global_hidden_states=whole,
            rotary_embedding=(cosines, sines),
        )
    )
    work = denoiser_work(sizes, frames, tokens)
    outer = sizes["time_proj_dim"]  # the product of time and frequencies, which is no layer: dim / 2 multiplications
    assert work.matrix + work.convolution + outer == pytest.approx(found, rel=1e-9)


@pytest.mark.parametrize("half", ["encoder", "decoder"])
@pytest.mark.parametrize("name", NAMED)
def test_autoencoder(name: str, half: str) -> None:
    sizes, frames = named_architecture(name)["autoencoder"], 8
    with torch.device("meta"):
        module = build_module("autoencoder", sizes)
        sound = torch.empty(1, sizes["audio_channels"], frames * hop_length(sizes))
        latents = torch.empty(1, sizes["decoder_input_channels"], frames)
    found = counted(lambda: module.encode(sound) if half == "encoder" else module.decode(latents))
    assert autoencoder_work(sizes, frames, half).convolution == pytest.approx(found, rel=1e-9)


@pytest.mark.parametrize("name", NAMED)
def test_text_encoder(name: str) -> None:
    sizes, tokens = named_architecture(name)["text_encoder"], 24
    with torch.device("meta"):
        module = build_module("text_encoder", sizes)
        ids = torch.zeros(1, tokens, dtype=torch.long)
    assert text_work(sizes, tokens).matrix == pytest.approx(counted(lambda: module(input_ids=ids)), rel=1e-9)
