"""Attaching: exactly the adapter trains, the model starts unchanged, and detaching leaves no trace."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from small_net import SPOTS, Model, Net, Spot, lora, make_adapter, make_net, make_pair, picture
from tunesmith.adapters import attach as attaching
from tunesmith.adapters.adapter import Adapter, Pair, delta
from tunesmith.adapters.attach import attach, attach_adapter, fuse
from tunesmith.adapters.attached import Attached, check_exactly_trains
from tunesmith.errors import AdapterError

LIVE = {spot.canonical: spot.live for spot in SPOTS}


def merged(adapter: Adapter, weight: float = 1.0, net: Net | None = None) -> Net:
    """The net with the adapter added by hand."""
    result = copy.deepcopy(net) if net is not None else make_net()
    with torch.no_grad():
        for (_, name), pair in adapter.layers.items():
            target = result.get_submodule(LIVE[name]).weight
            target += weight * delta(pair, target)
    return result


def shaken(attached: Attached, size: float = 0.2) -> None:
    """Move every factor, as training would."""
    draw = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in attached.parameters().values():
            parameter.add_(size * torch.rand(parameter.shape, generator=draw))


def assert_untouched(net: Net) -> None:
    """The same modules, types, attributes and bits as a new net."""
    fresh = make_net()
    assert str(net) == str(fresh)
    assert {n: type(m) for n, m in net.named_modules()} == {n: type(m) for n, m in fresh.named_modules()}
    for name, module in fresh.named_modules():
        assert net.get_submodule(name).__dict__.keys() == module.__dict__.keys()
    for name, tensor in fresh.state_dict().items():
        assert torch.equal(net.state_dict()[name], tensor)
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert torch.equal(net(picture()), fresh(picture()))


@pytest.mark.parametrize("name", ["lora", "dora"])
def test_a_new_adapter_changes_nothing_trains_alone_and_leaves_no_trace(name: str) -> None:
    net = make_net()
    before = torch.get_rng_state()
    attached = attach(Model({"body": net}), SPOTS, lora(name=name), seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(net(picture()), make_net()(picture()), rtol=1e-6, atol=1e-6)
    trains = {parameter for parameter in net.parameters() if parameter.requires_grad}
    assert trains == set(attached.parameters().values())
    assert all(parameter.dtype == torch.float32 for parameter in trains)
    slots = ("down", "up", "magnitude") if name == "dora" else ("down", "up")
    assert set(attached.parameters()) == {f"body/{spot.canonical}.{slot}" for spot in SPOTS for slot in slots}
    shaken(attached)
    assert not torch.allclose(net(picture()), make_net()(picture()))
    attached.detach()
    assert_untouched(net)


@pytest.mark.parametrize("name", ["lora", "dora"])
def test_a_trained_adapter_equals_the_merged_weights(name: str) -> None:
    net = make_net()
    attached = attach(Model({"body": net}), SPOTS, lora(name=name), seed=0)
    shaken(attached)
    torch.testing.assert_close(net(picture()), merged(attached.adapter())(picture()), rtol=1e-5, atol=1e-6)


def test_ranks_alphas_and_the_first_values() -> None:
    attached = attach(Model({"body": make_net()}), SPOTS, lora(), seed=0)
    pairs = attached.adapter().layers
    assert {name: (pair.rank, pair.alpha) for (_, name), pair in pairs.items()} == {
        "old.conv": (3, 6.0),
        "old.point": (2, 1.0),
        "old.linear": (2, 1.0),
        "old.line": (3, 6.0),
    }
    for pair in pairs.values():
        bound = pair.down[0].numel() ** -0.5  # Kaiming-uniform with a = sqrt(5): 1 / sqrt(fan_in)
        assert 0.5 * bound < float(pair.down.abs().max()) <= bound
        assert not pair.up.any()


def test_alpha_defaults_to_the_rank() -> None:
    pairs = attach(Model({"body": make_net()}), SPOTS, lora(alpha=None, conv_alpha=None), seed=0).adapter().layers
    assert all(pair.alpha == pair.rank for pair in pairs.values())


def test_first_values_depend_on_seed_and_canonical_name_only() -> None:
    def first(seed: int, spots: tuple[Spot, ...]) -> dict[str, torch.Tensor]:
        attached = attach(Model({"body": make_net()}), spots, lora(), seed=seed)
        return {name: value.detach().clone() for name, value in attached.parameters().items()}

    one, again, other = first(0, SPOTS), first(0, SPOTS[::-1]), first(1, SPOTS)
    assert all(torch.equal(value, again[name]) for name, value in one.items())
    assert not torch.equal(one["body/old.conv.down"], other["body/old.conv.down"])
    part = first(0, SPOTS[1:2])
    assert torch.equal(part["body/old.point.down"], one["body/old.point.down"])


def test_training_follows_peft_itself() -> None:
    """Three steps of AdamW on our attachment and on peft's own injection from the same factors."""
    ours, theirs = make_net(), make_net()
    attached = attach(Model({"body": ours}), SPOTS, lora(), seed=0)
    config = LoraConfig(
        r=2, lora_alpha=1, rank_pattern={"conv": 3, "line": 3}, alpha_pattern={"conv": 6, "line": 6},
        target_modules=["conv", "point", "line"],
    )  # fmt: skip
    inject_adapter_in_model(config, theirs)
    second = LoraConfig(r=2, lora_alpha=1, target_modules="linear")
    with pytest.warns(UserWarning, match="multiple adapters"):
        inject_adapter_in_model(second, theirs, adapter_name="default2")
    factors = attached.adapter().layers
    pairs = {spot.live: factors[spot.component, spot.canonical] for spot in SPOTS}
    trained = []
    for name, pair in pairs.items():
        layer = theirs.get_submodule(name)
        key = "default2" if name == "linear" else "default"
        layer.set_adapter([key])
        with torch.no_grad():
            layer.lora_A[key].weight.copy_(pair.down)
            layer.lora_B[key].weight.copy_(pair.up)
        trained += [layer.lora_A[key].weight, layer.lora_B[key].weight]
    mine = torch.optim.AdamW(attached.parameters().values(), lr=1e-2)
    other = torch.optim.AdamW(trained, lr=1e-2)
    for _ in range(3):
        losses = []
        for net, optimiser in ((ours, mine), (theirs, other)):
            loss = (net(picture()) - 1).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        assert losses[0] == losses[1]


