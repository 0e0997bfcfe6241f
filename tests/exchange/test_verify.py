"""Verification finds every way a file can differ from what went in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from small_adapters import pictures_adapter
from tunesmith.adapters.files import write_adapter
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
