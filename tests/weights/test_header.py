"""Safetensors headers: whole files are described, everything else is refused with what it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tunesmith.errors import WeightsError
from tunesmith.weights.header import TENSOR_LIMIT, TensorInfo, header_hash, read_header

ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def written(path: Path, header: object, data: bytes = b"\0" * 8) -> Path:
    """A file with this header, however wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def test_a_file_of_the_library_is_described_as_it_is(tmp_path: Path) -> None:
    tensors = {"a.weight": torch.zeros(3, 4), "b": torch.zeros(5, dtype=torch.bfloat16), "n": torch.tensor(3)}
    save_file(tensors, tmp_path / "m.safetensors", {"format": "pt"})
    header = read_header(tmp_path / "m.safetensors")
    assert header.tensors == {
        "a.weight": TensorInfo("F32", (3, 4), 48),
        "b": TensorInfo("BF16", (5,), 10),
        "n": TensorInfo("I64", (), 8),
    }
    assert header.metadata == {"format": "pt"}
    assert header.parameters == 18
    assert header.size_bytes == 66
    assert header.data_start + header.size_bytes == (tmp_path / "m.safetensors").stat().st_size


def test_the_hash_sees_names_shapes_and_dtypes_and_nothing_else() -> None:
    one = {"a": TensorInfo("F32", (2, 3), 24), "b": TensorInfo("F32", (1,), 4)}
    assert header_hash(one) == header_hash(dict(reversed(one.items())))
    for other in (
        {**one, "b": TensorInfo("F32", (1, 1), 4)},
        {**one, "b": TensorInfo("I32", (1,), 4)},
        {"a": one["a"], "c": one["b"]},
    ):
        assert header_hash(other) != header_hash(one)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"abc", "only 3 bytes"),
        (b"<!DOCTYPE html><html>404</html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS pointer"),
        (b"PK\x03\x04" + b"\0" * 60, "zip archive"),
        (b"\x80\x02}q\x00(X\x01\x00\x00\x00a", "raw pickle"),
        (b"GGUF" + b"\0" * 60, "GGUF"),
        ((1 << 63).to_bytes(8, "little") + b"{}", "announces a header of"),
        ((99 << 20).to_bytes(8, "little") + b"{}", "announces a header of"),
        ((50).to_bytes(8, "little") + b"{}", "ends inside its header"),
    ],
)
def test_what_is_no_safetensors_file_is_named(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=says) as caught:
        read_header(path)
    assert str(path) in caught.value.message


@pytest.mark.parametrize(
    ("header", "data", "says"),
    [
        ({"a": ONE}, b"\0" * 4, "is cut short"),
        ({"a": ONE}, b"\0" * 9, "bytes after its last tensor"),
        ({"a": {**ONE, "data_offsets": [4, 12]}}, b"\0" * 12, "gap or an overlap"),
        ({"a": ONE, "b": {**ONE, "data_offsets": [4, 12]}}, b"\0" * 12, "gap or an overlap"),
        ({"a": {**ONE, "shape": [1 << 40, 1 << 40]}}, b"\0" * 8, "its shape needs"),
        ({"a": {**ONE, "shape": [-2]}}, b"\0" * 8, "whole numbers"),
        ({"a": {**ONE, "shape": [True, 2]}}, b"\0" * 8, "whole numbers"),
        ({"a": {**ONE, "data_offsets": [0, 8.0]}}, b"\0" * 8, "whole numbers"),
        ({"a": {**ONE, "dtype": "F12"}}, b"\0" * 8, "F12"),
        ({"a": {"dtype": "F32"}}, b"\0" * 8, "does not say"),
        ({"../../x": ONE}, b"\0" * 8, "called"),
        ({"a\u0000b": ONE}, b"\0" * 8, "called"),
        ({"__metadata__": {"a": 1}, "a": ONE}, b"\0" * 8, "metadata"),
        ([1], b"", "not a JSON object"),
        (b"{nonsense", b"", "not JSON"),
        (b"[" * 100_000, b"", "not JSON"),
        (b'{"a":' + json.dumps(ONE).encode() + b',"a":' + json.dumps(ONE).encode() + b"}", b"\0" * 8, "twice"),
    ],
)
def test_a_damaged_or_hostile_header_is_refused(tmp_path: Path, header: object, data: bytes, says: str) -> None:
    with pytest.raises(WeightsError, match=says):
        read_header(written(tmp_path / "m.safetensors", header, data))


def test_more_tensors_than_any_model_has_are_refused(tmp_path: Path) -> None:
    entry = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
    many = {str(index): entry for index in range(TENSOR_LIMIT + 1)}
    with pytest.raises(WeightsError, match="lists"):
        read_header(written(tmp_path / "m.safetensors", many, b""))


def test_empty_tensors_and_no_tensors_are_legal(tmp_path: Path) -> None:
    save_file({"e": torch.empty(0, 4), "a": torch.zeros(2)}, tmp_path / "m.safetensors")
    assert read_header(tmp_path / "m.safetensors").tensors["e"].shape == (0, 4)
    assert read_header(written(tmp_path / "n.safetensors", {}, b"")).tensors == {}


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: None])
def test_a_folder_or_a_missing_file_is_one_clear_error(tmp_path: Path, make: object) -> None:
    path = tmp_path / "m.safetensors"
    make(path)  # type: ignore[operator]
    with pytest.raises(WeightsError, match=r"m\.safetensors"):
        read_header(path)