def test_factors_stay_float32_on_a_bf16_base() -> None:
    net = make_net(torch.bfloat16)
    attached = attach(Model({"body": net}), SPOTS, lora(name="dora"), seed=0)
    assert {parameter.dtype for parameter in attached.parameters().values()} == {torch.float32}
    out = net(picture().bfloat16())
    out.float().sum().backward()
    assert out.dtype == torch.bfloat16
    assert all(parameter.grad is not None for parameter in attached.parameters().values())
    assert all(tensor.dtype == torch.bfloat16 for tensor in net.twin.state_dict().values())


def test_dropout_works_in_training_mode_only() -> None:
    net = make_net().train()
    attached = attach(Model({"body": net}), SPOTS, lora(dropout=0.5), seed=0)
    shaken(attached)
    assert not torch.equal(net(picture()), net(picture()))
    net.eval()
    assert torch.equal(net(picture()), net(picture()))


@pytest.mark.parametrize(
    ("spots", "knobs", "says"),
    [
        ((), {}, "no layer to put an adapter on"),
        ((Spot("body", "x", "nowhere", "linear"),), {}, "'nowhere' is not in the running body"),
        ((Spot("body", "x", "convv", "conv"),), {}, "did you mean 'conv'"),
        ((Spot("soul", "x", "conv", "conv"),), {}, "no component is called 'soul'"),
        ((SPOTS[0], SPOTS[0]), {}, "named twice"),
        ((SPOTS[0], Spot("body", "alias", "conv", "conv")), {}, "named twice"),
        ((Spot("body", "x", "raw", "linear"),), {}, "is not in the running body"),
        ((Spot("body", "x", "twin", "linear"),), {}, "is a ModuleDict.*method full"),
        ((Spot("body", "x", "conv", "conv1x1"),), {}, "named as conv1x1"),
        ((Spot("body", "x", "linear", "conv"),), {}, "named as conv"),
        (SPOTS, {"conv_rank": None}, r"set method\.conv_rank"),
    ],
)
def test_wrong_targets_are_refused_and_change_nothing(
    spots: tuple[Spot, ...], knobs: dict[str, object], says: str
) -> None:
    net = make_net()
    with pytest.raises(AdapterError, match=f"(?i){says}"):
        attach(Model({"body": net}), spots, lora(**knobs), seed=0)
    assert_untouched(net)


