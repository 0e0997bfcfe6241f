"""Random damage: either one clear error, or a reading that the library agrees with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save

from tunesmith.errors import WeightsError
from tunesmith.weights.files import open_tensors
from tunesmith.weights.header import read_header

WHOLE = save({"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4).half()}, {"format": "pt"})
CHANGES = st.lists(st.tuples(st.integers(0, 220), st.integers(0, 255)), min_size=1, max_size=4)


def one_line(error: WeightsError) -> None:
    """What a person sees is one line."""
    assert "\n" not in error.message


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=CHANGES, cut=st.integers(0, len(WHOLE) + 8))
def test_safetensors(tmp_path: Path, changes: list[tuple[int, int]], cut: int) -> None:
    content = bytearray(WHOLE + b"\0" * 8)[: cut if cut < len(WHOLE) - 20 else len(WHOLE)]
    for place, value in changes:
        if place < len(content):
            content[place] = value
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    try:
        header = read_header(path)
    except WeightsError as error:
        one_line(error)
        return
    with safe_open(path, framework="pt") as file:
        assert set(file.keys()) == set(header.tensors)
    with open_tensors(path) as ours:
        for name, info in header.tensors.items():
            assert tuple(ours.read(name).shape) == info.shape


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A checkpoint of two tensors."""
    path = tmp_path_factory.mktemp("whole") / "m.ckpt"
    torch.save({"state_dict": {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4).half()}}, path)
    return path.read_bytes()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), min_size=1, max_size=6))
def test_checkpoints(tmp_path: Path, checkpoint: bytes, changes: list[tuple[int, int]]) -> None:
    content = bytearray(checkpoint)
    for place, value in changes:
        content[place % len(content)] = value
    path = tmp_path / "m.ckpt"
    path.write_bytes(content)
    try:
        with open_tensors(path) as file:
            for name in file.names:
                assert tuple(file.read(name).shape) == file.info(name).shape
    except WeightsError as error:
        one_line(error)
