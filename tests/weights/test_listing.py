"""Whatever holds weights is listed; ambiguous and broken sets are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tunesmith.errors import WeightsError
from tunesmith.weights.listing import list_tensors


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file({"a": torch.zeros(2)}, tmp_path / "one.safetensors", {"x": "1"})
    save_file({"b": torch.zeros(3)}, tmp_path / "two.safetensors")
    return tmp_path


def test_files_folders_indices_and_checkpoints(folder: Path) -> None:
    assert set(list_tensors(folder / "one.safetensors").tensors) == {"a"}
    assert set(list_tensors(folder).tensors) == {"a", "b"}
    assert list_tensors(folder).metadata == {"x": "1"}
    torch.save({"c": torch.zeros(4)}, folder / "three.ckpt")
    assert list_tensors(folder / "three.ckpt").tensors["c"].shape == (4,)
    index = folder / "m.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"b": "two.safetensors"}}))
    assert set(list_tensors(index).tensors) == {"b"}
    assert set(list_tensors(folder).tensors) == {"b"}


def test_a_smaller_variant_beside_the_model_is_left_out(folder: Path) -> None:
    save_file({"a": torch.zeros(2).half()}, folder / "one.fp16.safetensors")
    assert list_tensors(folder).tensors["a"].dtype == "F32"


def test_two_files_with_one_name_are_ambiguous(folder: Path) -> None:
    save_file({"a": torch.zeros(2)}, folder / "three.safetensors")
    with pytest.raises(WeightsError, match="both hold 'a'"):
        list_tensors(folder)


@pytest.mark.parametrize(
    ("index", "says"),
    [
        ({"weight_map": {"a": "../one.safetensors"}}, "points to"),
        ({"weight_map": {"a": "..\\one.safetensors"}}, "points to"),
        ({"weight_map": {"a": "/etc/passwd"}}, "points to"),
        ({"weight_map": {"a": 3}}, "points to"),
        ({"weight_map": {"zz": "one.safetensors"}}, "lacks 'zz'"),
        ({"weight_map": {"a": "gone.safetensors"}}, "does not exist"),
        ({"weight_map": {}}, "no weight_map"),
        ([], "no weight_map"),
    ],
)
def test_a_wrong_index_is_refused(folder: Path, index: object, says: str) -> None:
    path = folder / "m.safetensors.index.json"
    path.write_text(json.dumps(index))
    with pytest.raises(WeightsError, match=says):
        list_tensors(path)


def test_an_index_that_is_no_json_and_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors.index.json").write_text("{")
    with pytest.raises(WeightsError, match="not JSON"):
        list_tensors(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match=r"no \*\.safetensors"):
        list_tensors(tmp_path / "empty")
    with pytest.raises(WeightsError, match="cannot be read"):
        list_tensors(tmp_path / "gone.safetensors.index.json")
