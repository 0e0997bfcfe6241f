"""Operation counts against torch's own counter on meta tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tunesmith.engines.stable_diffusion.architecture import named_architecture
from tunesmith.engines.stable_diffusion.load import build_module
from tunesmith.engines.stable_diffusion.operations import autoencoder_work, denoiser_work, text_work


def _count(run: Any) -> dict[str, float]:
    counter = FlopCounterMode(display=False)
    with torch.device("meta"), torch.no_grad(), counter:
        run()
    counts = counter.get_flop_counts()["Global"]
    convolution = sum(value for name, value in counts.items() if "convolution" in str(name))
    return {"matrix": sum(counts.values()) - convolution, "convolution": convolution}


def _meta(role: str, sizes: dict[str, Any]) -> Any:
    with torch.device("meta"):
        return build_module(role, sizes).eval()


@pytest.mark.parametrize(
    ("name", "height", "width", "tokens"),
    [("sd15", 32, 32, 77), ("sd15", 64, 48, 227), ("small64", 16, 16, 77), ("tiny32", 16, 16, 77)],
)
def test_denoiser(name: str, height: int, width: int, tokens: int) -> None:
    sizes = named_architecture(name)["denoiser"]
    unet = _meta("denoiser", sizes)
    states = sizes["cross_attention_dim"]
    counted = _count(lambda: unet(torch.empty(1, 4, height, width), torch.tensor([1]), torch.empty(1, tokens, states)))
    work = denoiser_work(sizes, height, width, tokens)
    assert work.matrix == pytest.approx(counted["matrix"], rel=1e-6)
    assert work.convolution == pytest.approx(counted["convolution"], rel=1e-6)


def test_the_figure_measured_for_sd15() -> None:
    work = denoiser_work(named_architecture("sd15")["denoiser"], 32, 32)
    assert work.matrix + work.convolution == pytest.approx(0.180e12, rel=0.05)


@pytest.mark.parametrize("half", ["encoder", "decoder"])
@pytest.mark.parametrize(("name", "side"), [("sd15", 256), ("small64", 64)])
def test_autoencoder(name: str, side: int, half: str) -> None:
    sizes = named_architecture(name)["autoencoder"]
    vae = _meta("autoencoder", sizes)
    small = side // 2 ** (len(sizes["block_out_channels"]) - 1)
    if half == "encoder":
        counted = _count(lambda: vae.encode(torch.empty(1, 3, side, side)))
    else:
        counted = _count(lambda: vae.decode(torch.empty(1, 4, small, small)))
    work = autoencoder_work(sizes, side, side, half)
    assert work.matrix == pytest.approx(counted["matrix"], rel=1e-6)
    assert work.convolution == pytest.approx(counted["convolution"], rel=1e-6)


@pytest.mark.parametrize("chunks", [1, 3])
def test_text_encoder(chunks: int) -> None:
    sizes = named_architecture("sd15")["text_encoder"]
    text = _meta("text_encoder", sizes)
    counted = _count(lambda: text(input_ids=torch.zeros(chunks, 77, dtype=torch.long)))
    assert text_work(sizes, chunks).matrix == pytest.approx(counted["matrix"], rel=1e-6)
    assert counted["convolution"] == 0
