"""Device, precision and threads: chosen, explained, recorded."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tunesmith.errors import DeviceError
from tunesmith.recipe.schema import MethodSection, ResourceSection
from tunesmith.training import device as device_module
from tunesmith.training.device import (
    choose_device,
    choose_precision,
    cpu_features,
    cpu_model,
    environment_notes,
    environment_record,
    set_threads,
)

CPU = torch.device("cpu")
CPUINFO = """processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Some CPU @ 3 GHz
flags\t\t: fpu avx2 fma avx512f amx_bf16 avx512_bf16 sse
processor\t: 1
flags\t\t: fpu
"""


def with_devices(monkeypatch: pytest.MonkeyPatch, cuda: int = 0, mps: bool = False, bf16: bool = True) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16)
    monkeypatch.setattr(
        torch.backends, "mps", SimpleNamespace(is_available=lambda: mps, is_macos_or_newer=lambda *_: bf16)
    )


@pytest.mark.parametrize(
    ("cuda", "mps", "asked", "chosen"),
    [
        (2, False, "auto", "cuda"),
        (0, True, "auto", "mps"),
        (0, False, "auto", "cpu"),
        (2, False, "cpu", "cpu"),
        (2, False, "cuda:1", "cuda:1"),
        (0, True, "mps", "mps"),
    ],
)
def test_devices(monkeypatch: pytest.MonkeyPatch, cuda: int, mps: bool, asked: str, chosen: str) -> None:
    with_devices(monkeypatch, cuda, mps)
    assert str(choose_device(ResourceSection(device=asked))) == chosen


@pytest.mark.parametrize(
    ("cuda", "asked", "match"),
    [
        (0, "cuda", "Set resources.device=auto or cpu"),
        (2, "cuda:2", "no cuda:2. Expected cuda:0 to cuda:1"),
        (0, "mps", "no Mac"),
        (0, "gpu", "auto, cpu, cuda, cuda:1 or mps"),
        (0, "cuda:x", "auto, cpu, cuda, cuda:1 or mps"),
    ],
)
def test_a_missing_device_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, cuda: int, asked: str, match: str) -> None:
    with_devices(monkeypatch, cuda)
    with pytest.raises(DeviceError, match=match):
        choose_device(ResourceSection(device=asked))


@pytest.mark.parametrize(
    ("asked", "kind", "hardware", "dtype", "scaler", "words"),
    [
        ("auto", "cpu", True, torch.bfloat16, False, "because the CPU computes in it"),
        ("auto", "cpu", False, torch.float32, False, "does not compute in bf16"),
        ("auto", "cuda", True, torch.bfloat16, False, "because cuda computes in it"),
        ("auto", "cuda", False, torch.float32, False, "does not compute in bf16"),
        ("auto", "mps", True, torch.bfloat16, False, "because mps"),
        ("fp32", "cpu", True, torch.float32, False, "as asked for"),
        ("bf16", "cpu", False, torch.bfloat16, False, "only emulates it"),
        ("bf16", "cpu", True, torch.bfloat16, False, "as asked for; the adapter stays fp32"),
        ("fp16", "cuda", True, torch.float16, True, "gradient scaling"),
    ],
)
def test_precision(
    monkeypatch: pytest.MonkeyPatch, asked: str, kind: str, hardware: bool, dtype: Any, scaler: bool, words: str
) -> None:
    with_devices(monkeypatch, 1, True, hardware)
    features = ("AVX512", "avx512_bf16") if hardware else ("AVX2",)
    monkeypatch.setattr(device_module, "cpu_features", lambda: features)
    chosen = choose_precision(ResourceSection(precision=asked), torch.device(kind), MethodSection())
    assert (chosen.dtype, chosen.scaler) == (dtype, scaler)
    assert chosen.autocast == (None if dtype == torch.float32 else dtype)
    assert words in chosen.reason
    assert chosen.name == {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]


def test_whole_components_keep_their_weights_wide() -> None:
    chosen = choose_precision(ResourceSection(precision="bf16"), CPU, MethodSection(name="full"))
    assert "what trains stays fp32" in chosen.reason


@pytest.mark.parametrize("kind", ["cpu", "mps"])
def test_fp16_needs_cuda(kind: str) -> None:
    with pytest.raises(DeviceError, match=f"fp16 does not train on {kind}"):
        choose_precision(ResourceSection(precision="fp16"), torch.device(kind), MethodSection())


def test_cpu_features_come_from_the_kernel(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(CPUINFO)
    level = torch.backends.cpu.get_cpu_capability()
    assert cpu_features(file) == (level, "avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16")
    assert cpu_model(file) == "Some CPU @ 3 GHz"
    assert cpu_features(tmp_path / "none") == (level,)
    file.write_text("Features\t: asimd bf16\n")
    assert cpu_features(file) == (level, "asimd", "bf16")


def test_threads_and_deterministic_kernels() -> None:
    before = torch.get_num_threads()
    try:
        assert set_threads(2, CPU) == 2 == torch.get_num_threads()
        assert torch.are_deterministic_algorithms_enabled()
        assert set_threads(None, CPU) == 2
    finally:
        torch.set_num_threads(before)


def test_the_record_names_what_bits_depend_on() -> None:
    precision = choose_precision(ResourceSection(precision="fp32"), CPU, MethodSection())
    record = environment_record(CPU, precision)
    assert record.keys() == {"device", "precision", "threads", "torch", "cpu", "cpu_features"}
    assert environment_notes(record, record) == ()
    notes = environment_notes(record, {**record, "device": "cuda", "gpu": "X"})
    assert notes == ("not bit-exact: device was cpu and is cuda", "not bit-exact: gpu was None and is X")
