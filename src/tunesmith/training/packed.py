"""Frozen convolutions with weights laid out once for oneDNN, for bf16 on a CPU.

A plain `conv2d` re-lays its weight out on every call, forward and backward. For small pictures that costs several
times the arithmetic, and a frozen weight never changes. So each weight is kept twice in oneDNN's own layout, once for
the forward pass and once flipped and transposed for the input gradient, and its plain form is let go: the layout is
a permutation of the same bits, so `unpack_convolutions` gets every weight back exactly.

The operators are torch's private ones (torch/_inductor/mkldnn_ir.py uses the same). `packing_unavailable` says why they
cannot be used on this machine or with this torch; then nothing is packed and everything runs as before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from tunesmith.training.memory import return_free_memory

# Weights per tap from which packing paid in every measured shape (docs/benchmarks.md); 320 x 320 gains nothing.
SMALLEST_CHANNEL_PRODUCT = 300_000

# Layouts came out equal for every picture size tried; oneDNN wants to hear one.
_HINT_SIDE = 8


@dataclass(frozen=True)
class _Packed:
    """Both layouts of one weight, and the Parameter whose storage they replace."""

    forward: Tensor
    gradient: Tensor
    parameter: nn.Parameter


class PackedConv2d(nn.Conv2d):
    """What a frozen `Conv2d` becomes. The module stays the same object, so wrappers and references stay right.

    `weight` and `state_dict` give the plain weight, made on demand; it is a copy, so writing to it changes nothing.
    """

    _packed: _Packed

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The plain weight [out, in, height, width], bit for bit."""
        return self._packed.forward.to_dense()

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as torch names it
        """[batch, in, height, width] to [batch, out, height, width]."""
        picture = input.to(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else input
        if picture.dim() != 4 or picture.dtype != torch.bfloat16:
            return F.conv2d(picture, self.weight, self.bias, self.stride, self.padding, self.dilation)
        result: Tensor = _FrozenConvolution.apply(picture, self)  # type: ignore[no-untyped-call]
        return result

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}weight"] = self.weight


