"""Tensors one by one, and files that equal the library's byte for byte."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save, save_file

from tunesmith.errors import DiskFull, WeightsError
from tunesmith.weights import atomic
from tunesmith.weights.files import TORCH_DTYPES, edit_metadata, open_tensors, tensor_info, write_safetensors
from tunesmith.weights.hashes import tensor_hash
from tunesmith.weights.header import DTYPE_BYTES, read_header

TENSORS = {
    "b.weight": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),
    "a.weight": torch.arange(5, dtype=torch.float16),
    "z": torch.tensor(2.0, dtype=torch.bfloat16),
    "ids": torch.arange(6).reshape(2, 3),
    "turned": torch.arange(12, dtype=torch.float32).reshape(3, 4).T,
    "none": torch.empty(0, 3),
    "flags": torch.tensor([True, False, True]),
    "bytes": torch.arange(3, dtype=torch.uint8),
}


@pytest.mark.parametrize("how", [dict, lambda tensors: iter(tensors.items())], ids=["mapping", "stream"])
def test_written_files_equal_the_library_byte_for_byte(tmp_path: Path, how: object) -> None:
    path = tmp_path / "m.safetensors"
    write_safetensors(path, how(TENSORS), {"format": "pt"})  # type: ignore[operator]
    assert path.read_bytes() == save({n: t.contiguous() for n, t in TENSORS.items()}, {"format": "pt"})
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.safetensors"]


def test_equal_input_gives_equal_bytes_whatever_its_order(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "one", TENSORS, {"b": "1", "a": "2"})
    write_safetensors(tmp_path / "two", dict(reversed(TENSORS.items())), {"a": "2", "b": "1"})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_safetensors_are_read_back_exactly(tmp_path: Path) -> None:
    save_file({n: t.contiguous() for n, t in TENSORS.items()}, tmp_path / "m.safetensors", {"who": "me"})
    with open_tensors(tmp_path / "m.safetensors") as file:
        assert set(file.names) == set(TENSORS)
        assert file.metadata == {"who": "me"}
        for name, tensor in TENSORS.items():
            assert file.info(name) == tensor_info(tensor)
            assert torch.equal(file.read(name), tensor)
        with pytest.raises(WeightsError, match="no tensor called 'x'"):
            file.read("x")


def sharded(folder: Path) -> Path:
    """Two shards and their index, as large models come."""
    folder.mkdir()
    save_file({"a": torch.zeros(2)}, folder / "m-1.safetensors")
    save_file({"b": torch.ones(3), "unused": torch.ones(1)}, folder / "m-2.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}))
    return index


def test_shards_are_read_through_their_index_or_their_folder(tmp_path: Path) -> None:
    index = sharded(tmp_path / "model")
    for path in (index, index.parent):
        with open_tensors(path) as file:
            assert file.names == ("a", "b")
            assert torch.equal(file.read("b"), torch.ones(3))


def test_a_full_disk_leaves_the_old_file_and_no_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.safetensors"
    write_safetensors(path, TENSORS)
    before = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic.os, "fsync", full)
    for tensors in (TENSORS, iter(TENSORS.items())):
        with pytest.raises(DiskFull):
            write_safetensors(path, tensors)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_stream_that_breaks_off_or_repeats_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[tuple[str, torch.Tensor]]:
        yield "a", torch.zeros(3)
        raise WeightsError("the source ended")

    with pytest.raises(WeightsError, match="ended"):
        write_safetensors(tmp_path / "m.safetensors", broken())
    with pytest.raises(WeightsError, match="twice"):
        write_safetensors(tmp_path / "m.safetensors", iter([("a", torch.zeros(1)), ("a", torch.zeros(1))]))
    with pytest.raises(WeightsError, match="complex128"):
        write_safetensors(tmp_path / "m.safetensors", {"a": torch.zeros(1, dtype=torch.complex128)})
    assert list(tmp_path.iterdir()) == []


def test_an_edit_of_the_metadata_keeps_every_tensor(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    write_safetensors(path, TENSORS, {"title": "one"})
    before = tensor_hash(path)
    edit_metadata(path, {"title": "a much longer title than before", "Käfer": "ja"})
    assert read_header(path).metadata == {"title": "a much longer title than before", "Käfer": "ja"}
    assert tensor_hash(path) == before
    back = load_file(path)
    assert all(torch.equal(back[name], tensor) for name, tensor in TENSORS.items())


def test_every_dtype_of_the_header_has_its_torch_dtype() -> None:
    assert set(TORCH_DTYPES) == set(DTYPE_BYTES)
    assert all(TORCH_DTYPES[name].itemsize == size for name, size in DTYPE_BYTES.items())


def test_streaming_holds_one_tensor_at_a_time(tmp_path: Path) -> None:
    alive: list[int] = []

    def stream() -> Iterator[tuple[str, torch.Tensor]]:
        import weakref

        watched: list[weakref.ref[torch.Tensor]] = []
        for index in range(6):
            tensor = torch.full((1000,), float(index))
            watched.append(weakref.ref(tensor))
            yield f"t{index}", tensor
            del tensor
            alive.append(sum(ref() is not None for ref in watched))

    write_safetensors(tmp_path / "m.safetensors", stream())
    assert max(alive) <= 1
