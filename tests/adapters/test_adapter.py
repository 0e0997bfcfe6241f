"""What a pair adds, against peft's own merge."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model

from small_net import SPOTS, make_adapter, make_net, make_pair
from tunesmith.adapters.adapter import Pair, check_pair, check_whole, delta, usual_rank_and_alpha
from tunesmith.errors import AdapterError


@pytest.mark.parametrize("dora", [False, True])
def test_the_change_equals_pefts_merge_on_every_kind_of_layer(dora: bool) -> None:
    net, adapter = make_net(), make_adapter(make_net(), dora=dora)
    live = {spot.canonical: spot.live for spot in SPOTS}
    pairs = {live[name]: pair for (_, name), pair in adapter.layers.items()}
    config = LoraConfig(
        target_modules="|".join(pairs),
        rank_pattern={f"^{name}": pair.rank for name, pair in pairs.items()},
        alpha_pattern={f"^{name}": pair.alpha for name, pair in pairs.items()},
        use_dora=dora,
    )
    wrapped = get_peft_model(make_net(), config)
    for name, pair in pairs.items():
        layer = wrapped.base_model.model.get_submodule(name)
        with torch.no_grad():
            layer.lora_A["default"].weight.copy_(pair.down)
            layer.lora_B["default"].weight.copy_(pair.up)
            if pair.magnitude is not None:
                vector = layer.lora_magnitude_vector["default"].weight
                vector.copy_(pair.magnitude.reshape(vector.shape))
    merged = wrapped.merge_and_unload()
    for name, pair in pairs.items():
        weight = net.get_submodule(name).weight.detach()
        expected = merged.get_submodule(name).weight.detach() - weight
        torch.testing.assert_close(delta(pair, weight), expected, rtol=1e-5, atol=1e-6)


def test_half_precision_factors_are_summed_in_float32() -> None:
    pair = make_pair((4, 4), 2, 2.0, 0)
    half = Pair(pair.down.half(), pair.up.half(), 2.0)
    assert delta(half).dtype == torch.float32
    torch.testing.assert_close(delta(half), half.up.float() @ half.down.float())


def test_a_dora_change_needs_the_weight() -> None:
    with pytest.raises(AdapterError, match="depends on its weight"):
        delta(make_pair((4, 4), 2, 2.0, 0, dora=True))


def test_sizes_and_usual_values() -> None:
    adapter = make_adapter(make_net())
    assert adapter.rank_of(("body", "old.point")) == 3
    assert adapter.components == ("body",)
    assert adapter.parameters == sum(p.down.numel() + p.up.numel() for p in adapter.layers.values())
    pairs = {"a": make_pair((4, 4), 2, 1.0, 0), "b": make_pair((4, 4), 3, 1.0, 0), "c": make_pair((4, 4), 3, 1.0, 1)}
    assert usual_rank_and_alpha(pairs) == (3, 1.0)


@pytest.mark.parametrize("shape", [(4, 5), (3, 4), (4, 4, 3, 3), (4, 2, 2)])
def test_a_pair_for_another_base_is_refused_naming_both_sizes(shape: tuple[int, ...]) -> None:
    with pytest.raises(AdapterError, match=r"another base: on blocks\.0 .*\[4, 4\].*") as caught:
        check_pair("blocks.0", make_pair((4, 4), 2, 1.0, 0), shape)
    assert str(list(shape)) in caught.value.message


def test_a_linear_pair_fits_a_pointwise_convolution() -> None:
    check_pair("proj", make_pair((4, 4), 2, 1.0, 0), (4, 4, 1, 1))
    check_pair("proj", make_pair((4, 4, 1, 1), 2, 1.0, 0), (4, 4))


@pytest.mark.parametrize(
    ("down", "up", "says"),
    [
        (torch.zeros(2, 4), torch.zeros(4, 3), "disagree"),
        (torch.zeros(0, 4), torch.zeros(4, 0), "disagree"),
        (torch.zeros(2, 4), torch.zeros(2), "disagree"),
        (torch.full((2, 4), float("nan")), torch.zeros(4, 2), "NaN or Inf in blocks"),
        (torch.zeros(2, 4), torch.full((4, 2), float("inf")), "NaN or Inf in blocks"),
    ],
)
def test_broken_factors_are_refused(down: torch.Tensor, up: torch.Tensor, says: str) -> None:
    with pytest.raises(AdapterError, match=says):
        check_whole("blocks.0", Pair(down, up, 1.0))


def test_the_largest_half_numbers_are_finite() -> None:
    check_whole("a", Pair(torch.full((2, 4), 65504.0).half(), torch.full((4, 2), -65504.0).half(), 1.0))