class _FrozenConvolution(torch.autograd.Function):
    """Gradient with respect to the input only: neither weight nor bias trains."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, layer: PackedConv2d) -> Tensor:  # noqa: A002
        ctx.layer = layer
        bias = None if layer.bias is None else layer.bias.detach()
        return _convolve(input, layer._packed.forward, bias, _padding(layer), list(layer.dilation))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None]:
        if not ctx.needs_input_grad[0]:
            return None, None
        layer: PackedConv2d = ctx.layer
        # The input gradient of a stride-1 convolution is a convolution with the flipped, transposed weight, padded so
        # that the sizes come out: dilation * (kernel - 1) - padding on each side.
        taps = zip(layer.dilation, layer.kernel_size, _padding(layer), strict=True)
        padding = [dilation * (kernel - 1) - inner for dilation, kernel, inner in taps]
        return _convolve(gradient, layer._packed.gradient, None, padding, list(layer.dilation)), None


def pack_frozen_convolutions(module: nn.Module) -> int:
    """Pack every convolution inside `module` where it pays, adapters' base layers included; how many were packed.

    Only frozen bf16 weights on the CPU, stride 1, one group, kernels above 1 x 1, zero padding. 0 where the operators
    are not available. Results are equal to plain ones within bf16 rounding, and the same bits on every call.
    """
    if packing_unavailable():
        return 0
    chosen = [layer for layer in module.modules() if _pays(layer)]
    for layer in chosen:
        assert isinstance(layer, nn.Conv2d)
        _pack(layer)
        return_free_memory()  # or the plain weights would stay resident: 0.7 GB in a full-size U-Net
    return len(chosen)


def unpack_convolutions(module: nn.Module) -> int:
    """Undo `pack_frozen_convolutions`: plain layers with the same bits in the same Parameters. How many there were."""
    chosen = [layer for layer in module.modules() if isinstance(layer, PackedConv2d)]
    for layer in chosen:
        packed = layer._packed
        packed.parameter.data = packed.forward.to_dense()
        del layer._packed
        _become(layer, nn.Conv2d)
        bias = layer._parameters.pop("bias")
        layer.register_parameter("weight", packed.parameter)
        layer.register_parameter("bias", bias)
    return len(chosen)


def packing_unavailable() -> str:
    """Why nothing can be packed here, or an empty string: operators, hardware, and one small convolution compared."""
    if not hasattr(torch._C._nn, "mkldnn_reorder_conv2d_weight"):
        return "this torch cannot re-lay convolution weights"
    if not torch._C._has_mkldnn or not hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        return "this torch has no oneDNN convolutions"
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "this CPU has no bf16 instructions"
    if not torch.backends.mkldnn.enabled:
        return "oneDNN is switched off"
    return "" if _agrees_with_plain() else f"torch {torch.__version__} convolves packed weights differently"


def _agrees_with_plain() -> bool:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(32, 16, 3, 3, generator=generator).bfloat16()
    picture = torch.randn(1, 16, 5, 5, generator=generator).bfloat16()
    try:
        packed = _reorder(weight)
        found = _convolve(picture, packed, None, [1, 1], [1, 1])
    except (RuntimeError, TypeError):  # another signature, or a refusal at run time
        return False
    expected = F.conv2d(picture.float(), weight.float(), padding=1)
    # One rounding to bf16 (8 bits) of sums of 144 products.
    return torch.equal(packed.to_dense(), weight) and torch.allclose(found.float(), expected, rtol=2**-7, atol=0.05)


def _pays(layer: nn.Module) -> bool:
    # Exactly Conv2d: subclasses may compute something else, and packed ones are packed.
    if type(layer) is not nn.Conv2d:
        return False
    weight = layer.weight
    frozen = not weight.requires_grad and (layer.bias is None or not layer.bias.requires_grad)
    return (
        frozen
        and weight.dtype == torch.bfloat16
        and weight.device.type == "cpu"
        and layer.in_channels * layer.out_channels >= SMALLEST_CHANNEL_PRODUCT
        and max(layer.kernel_size) > 1
        and layer.stride == (1, 1)
        and layer.groups == 1
        and layer.padding_mode == "zeros"
        and isinstance(layer.padding, tuple)
    )


def _pack(layer: nn.Conv2d) -> None:
    parameter = layer._parameters["weight"]
    assert parameter is not None
    weight = parameter.detach().contiguous()
    dilation = list(layer.dilation)
    gradient = _reorder(weight.flip(2, 3).transpose(0, 1).contiguous(), dilation)
    packed = _Packed(_reorder(weight, dilation), gradient, parameter)
    del layer._parameters["weight"], weight
    _become(layer, PackedConv2d)
    setattr(layer, "_packed", packed)  # noqa: B010 - only the class it has just become has this field
    parameter.data = torch.empty(0, dtype=torch.bfloat16)


def _become(layer: nn.Module, kind: type[nn.Module]) -> None:
    # The same object under another class: adapters hold references to their base layers, and must go on finding them.
    layer.__class__ = kind


def _padding(layer: nn.Conv2d) -> list[int]:
    return [side for side in layer.padding if isinstance(side, int)]  # `_pays` leaves "same" and "valid" alone


def _reorder(weight: Tensor, dilation: list[int] | None = None) -> Tensor:
    hint = [1, weight.shape[1], _HINT_SIDE, _HINT_SIDE]
    padding = [side // 2 for side in weight.shape[2:]]
    reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight  # its stub lacks the last argument
    packed: Tensor = reorder(weight.to_mkldnn(), padding, [1, 1], dilation or [1, 1], 1, hint)
    return packed


def _convolve(picture: Tensor, packed: Tensor, bias: Tensor | None, padding: list[Any], dilation: list[int]) -> Tensor:
    result: Tensor = torch.ops.mkldnn._convolution_pointwise(
        picture.contiguous(), packed, bias, padding, [1, 1], dilation, 1, "none", [], ""
    )
    return result
