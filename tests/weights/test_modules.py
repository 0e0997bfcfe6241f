"""Modules filled tensor by tensor or created from a seed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tunesmith.errors import WeightsError
from tunesmith.weights.modules import created_module, filled_module

CPU = torch.device("cpu")


def build() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def test_filled_with_the_given_bits() -> None:
    wanted = {name: torch.randn(value.shape) for name, value in build().named_parameters()}
    module = filled_module(build, wanted.items(), CPU, torch.float32, source="a file")
    assert not module.training
    assert all(torch.equal(value, wanted[name]) for name, value in module.named_parameters())
    assert not any(value.requires_grad for value in module.parameters())
    assert torch.equal(module.get_buffer("1.running_var"), torch.ones(4))
    half = filled_module(build, wanted.items(), CPU, torch.bfloat16, source="a file")
    assert all(value.dtype == torch.bfloat16 for value in half.parameters())


def test_a_missing_tensor_is_named() -> None:
    with pytest.raises(WeightsError, match=r"a file lacks 0\.bias \(3 tensors"):
        filled_module(build, [("0.weight", torch.zeros(4, 3))], CPU, torch.float32, source="a file")


def test_embeddings_that_transformers_shares_stay_shared() -> None:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(vocab_size=8, d_model=4, d_kv=2, d_ff=4, num_layers=1, num_heads=2)
    tensors = [(name, torch.ones(value.shape)) for name, value in T5EncoderModel(config).named_parameters()]
    module = filled_module(lambda: T5EncoderModel(config), tensors, CPU, torch.float32, source="a file")
    assert module.get_parameter("encoder.embed_tokens.weight") is module.get_parameter("shared.weight")


def test_created_from_its_identity_alone() -> None:
    torch.manual_seed(1)
    first = created_module(build, ["part", 0])
    torch.manual_seed(2)
    state = torch.get_rng_state()
    again = created_module(build, ["part", 0])
    assert torch.equal(torch.get_rng_state(), state)
    other = created_module(build, ["part", 1])
    weights = [module.get_parameter("0.weight") for module in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
