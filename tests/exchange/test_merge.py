"""A merged checkpoint is the base plus what the adapters add, checked by running both."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from small_adapters import pictures_adapter
from tunesmith.adapters.adapter import Adapter, delta
from tunesmith.adapters.attach import attach_adapter, fuse
from tunesmith.engines.protocol import Base
from tunesmith.errors import AdapterError, ExchangeError
from tunesmith.exchange.merge import merge_adapters
from tunesmith.generation.session import adapter_targets
from tunesmith.recipe.schema import BaseSection
from tunesmith_test_engines.pictures import engine, write_pictures_base


@pytest.fixture
def base(tmp_path: Path) -> Base:
    """An opened base."""
    return engine.open(BaseSection(path=str(write_pictures_base(tmp_path / "base.safetensors"))))


@pytest.mark.parametrize("layout", ["single_file", "folder"])
@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_the_merge_equals_fusing_into_the_running_modules(
    tmp_path: Path, base: Base, layout: str, dora: bool, dtype: str
) -> None:
    adapter = pictures_adapter(base, dora=dora)
    path = merge_adapters(
        engine, base, adapters=[(adapter, 1.0)], path=tmp_path / "merged.safetensors", layout=layout, dtype=dtype
    )
    merged = engine.open(BaseSection(path=str(path)))
    sampler = engine.load_sampler(base, torch.device("cpu"), torch.float32)
    attached = attach_adapter(sampler.components, adapter_targets(adapter, engine.layouts), adapter, "one")
    fuse(sampler.components, attached)
    wide = {"fp32": torch.float32, "fp16": torch.float16}[dtype]
    for component, module in sampler.components.items():
        live = module.state_dict()
        for name, tensor in engine.tensors(merged, component):
            assert torch.equal(tensor, live[engine.layouts.live_name(component, name)].to(wide))
    untouched = dict(engine.tensors(base, "autoencoder"))
    for name, tensor in engine.tensors(merged, "autoencoder"):
        assert torch.equal(tensor, untouched[name].to(wide))


def test_several_adapters_add_up_at_their_weights(tmp_path: Path, base: Base) -> None:
    whole = pictures_adapter(base)
    part = Adapter(dict(list(whole.layers.items())[:2]))
    path = merge_adapters(
        engine, base, adapters=[(whole, 0.8), (part, -0.5)], path=tmp_path / "m.safetensors", layout="single_file",
        dtype="fp32",
    )  # fmt: skip
    merged = engine.open(BaseSection(path=str(path)))
    for component in whole.components:
        back = dict(engine.tensors(merged, component))
        for name, weight in engine.tensors(base, component):
            layer = (component, name.removesuffix(".weight"))
            expected = weight.double()
            for adapter, strength in ((whole, 0.8), (part, -0.5)):
                if layer in adapter.layers and name.endswith(".weight"):
                    expected = expected + strength * delta(adapter.layers[layer]).double().reshape(weight.shape)
            torch.testing.assert_close(back[name].double(), expected, rtol=1e-6, atol=1e-7)


def test_what_does_not_fit_is_refused_and_leaves_nothing(tmp_path: Path, base: Base) -> None:
    out = tmp_path / "out"
    out.mkdir()
    adapter = pictures_adapter(base)
    other = engine.open(BaseSection(path=str(write_pictures_base(tmp_path / "small.safetensors", "tinier"))))
    target = out / "m.safetensors"
    with pytest.raises(AdapterError, match="another base"):
        merge_adapters(engine, other, adapters=[(adapter, 1.0)], path=target, layout="single_file", dtype="fp32")
    foreign = Adapter({("denoiser", "nowhere"): next(iter(adapter.layers.values()))})
    with pytest.raises(AdapterError, match="no layer nowhere"):
        merge_adapters(engine, base, adapters=[(foreign, 1.0)], path=target, layout="single_file", dtype="fp32")
    with pytest.raises(ExchangeError, match="nothing to merge"):
        merge_adapters(engine, base, adapters=[], path=target, layout="single_file", dtype="fp32")
    with pytest.raises(ExchangeError, match="writes no base as kohya"):
        merge_adapters(engine, base, adapters=[(adapter, 1.0)], path=target, layout="kohya", dtype="fp32")
    assert list(out.iterdir()) == []
