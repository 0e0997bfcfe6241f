"""A starter built from nothing with a two-thousandth of data and steps: the machinery, not the quality."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunesmith.engines.index import engine_named
from tunesmith.errors import DataError, RecipeError, Stopped
from tunesmith.jobs.control import request
from tunesmith.jobs.folder import JobFolder, list_jobs
from tunesmith.jobs.work import work
from tunesmith.recipe.schema import BaseSection
from tunesmith.starters.build import build_starter
from tunesmith.weights.starter import CARD, starter_folder

SHARE = 0.0005
LARGEST_BYTES = 20_000_000


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("starter")
    return build_starter("stable_diffusion", folder / "work", folder / "made", share=SHARE)


def test_the_folder_is_a_whole_base_within_its_size(built: Path) -> None:
    base = engine_named("stable_diffusion").open(BaseSection(path=str(built)))
    assert base.parts["tokenizer"].path == built / "tokenizer"
    assert all(part.path is not None for part in base.parts.values())
    everything = [path for path in built.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in everything) <= LARGEST_BYTES
    card = json.loads((built / CARD).read_text())
    assert card["weights_bytes"] <= LARGEST_BYTES
    assert set(card["figures"]) >= {"psnr_db", "psnr_character_db", "right", "together"}
    assert [stage["steps"] for stage in card["stages"]] == [4, 2, 3, 3]
    assert card["stages"][0]["recipe"]["data"]["paths"] == ["world", "textures"]
    assert str(built.parent) not in (built / CARD).read_text()
    assert not (built / "sheet").exists()


def test_diffusers_opens_it(built: Path) -> None:
    import torch
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(str(built), local_files_only=True, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    made = pipe("a red monster", num_inference_steps=2, output_type="pt", generator=torch.Generator().manual_seed(0))
    assert tuple(made.images.shape) == (1, 3, 64, 64)


def test_a_stopped_build_goes_on_where_it_was(tmp_path: Path) -> None:
    calls: list[str] = []

    def stopped_once(folder: JobFolder) -> int:
        calls.append(folder.id)
        if len(calls) == 1:
            request(folder, "stop")
        return work(folder.path)

    (tmp_path / "work" / "made").mkdir(parents=True)
    (tmp_path / "work" / "made" / "mine.txt").write_text("mine")

    def build() -> Path:
        return build_starter(
            "stable_diffusion", tmp_path / "work", tmp_path / "made", share=SHARE, run_job=stopped_once
        )

    with pytest.raises(Stopped, match="run the same command again"):
        build()
    assert not (tmp_path / "made").exists()
    build()
    # The stopped job was gone on with, not started anew; the next stage came after it.
    assert calls[0] == calls[1]
    assert len(list_jobs(tmp_path / "work" / "home")) == 4
    build()
    assert len(calls) == 5
    assert (tmp_path / "work" / "made" / "mine.txt").read_text() == "mine"


def test_an_output_folder_with_other_things_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="were not written by this command"):
        build_starter("stable_diffusion", tmp_path / "work", tmp_path / "out", share=SHARE)
    assert not (tmp_path / "work").exists()
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(("work", "out"), [("a", "a"), ("a/work", "a"), ("a", "a/out")])
def test_output_and_work_lie_apart(tmp_path: Path, work: str, out: str) -> None:
    with pytest.raises(DataError, match="lie in one another"):
        build_starter("stable_diffusion", tmp_path / work, tmp_path / out, share=SHARE)
    assert not (tmp_path / "a").exists()


def test_other_engines_have_no_recipe_for_a_starter(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no starter is known for 'heartmula'"):
        build_starter("heartmula", tmp_path, tmp_path / "out")


def test_where_none_ships_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from tunesmith.errors import WeightsError
    from tunesmith.weights import starter

    monkeypatch.setattr(starter, "FOLDER", tmp_path)
    with pytest.raises(WeightsError, match="starter build stable_diffusion"):
        starter_folder("stable_diffusion")
