"""A starter of sounds built from nothing with a two-thousandth of data and steps, and the demo on it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tunesmith.catalog.concepts import Concepts
from tunesmith.engines.index import engine_named
from tunesmith.errors import RecipeError
from tunesmith.jobs.folder import list_jobs
from tunesmith.recipe.schema import BaseSection
from tunesmith.starters.build import build_starter
from tunesmith.starters.demo import examples_of, run_demo
from tunesmith.starters.demo_sounds import write_sounds
from tunesmith.weights import starter

SHARE = 0.0003
LARGEST_BYTES = 20_000_000


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("starters")
    return build_starter("stable_audio", folder / "work", folder / "weights" / "stable_audio", share=SHARE)


def test_the_folder_is_a_whole_base_within_its_size(built: Path) -> None:
    base = engine_named("stable_audio").open(BaseSection(path=str(built)))
    assert all(part.path is not None for part in base.parts.values())
    assert sum(path.stat().st_size for path in built.rglob("*") if path.is_file()) <= LARGEST_BYTES
    card = json.loads((built / starter.CARD).read_text())
    assert set(card["figures"]) >= {"log_mel_db", "stft_distance", "round_trip_mmd", "families_mmd", "right"}
    assert [stage["steps"] for stage in card["stages"]] == [2, 2]


def test_a_quick_demo_of_sounds(built: Path, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starter, "FOLDER", built.parent)
    report = run_demo(home, tmp_path / "demo", write=examples_of("stable_audio"), quick=True)
    assert report.kind == "creature family"
    assert set(report.shown) == {"adapter", "base", "without_trigger"}
    assert Concepts(home).get(report.trigger).checkpoint == report.checkpoint
    assert {path.name for path in report.exports} == {
        "demo-family-comfy.safetensors",
        "demo-family-diffusers.safetensors",
    }
    assert len(set(report.matched_layers)) == 1
    assert report.matched_layers[0] > 0
    assert {measure["name"] for measure in report.evaluation["measures"]} >= {"concept_gain", "forgetting"}
    assert [job.manifest()["kind"] for job in list_jobs(home)] == ["train", "evaluate"]


def test_sounds_are_a_function_of_the_seed_and_the_checker_hears_the_family(tmp_path: Path) -> None:
    one, two = write_sounds(tmp_path / "one", 3), write_sounds(tmp_path / "two", 3)
    assert one.held_out is not None
    for a, b in ((one.prior, two.prior), (one.others, two.others), (one.own, two.own)):
        assert all((b / path.name).read_bytes() == path.read_bytes() for path in a.iterdir())
    assert len(list(one.own.glob("*.wav"))) == 60
    assert all(path.read_text().startswith(f"{one.trigger} creature ") for path in one.own.glob("*.txt"))
    for name in ("checkpoint", "without_trigger"):
        shutil.copytree(one.held_out, tmp_path / name)
    shutil.copytree(one.others, tmp_path / "base")
    shown = one.shown(tmp_path)
    assert min(shown["adapter"], shown["without_trigger"]) >= 0.9
    assert shown["base"] <= 0.02


def test_other_engines_have_no_demo(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no demo is known for 'heartmula'"):
        examples_of("heartmula")
    with pytest.raises(RecipeError, match="photographs"):
        examples_of("stable_audio", tmp_path)
