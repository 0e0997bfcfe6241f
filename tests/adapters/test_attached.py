"""An attached adapter: loading other factors, and the check of what trains."""

from __future__ import annotations

import pytest
import torch

from small_net import SPOTS, Model, lora, make_adapter, make_net, make_pair, picture
from tunesmith.adapters.adapter import Adapter
from tunesmith.adapters.attach import attach, attach_adapter
from tunesmith.adapters.attached import check_exactly_trains
from tunesmith.errors import AdapterError


@pytest.mark.parametrize("name", ["lora", "dora"])
def test_loading_takes_over_factors_and_alphas(name: str) -> None:
    source = attach(Model({"body": make_net()}), SPOTS, lora(name=name), seed=1)
    with torch.no_grad():
        for parameter in source.parameters().values():
            parameter.add_(0.1)
    net = make_net()
    attached = attach(Model({"body": net}), SPOTS, lora(name=name, alpha=2.0), seed=0)
    attached.load(source.adapter())
    expected = make_net()
    attach_adapter({"body": expected}, SPOTS, source.adapter(), "same")
    torch.testing.assert_close(net(picture()), expected(picture()), rtol=1e-6, atol=1e-6)
    assert attached.adapter().layers["body", "old.linear"].alpha == 1.0
    check_exactly_trains({"body": net}, attached)


def test_loading_what_does_not_fit_is_refused_and_changes_nothing() -> None:
    attached = attach(Model({"body": make_net()}), SPOTS, lora(), seed=0)
    before = attached.adapter().layers
    fitting = dict(before)
    cases = (
        ({**fitting, ("body", "more"): make_pair((4, 4), 2, 1.0, 0)}, "0 missing, 1 left over"),
        ({k: v for k, v in fitting.items() if k[1] != "old.conv"}, "1 missing, 0 left over"),
        ({**fitting, ("body", "old.linear"): make_pair((5, 4), 9, 1.0, 0)}, "has rank 2, the other adapter 9"),
        ({**fitting, ("body", "old.linear"): make_pair((5, 4), 2, 1.0, 0, dora=True)}, "with magnitude"),
        ({**fitting, ("body", "old.linear"): make_pair((5, 8), 2, 1.0, 0)}, "another base"),
    )
    for layers, says in cases:
        with pytest.raises(AdapterError, match=says):
            attached.load(Adapter(layers))
    for layer, pair in attached.adapter().layers.items():
        assert all(torch.equal(a, b) for a, b in zip(pair.tensors, before[layer].tensors, strict=True))


def test_the_copy_is_a_copy() -> None:
    attached = attach(Model({"body": make_net()}), SPOTS, lora(), seed=0)
    before = attached.adapter().layers["body", "old.linear"].down.clone()
    with torch.no_grad():
        attached.parameters()["body/old.linear.down"].add_(1)
    assert torch.equal(attached.adapter().layers["body", "old.linear"].down, before + 1)


@pytest.mark.parametrize("dora", [False, True])
def test_strengths_do_not_wear_the_factors(dora: bool) -> None:
    net = make_net()
    adapter = make_adapter(net, dora=dora)
    attached = attach_adapter({"body": net}, SPOTS, adapter, "one")
    full = net(picture())
    for strength in (0.3, 0.0, -1.2, 0.9, 0.0, 1.0):
        attached.scale(strength)
    assert torch.equal(net(picture()), full)


def test_other_parameters_that_train_are_found() -> None:
    net = make_net()
    attached = attach(Model({"body": net}), SPOTS, lora(), seed=0)
    net.raw.requires_grad_(True)
    with pytest.raises(AdapterError, match="raw of body would train"):
        check_exactly_trains({"body": net}, attached)
    net.raw.requires_grad_(False)
    attached.parameters()["body/old.linear.up"].requires_grad_(False)
    with pytest.raises(AdapterError, match=r"old\.linear\.up does not train"):
        check_exactly_trains({"body": net}, attached)
    with pytest.raises(AdapterError, match="not part of the model"):
        check_exactly_trains({}, attached)