def test_what_peft_leaves_out_is_found_and_everything_comes_off(monkeypatch: pytest.MonkeyPatch) -> None:
    real = attaching.inject_adapter_in_model

    def forgetful(config: LoraConfig, root: nn.Module, **options: object) -> object:
        config.target_modules = "conv|point"
        return real(config, root, **options)

    monkeypatch.setattr(attaching, "inject_adapter_in_model", forgetful)
    net = make_net()
    with pytest.raises(AdapterError, match="peft left out 'linear' of body"):
        attach(Model({"body": net}), SPOTS, lora(), seed=0)
    assert_untouched(net)


def test_a_frozen_factor_is_found_and_everything_comes_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(components: object, attached: Attached) -> None:
        raise AdapterError("not everything trains")

    monkeypatch.setattr(attaching, "check_exactly_trains", wrong)
    net = make_net()
    with pytest.raises(AdapterError, match="not everything"):
        attach(Model({"body": net}), SPOTS, lora(), seed=0)
    assert_untouched(net)


@pytest.mark.parametrize("name", ["", "a.b"])
def test_names_that_modules_cannot_have_are_refused(name: str) -> None:
    with pytest.raises(AdapterError, match="without dots"):
        attach(Model({"body": make_net()}), SPOTS, lora(), seed=0, name=name)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(4, 4, 3, dilation=2),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
        nn.ConvTranspose2d(4, 4, 3),
        nn.Embedding(4, 4),
    ],
)
def test_layers_whose_lora_would_not_merge_are_refused(layer: nn.Module) -> None:
    with pytest.raises(AdapterError, match="plain convolution"):
        attach(Model({"body": nn.ModuleDict({"x": layer})}), [Spot("body", "x", "x", "conv")], lora(), seed=0)


def test_dora_refuses_what_would_become_nan() -> None:
    net = make_net()
    with torch.no_grad():
        net.point.weight[0] = 0
    with pytest.raises(AdapterError, match=r"rows are all zero"):
        attach(Model({"body": net}), SPOTS, lora(name="dora"), seed=0)
    with pytest.raises(AdapterError, match="needs the base in float32"):
        attach(Model({"body": make_net(torch.bfloat16)}), SPOTS, lora(name="dora", dropout=0.1), seed=0)


def test_a_second_adapter_of_one_name_is_refused() -> None:
    net = make_net()
    attach_adapter({"body": net}, SPOTS, make_adapter(net), "one")
    with pytest.raises(AdapterError, match="already on"):
        attach_adapter({"body": net}, SPOTS, make_adapter(make_net()), "one")


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("weight", [1.0, 0.8, -0.5, 1.7, 0.0])
def test_given_factors_at_any_weight_equal_the_weighted_merge(dora: bool, weight: float) -> None:
    net = make_net()
    adapter = make_adapter(net, dora=dora)
    attached = attach_adapter({"body": net}, SPOTS, adapter, "given", weight)
    assert not any(parameter.requires_grad for parameter in attached.parameters().values())
    torch.testing.assert_close(net(picture()), merged(adapter, weight)(picture()), rtol=1e-4, atol=1e-5)
    if weight == 0:
        assert torch.equal(net(picture()), make_net()(picture()))
    back = attached.adapter()
    for layer, pair in adapter.layers.items():
        assert back.layers[layer].alpha == pair.alpha
        assert all(torch.equal(a, b) for a, b in zip(back.layers[layer].tensors, pair.tensors, strict=True))
    attached.detach()
    assert_untouched(net)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_several_adapters_add_up_and_come_off_in_any_order(order: tuple[int, ...]) -> None:
    net = make_net()
    adapters = [
        make_adapter(net),
        Adapter({("body", "old.point"): make_pair((4, 6, 1, 1), 1, 2.0, 7)}),
        Adapter({("body", "old.linear"): make_pair((5, 4), 5, 5.0, 8)}),
    ]
    weights = [0.7, 1.0, -0.4]
    attached = [
        attach_adapter({"body": net}, SPOTS, adapter, f"a{index}", weight)
        for index, (adapter, weight) in enumerate(zip(adapters, weights, strict=True))
    ]
    expected = make_net()
    for adapter, weight in zip(adapters, weights, strict=True):
        expected = merged(adapter, weight, expected)
    torch.testing.assert_close(net(picture()), expected(picture()), rtol=1e-5, atol=1e-5)
    left = set(range(3))
    for index in order:
        attached[index].detach()
        left.remove(index)
        expected = make_net()
        for other in left:
            expected = merged(adapters[other], weights[other], expected)
        torch.testing.assert_close(net(picture()), expected(picture()), rtol=1e-5, atol=1e-5)
    assert_untouched(net)


