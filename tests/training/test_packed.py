"""Packed convolutions against torch's own, and back again without losing a bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from torch.nn import functional as F

from tunesmith.training import packed
from tunesmith.training.packed import PackedConv2d, pack_frozen_convolutions, packing_unavailable, unpack_convolutions

REASON = packing_unavailable()
needs_bf16 = pytest.mark.skipif(bool(REASON), reason=f"nothing is packed here: {REASON}")


@pytest.fixture(autouse=True)
def _small_layers_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "SMALLEST_CHANNEL_PRODUCT", 32 * 32)


def _layer(seed: int = 0, **changed: Any) -> nn.Conv2d:
    torch.manual_seed(seed)
    arguments: dict[str, Any] = {"in_channels": 32, "out_channels": 48, "kernel_size": 3, "padding": 1, **changed}
    layer = nn.Conv2d(**arguments)
    return layer.to(torch.bfloat16).requires_grad_(False)


def _picture(seed: int = 1, channels: int = 32, height: int = 7, width: int = 6) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(2, channels, height, width, generator=random).bfloat16().requires_grad_()


def _run(layer: nn.Module, picture: Tensor) -> tuple[Tensor, Tensor]:
    picture = picture.detach().clone().requires_grad_()
    result = layer(picture)
    result.backward(torch.linspace(-1, 1, result.numel()).view_as(result).to(result.dtype))
    assert picture.grad is not None
    return result.detach(), picture.grad


def _close(found: Tensor, exact: Tensor) -> None:
    # The sums run in float32 in another order and are rounded to bf16 (8 bits) once.
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), exact.float(), rtol=2**-7, atol=2e-2)


@needs_bf16
@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"bias": False},
        {"padding": 0},
        {"padding": (2, 0)},
        {"kernel_size": 5, "padding": 2},
        {"kernel_size": (3, 1), "padding": (1, 0)},
        {"dilation": 2, "padding": 2},
        {"out_channels": 33},
    ],
    ids=str,
)
def test_values_and_gradients_equal_float32_ones(changed: dict[str, Any]) -> None:
    layer = _layer(**changed)
    weight, bias = layer.weight.float(), None if layer.bias is None else layer.bias.float()
    picture = _picture()
    wide = picture.detach().float().requires_grad_()
    exact = F.conv2d(wide, weight, bias, padding=layer.padding, dilation=layer.dilation)
    exact.backward(torch.linspace(-1, 1, exact.numel()).view_as(exact).bfloat16().float())
    assert pack_frozen_convolutions(layer) == 1
    result, gradient = _run(layer, picture)
    _close(result, exact.detach())
    assert wide.grad is not None
    _close(gradient, wide.grad)


@needs_bf16
def test_every_call_gives_the_same_bits() -> None:
    layer = _layer()
    pack_frozen_convolutions(layer)
    first, second = _run(layer, _picture()), _run(layer, _picture())
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))
    alone = layer(_picture()[:1])
    assert torch.equal(alone, first[0][:1]), "an item does not see its batch mates"


@needs_bf16
def test_unpacking_restores_every_bit_and_the_very_parameter() -> None:
    model = nn.Sequential(_layer(), nn.SiLU(), _layer(1, in_channels=48, out_channels=32))
    parameters = dict(model.named_parameters())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    expected = _run(model, _picture())
    assert pack_frozen_convolutions(model) == 2
    assert pack_frozen_convolutions(model) == 0, "packed ones stay packed"
    assert sum(p.numel() for p in model.parameters()) == 48 + 32, "only biases are left beside the packed weights"
    while_packed = model.state_dict()
    assert {name: tuple(t.shape) for name, t in while_packed.items()} == {n: tuple(t.shape) for n, t in before.items()}
    assert all(torch.equal(while_packed[name], tensor) for name, tensor in before.items())
    assert unpack_convolutions(model) == 2
    assert unpack_convolutions(model) == 0
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter is parameters[name] for name, parameter in model.named_parameters())
    assert [type(layer) for layer in model] == [nn.Conv2d, nn.SiLU, nn.Conv2d]
    again = _run(model, _picture())
    assert all(torch.equal(one, two) for one, two in zip(again, expected, strict=True))


@needs_bf16
@pytest.mark.parametrize(
    "layer",
    [
        pytest.param(_layer().requires_grad_(), id="it trains"),
        pytest.param(_layer().float(), id="float32"),
        pytest.param(_layer(stride=2), id="stride"),
        pytest.param(_layer(kernel_size=1, padding=0), id="1x1"),
        pytest.param(_layer(groups=2, out_channels=64), id="groups"),
        pytest.param(_layer(padding_mode="circular"), id="circular"),
        pytest.param(_layer(padding="same"), id="same"),
        pytest.param(_layer(in_channels=16), id="too small to pay"),
        pytest.param(nn.Linear(64, 64).bfloat16().requires_grad_(False), id="linear"),
    ],
)
def test_only_what_pays_is_packed(layer: nn.Module) -> None:
    assert pack_frozen_convolutions(nn.Sequential(layer)) == 0
    assert not isinstance(layer, PackedConv2d)


@needs_bf16
@pytest.mark.parametrize("autocast", [False, True])
def test_base_layers_of_adapters_are_packed_and_come_off_again(autocast: bool) -> None:
    """Adapter in float32 on a packed base: outputs and the adapter's gradients equal those on the plain base."""
    model = nn.ModuleDict({"conv": _layer(), "proj": _layer(1, in_channels=48, out_channels=32)})
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    inject_adapter_in_model(LoraConfig(r=4, target_modules=["conv"], init_lora_weights=False), model, "default")
    wrapper = model["conv"]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if "lora_" in name:
            parameter.data = parameter.data.float()

    def run() -> tuple[Tensor, ...]:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            result = model["proj"](F.silu(wrapper(_picture().detach())))
        factors = [p for n, p in model.named_parameters() if "lora_" in n]
        return (result.detach(), *torch.autograd.grad(result.float().square().mean(), factors))

    plain = run()
    assert pack_frozen_convolutions(model) == 2
    assert isinstance(wrapper.base_layer, PackedConv2d)
    fast = run()
    torch.testing.assert_close(fast[0].float(), plain[0].float(), rtol=2**-6, atol=3e-2)
    for found, expected in zip(fast[1:], plain[1:], strict=True):
        assert (found - expected).norm() / expected.norm() < 1e-2
    assert unpack_convolutions(model) == 2
    assert all(torch.equal(one, two) for one, two in zip(run(), plain, strict=True))
    model["conv"] = wrapper.base_layer
    assert all(torch.equal(tensor, base[name]) for name, tensor in model.state_dict().items())


