"""What a base's name means: paths, starters, hub ids that stay offline; and what folders hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.errors import WeightsError
from tunesmith.weights.locate import locate_base, near_names, read_json, weights_in


def located(name: str, **options: bool) -> Path:
    return locate_base(name, engine="no_engine", allow_download=options.get("allow_download", False), reads="a file")


def test_paths_are_taken_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").touch()
    assert located(str(tmp_path / "a.safetensors")) == tmp_path / "a.safetensors"
    assert located(str(tmp_path)) == tmp_path


def test_a_misspelt_path_gets_near_names(tmp_path: Path) -> None:
    (tmp_path / "v1-5-pruned.safetensors").touch()
    with pytest.raises(WeightsError, match=r"Did you mean v1-5-pruned\.safetensors"):
        located(str(tmp_path / "v1-5-prned.safetensors"))
    assert "does not exist either" in near_names(tmp_path / "nowhere" / "a.ckpt")
    assert "has no such file" in near_names(tmp_path / "zzz")


def test_a_hub_id_is_not_fetched_unasked() -> None:
    with pytest.raises(WeightsError, match="no copy of that hub id") as caught:
        located("someone/some-model")
    assert "base.allow_download=true" in caught.value.do


def test_a_hub_id_may_have_a_dot() -> None:
    with pytest.raises(WeightsError, match="no copy of that hub id"):
        located("someone/stable-model-1.0")
    with pytest.raises(WeightsError, match="does not exist"):
        located("folder/model.safetensors")


def test_a_starter_that_does_not_ship() -> None:
    with pytest.raises(WeightsError, match="no starter base of no_engine"):
        located("starter")


def test_weights_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds no weights"):
        weights_in(tmp_path)
    (tmp_path / "pytorch_model.bin").touch()
    assert weights_in(tmp_path) == tmp_path / "pytorch_model.bin"
    (tmp_path / "model.safetensors").touch()
    assert weights_in(tmp_path) == tmp_path


@pytest.mark.parametrize(("text", "says"), [("[1]", "is not a mapping"), ("{", "cannot be read")])
def test_json_that_is_none(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(WeightsError, match=says):
        read_json(tmp_path / "a.json")