def test_an_adapter_for_generation_leaves_one_in_training_as_it_is() -> None:
    net = make_net()
    training = attach(Model({"body": net}), SPOTS, lora(), seed=0)
    other = attach_adapter({"body": net}, SPOTS, make_adapter(make_net()), "other")
    check_exactly_trains({"body": net}, training)
    other.detach()
    check_exactly_trains({"body": net}, training)
    net(picture()).sum().backward()
    assert all(parameter.grad is not None for parameter in training.parameters().values())


def test_components_have_their_own_weight() -> None:
    one, two = make_net(), make_net()
    spots = (*SPOTS, *(Spot("mind", spot.canonical, spot.live, spot.kind) for spot in SPOTS))
    both = Adapter({(c, name): pair for c in ("body", "mind") for (_, name), pair in make_adapter(one).layers.items()})
    attached = attach_adapter({"body": one, "mind": two}, spots, both, "both")
    attached.scale(0.0, "mind")
    assert torch.equal(two(picture()), make_net()(picture()))
    assert not torch.allclose(one(picture()), make_net()(picture()))
    attached.scale(1.0, "mind")
    assert torch.equal(one(picture()), two(picture()))


def test_a_lora_for_another_base_names_layer_and_sizes() -> None:
    net = make_net()
    wrong = Adapter({("body", "old.linear"): make_pair((5, 9), 2, 1.0, 0)})
    with pytest.raises(AdapterError, match=r"old\.linear .*\[5, 9\].*\[5, 4\]"):
        attach_adapter({"body": net}, SPOTS, wrong, "wrong")
    foreign = Adapter({("body", "new.linear"): make_pair((5, 4), 2, 1.0, 0)})
    with pytest.raises(AdapterError, match=r"1 of 1 layers .* new\.linear of body"):
        attach_adapter({"body": net}, SPOTS, foreign, "foreign")
    nan = Adapter({("body", "old.linear"): Pair(torch.full((2, 4), float("nan")), torch.zeros(5, 2), 1.0)})
    with pytest.raises(AdapterError, match="NaN"):
        attach_adapter({"body": net}, SPOTS, nan, "nan")
    assert_untouched(net)


def test_linear_factors_go_on_a_pointwise_convolution() -> None:
    net = make_net()
    flat = Adapter({("body", "old.point"): make_pair((4, 6), 2, 1.0, 0)})
    attach_adapter({"body": net}, [Spot("body", "old.point", "point", "linear")], flat, "flat")
    torch.testing.assert_close(net(picture()), merged(flat)(picture()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fusing_equals_the_merge_and_rounds_once(dora: bool, dtype: torch.dtype) -> None:
    net = make_net(dtype)
    adapter = make_adapter(make_net(), dora=dora)
    fuse({"body": net}, attach_adapter({"body": net}, SPOTS, adapter, "one"))
    assert str(net) == str(make_net())
    before = make_net(dtype)
    for (_, name), pair in adapter.layers.items():
        weight = before.get_submodule(LIVE[name]).weight.detach().float()
        expected = (weight + delta(pair, weight)).to(dtype)
        assert torch.equal(net.get_submodule(LIVE[name]).weight, expected)
