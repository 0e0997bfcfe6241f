"""Modules that are built without memory and filled tensor by tensor, or created from a seed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from tunesmith.errors import WeightsError

Build = Callable[[], nn.Module]


def filled_module(
    build: Build, tensors: Iterable[tuple[str, torch.Tensor]], device: torch.device, dtype: torch.dtype, *, source: str
) -> nn.Module:
    """A module with its parameters in `dtype` on `device`, in evaluation mode, filled from (live name, tensor).

    Peak memory is about the module's own size. Raises WeightsError naming a parameter that `source` lacks.
    """
    module = _unfilled(build, device, dtype)
    waiting = dict(module.named_parameters())
    for name, tensor in tensors:
        waiting.pop(name).copy_(tensor)
    if waiting:
        raise WeightsError(
            f"{source} lacks {min(waiting)} ({len(waiting)} tensors in all)",
            do="the file is damaged; get it again",
        )
    return module.to(device).eval()  # buffers only: the parameters are there already


def _unfilled(build: Build, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """A module whose parameters have their place in memory, untouched so far; shared ones stay shared.

    All places come before the first tensor is read: what is read and dropped then never lies between them, and the
    process does not keep its holes.
    """
    from accelerate import init_empty_weights  # type: ignore[import-untyped]

    with init_empty_weights(include_buffers=False):  # no file holds buffers (position ids), so they are kept
        module = build()
    if hasattr(module, "tie_weights"):  # building without memory gave parameters that transformers shares their own
        module.tie_weights()  # type: ignore[operator]
    places: dict[int, nn.Parameter] = {}
    for name, parameter in list(module.named_parameters(remove_duplicate=False)):
        owner, _, leaf = name.rpartition(".")
        if id(parameter) not in places:
            place = torch.empty(parameter.shape, dtype=dtype, device=device)
            places[id(parameter)] = nn.Parameter(place, requires_grad=False)
        module.get_submodule(owner).register_parameter(leaf, places[id(parameter)])
    return module


def created_module(build: Build, identity: Any) -> nn.Module:
    """A new module in float32, frozen, as the library initialises it: a function of the JSON-ready `identity` only."""
    text = json.dumps(identity, sort_keys=True).encode()
    drawn = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(drawn)
        module = build()
    return module.requires_grad_(False).eval()


@contextmanager
def evaluating(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Modules in evaluation mode meanwhile; one in training goes on as it was."""
    modes = [(module, module.training) for whole in modules for module in whole.modules()]
    for whole in modules:
        whole.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
