"""A session attaches adapters by name and weight, and leaves the base as it found it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from tunesmith.adapters.adapter import Adapter, Pair, delta
from tunesmith.engines.protocol import Base, Media
from tunesmith.errors import AdapterError
from tunesmith.generation.session import Attachment, Session, adapter_targets, open_session
from tunesmith.numeric.rng import generator
from tunesmith.recipe.schema import BaseSection
from tunesmith_test_engines.pictures import PicturesRequest, write_pictures_base
from tunesmith_test_engines.pictures import engine as pictures

CPU = torch.device("cpu")
LAYERS = {
    ("denoiser", "block.attention.to_q"): ((16,), (16,)),
    ("denoiser", "block.proj"): ((16, 1, 1), (16,)),
    ("denoiser", "block.conv"): ((16, 3, 3), (16,)),
    ("text_encoder", "text_model.layers.0.fc1"): ((16,), (32,)),
}


def _adapter(seed: int = 0) -> Adapter:
    layers = {}
    for (component, name), (inner, outer) in LAYERS.items():
        random = generator(seed, 0, f"{component}/{name}")
        ones = (1,) * (len(inner) - 1)
        down, up = torch.randn(2, *inner, generator=random), torch.randn(*outer, 2, *ones, generator=random)
        layers[component, name] = Pair(down * 0.3, up * 0.3, 2.0)
    return Adapter(layers, {})


@pytest.fixture
def base(tmp_path: Path) -> Base:
    return pictures.open(BaseSection(path=str(write_pictures_base(tmp_path / "base.safetensors"))))


def _open(base: Base, *attachments: Attachment) -> Session:
    return open_session(pictures, base, device=CPU, dtype=torch.float32, attachments=attachments)


def _draw(session: Session, **changed: Any) -> Media:
    *_, media = session.generate(PicturesRequest(**{"prompt": "a red square", "seed": 3, "steps": 3, **changed}))
    assert isinstance(media, Media)
    return media


def _pixels(media: Media) -> numpy.ndarray:
    return numpy.asarray(media.data).astype(int)


def test_an_attached_adapter_equals_merged_weights(base: Base, tmp_path: Path) -> None:
    """The reference adds weight * delta to the base's own tensors and samples without any adapter."""
    adapter = _adapter()
    merged: dict[str, dict[str, torch.Tensor]] = {}
    for component in ("denoiser", "text_encoder"):
        merged[component] = dict(pictures.tensors(base, component))
        for (owner, name), pair in adapter.layers.items():
            if owner == component:
                key = f"{name}.weight"
                merged[component][key] = merged[component][key] + 0.7 * delta(pair).view_as(merged[component][key])
    path = pictures.write_base(base, merged, tmp_path / "merged.safetensors", "single_file", "fp32")
    expected = _draw(_open(pictures.open(BaseSection(path=str(path)))))
    drawn = _draw(_open(base, Attachment(adapter, 0.7, "peter v1.2")))
    assert abs(_pixels(drawn) - _pixels(expected)).max() <= 1  # float32 rounding may tip one 8-bit level
    assert abs(_pixels(drawn) - _pixels(_draw(_open(base)))).max() > 5
    assert drawn.parameters["checkpoints"] == [{"name": "peter v1.2", "weight": 0.7}]


def test_weights_change_for_a_block_and_for_good(base: Base) -> None:
    bare = _pixels(_draw(_open(base)))
    session = _open(base, Attachment(_adapter(0), 1.0, "one"), Attachment(_adapter(1), 0.5, "two"))
    both = _draw(session)
    assert [used["name"] for used in both.parameters["checkpoints"]] == ["one", "two"]
    with session.without():
        without = _draw(session)
        assert without.parameters["checkpoints"] == []
        assert numpy.array_equal(_pixels(without), bare)
    assert numpy.array_equal(_pixels(_draw(session)), _pixels(both))
    with session.with_weights({"two": 0.0}):
        only_one = _pixels(_draw(session))
    assert numpy.array_equal(only_one, _pixels(_draw(_open(base, Attachment(_adapter(0), 1.0, "one")))))
    session.set_weights({"one": 0.0, "two": 0.0})
    assert numpy.array_equal(_pixels(_draw(session)), bare)


def test_closing_restores_the_base_bit_for_bit(base: Base) -> None:
    fresh = _open(base)
    session = _open(base, Attachment(_adapter(0), 1.0, "one"), Attachment(_adapter(1), 1.0, "two"))
    session.close()
    for name, module in session.sampler.components.items():
        expected = fresh.sampler.components[name].state_dict()
        assert module.state_dict().keys() == expected.keys()
        assert all(torch.equal(tensor, expected[key]) for key, tensor in module.state_dict().items())


def test_names_are_checked(base: Base) -> None:
    with pytest.raises(AdapterError, match="two checkpoints are called 'one'"):
        _open(base, Attachment(_adapter(), 1.0, "one"), Attachment(_adapter(), 1.0, "one"))
    session = _open(base, Attachment(_adapter(), 1.0, "one"))
    with pytest.raises(AdapterError, match=r"'other'.*one of one"):
        session.set_weights({"one": 0.0, "other": 1.0})
    assert session.weights == {"one": 1.0}, "a refused change changes nothing"


def test_a_failed_attachment_leaves_nothing_on(base: Base) -> None:
    model_free = _open(base)
    other = Adapter({("denoiser", "block.missing"): Pair(torch.ones(1, 16), torch.ones(16, 1), 1.0)}, {})
    good = Attachment(_adapter(), 1.0, "good")
    sampler = model_free.sampler

    class Shared:
        """The engine, handing out one sampler, so that what stays attached would be seen."""

        layouts, facts = pictures.layouts, pictures.facts

        def load_sampler(self, *_: Any) -> Any:
            return sampler

    before = {name: list(module.state_dict()) for name, module in sampler.components.items()}
    with pytest.raises(AdapterError):
        open_session(Shared(), base, device=CPU, dtype=torch.float32, attachments=[good, Attachment(other, 1.0, "bad")])
    assert {name: list(module.state_dict()) for name, module in sampler.components.items()} == before


def test_generation_stops_when_told(base: Base) -> None:
    session = _open(base)
    events = list(session.generate(PicturesRequest(steps=50), lambda: True))
    assert not any(isinstance(event, Media) for event in events)


def test_targets_follow_shapes_and_live_names() -> None:
    targets = {target.canonical: target for target in adapter_targets(_adapter(), pictures.layouts)}
    kinds = {name: target.kind for name, target in targets.items()}
    assert kinds == {
        "block.attention.to_q": "linear",
        "block.proj": "conv1x1",
        "block.conv": "conv",
        "text_model.layers.0.fc1": "linear",
    }
    assert targets["text_model.layers.0.fc1"].live == "layers.0.fc1"