@needs_bf16
def test_checkpointing_and_other_memory_layouts() -> None:
    from torch.utils.checkpoint import checkpoint

    layer = _layer()
    pack_frozen_convolutions(layer)
    picture = _picture()
    expected = _run(layer, picture)
    recomputed = checkpoint(layer, picture, use_reentrant=False)
    recomputed.backward(torch.linspace(-1, 1, recomputed.numel()).view_as(recomputed).bfloat16())
    assert picture.grad is not None
    assert torch.equal(picture.grad, expected[1])
    last = picture.detach().to(memory_format=torch.channels_last).requires_grad_()
    assert torch.equal(layer(last), expected[0])
    layer(last).sum().backward()  # an expanded, not contiguous gradient
    plain = _layer()
    other = picture.detach().clone().requires_grad_()
    plain(other).sum().backward()
    assert last.grad is not None
    assert other.grad is not None
    _close(last.grad, other.grad)


@needs_bf16
def test_a_float32_picture_is_not_silently_rounded() -> None:
    layer = _layer()
    pack_frozen_convolutions(layer)
    with pytest.raises(RuntimeError):  # as a plain bf16 layer does
        layer(_picture().float())


@pytest.mark.parametrize("lost", ["operator", "hardware", "switch", "signature", "values"])
def test_without_the_operators_nothing_is_packed(lost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if lost == "operator":
        monkeypatch.delattr(torch._C._nn, "mkldnn_reorder_conv2d_weight")
    elif lost == "hardware":
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    elif lost == "switch":
        monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    elif lost == "signature":
        monkeypatch.setattr(torch._C._nn, "mkldnn_reorder_conv2d_weight", lambda weight: weight)
    else:
        monkeypatch.setattr(packed, "_convolve", lambda picture, *_: torch.zeros(1, 32, 5, 5).bfloat16())
    assert packing_unavailable()
    layer = _layer()
    assert pack_frozen_convolutions(layer) == 0
    assert type(layer) is nn.Conv2d
