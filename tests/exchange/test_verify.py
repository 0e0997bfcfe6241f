"""Verification finds every way a file can differ from what went in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from small_adapters import pictures_adapter
from tiny_audio import write_folder
from tunesmith.adapters.adapter import Adapter, Pair
from tunesmith.adapters.files import write_adapter
from tunesmith.engines.index import engine_named
from tunesmith.engines.protocol import Base
from tunesmith.errors import ExchangeError
from tunesmith.exchange.parts import MergedPart, StoredPart
from tunesmith.exchange.verify import verify_adapter, verify_base
from tunesmith.recipe.schema import BaseSection
from tunesmith_test_engines.pictures import engine, write_pictures_base

STEM = "lora_unet_block_attention_to_q"


@pytest.fixture
def base(tmp_path: Path) -> Base:
    """An opened base."""
    return engine.open(BaseSection(path=str(write_pictures_base(tmp_path / "base.safetensors"))))


def changed(tensors: dict[str, torch.Tensor], how: str) -> dict[str, torch.Tensor]:
    """The file's tensors with one thing wrong."""
    up = tensors[f"{STEM}.lora_up.weight"]
    match how:
        case "one number":
            up[0, 0] += 1e-3
        case "alpha":
            tensors[f"{STEM}.alpha"] *= 2
        case "swapped":
            other = "lora_unet_block_attention_to_v"
            for end in ("lora_down.weight", "lora_up.weight", "alpha"):
                one, two = f"{STEM}.{end}", f"{other}.{end}"
                tensors[one], tensors[two] = tensors[two], tensors[one]
        case "missing":
            tensors = {name: value for name, value in tensors.items() if not name.startswith(f"{STEM}.")}
        case "unknown":
            tensors = {name.replace("to_q", "to_x"): value for name, value in tensors.items()}
        case "extra":
            tensors["lora_unet_more.weight"] = torch.zeros(1)
        case "mixed":
            tensors[f"{STEM}.lora_up.weight"] = up.half()
    return tensors


@pytest.mark.parametrize("how", ["one number", "alpha", "swapped", "missing", "unknown", "extra", "mixed"])
def test_a_changed_adapter_is_found(tmp_path: Path, base: Base, how: str) -> None:
    adapter, path = pictures_adapter(base), tmp_path / "a.safetensors"
    write_adapter(path, adapter, engine.layouts, base, "kohya", "fp32", {})
    assert verify_adapter(path, engine, base=base, adapter=adapter).matched == len(adapter.layers)
    save_file(changed(load_file(path), how), path)
    with pytest.raises(ExchangeError, match=r"a\.safetensors"):
        verify_adapter(path, engine, base=base, adapter=adapter)


def sounds_adapter(base: Base, *, dora: bool) -> Adapter:
    """Layers of queries, keys, values and others with factors of their own, as a training leaves them."""
    from tunesmith.engines.stable_audio.layouts import adapter_layers
    from tunesmith.engines.stable_audio.shapes import tensor_shapes

    shapes = tensor_shapes("denoiser", base.architecture["denoiser"])
    layers = {}
    for at, layer in enumerate(adapter_layers(base.architecture["denoiser"])):
        high, low = shapes[f"{layer}.weight"]
        draw = torch.Generator().manual_seed(at)
        up = 1e-4 * torch.randn(high, 2, generator=draw) * (at % 5 > 0)  # some have learnt nothing yet
        magnitude = torch.rand(high, generator=draw) + 0.5 if dora else None
        layers["denoiser", layer] = Pair(torch.randn(2, low, generator=draw) / low**0.5, up, 3.0, magnitude)
    return Adapter(layers)


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize(("layout", "dora"), [("comfy", False), ("comfy", True), ("kohya", False), ("diffusers", True)])
def test_fused_layers_are_compared_by_what_they_change(tmp_path: Path, layout: str, dora: bool, dtype: str) -> None:
    """Read back, each of three fused layers has the factors of all three."""
    sounds = engine_named("stable_audio")
    base = sounds.open(BaseSection(path=str(write_folder(tmp_path / "base"))))
    adapter, path = sounds_adapter(base, dora=dora), tmp_path / "a.safetensors"
    write_adapter(path, adapter, sounds.layouts, base, layout, dtype, {})
    assert verify_adapter(path, sounds, base=base, adapter=adapter).matched == len(adapter.layers)
    tensors = load_file(path)
    for end in ("down", "up", "lora_A", "lora_B"):
        names = [name for name in tensors if f".{end}." in name or f"lora_{end}." in name]
        for name in names[1:2]:  # one of the fused ones
            wrong = {**tensors, name: tensors[name].clone()}
            wrong[name].flatten()[tensors[name].abs().argmax()] *= 1.1
            save_file(wrong, path)
            with pytest.raises(ExchangeError, match=r"a\.safetensors changed by"):
                verify_adapter(path, sounds, base=base, adapter=adapter)


@pytest.mark.parametrize("how", ["number", "missing", "extra"])
def test_a_changed_base_is_found(tmp_path: Path, base: Base, how: str) -> None:
    expected = {role: StoredPart(engine, base, role) for role in base.parts}
    path = engine.write_base(base, {}, tmp_path / "copy.safetensors", "single_file", "fp32")
    assert verify_base(path, engine, expected=expected, dtype="fp32").matched == sum(map(len, expected.values()))
    wanted = {role: dict(part) for role, part in expected.items()}
    name = "block.conv.weight"
    match how:
        case "number":
            wanted["denoiser"][name] = wanted["denoiser"][name] + torch.eye(3) * 1e-6
        case "missing":
            wanted["denoiser"]["more"] = torch.zeros(1)
        case "extra":
            del wanted["denoiser"][name]
    with pytest.raises(ExchangeError, match=r"copy\.safetensors"):
        verify_base(path, engine, expected=wanted, dtype="fp32")


def test_a_base_that_does_not_open_again_is_reported(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"no")
    with pytest.raises(ExchangeError, match="does not open again"):
        verify_base(tmp_path / "x.safetensors", engine, expected={}, dtype="fp32")


@dataclass(frozen=True)
class Counting:
    """The engine, counting the tensors it reads."""

    reads: list[str]

    def tensors(self, base: Base, role: str) -> Iterator[tuple[str, torch.Tensor]]:
        """The engine's own."""
        for name, tensor in engine.tensors(base, role):
            self.reads.append(name)
            yield name, tensor


@pytest.mark.parametrize("order", [sorted, lambda names: sorted(names, reverse=True)])
def test_a_part_is_read_once_for_each_use(base: Base, order: Callable[[Iterable[str]], list[str]]) -> None:
    reads: list[str] = []
    part = StoredPart(Counting(reads), base, "denoiser")  # type: ignore[arg-type]
    merged = MergedPart(part, {}, torch.float32)
    for use in range(1, 3):
        for name in order(merged):
            assert name in merged
            assert merged[name].dtype == torch.float32
        assert len(reads) <= (1 + use) * len(part)


def test_stored_parts_are_read_in_any_order(base: Base) -> None:
    part, given = StoredPart(engine, base, "denoiser"), dict(engine.tensors(base, "denoiser"))
    names = list(given)
    for name in (*names, *reversed(names), names[3], names[3]):
        assert torch.equal(part[name], given[name])
    with pytest.raises(KeyError):
        part["nothing"]
