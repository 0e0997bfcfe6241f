"""A checkpoint against its base: losses, copies, leaks, the sheet, and what cannot be measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from job_cases import World
from tunesmith.catalog.card import Card
from tunesmith.catalog.shelf import Shelf
from tunesmith.errors import CatalogError, JobError
from tunesmith.jobs.control import request
from tunesmith.jobs.evaluating import create_evaluation, read_report
from tunesmith.jobs.folder import JobFolder
from tunesmith.jobs.status import read_status
from tunesmith.jobs.work import work

NAMED = {"output__concepts": {"peter": "picture"}}


def trained(world: World, home: Path, method: str = "lora", **changes: Any) -> Card:
    job = world.job(home, method, **changes)
    assert work(job.path) == 0
    return Shelf(home).get(read_status(job).checkpoints[-1])


def measured(folder: JobFolder) -> dict[str, dict[str, Any]]:
    assert work(folder.path) == 0, folder.log_file.read_text()
    return {measure["name"]: measure for measure in read_report(folder)["measures"]}


def test_an_adapter_is_measured_against_its_base(world: World, tmp_path: Path) -> None:
    card = trained(world, tmp_path, **NAMED)
    folder = create_evaluation(tmp_path, card.id, world=[world.pictures], pictures=3)
    found = measured(folder)
    assert set(found) == {"concept_gain", "forgetting", "copied_share", "leak"}
    # The losses are those that the training itself measured, on the same noise.
    fall = 1 - card.measures["holdout_loss"] / card.measures["holdout_loss_start"]
    assert found["concept_gain"]["value"] == pytest.approx(fall, rel=1e-4)
    assert found["concept_gain"]["low"] <= fall <= found["concept_gain"]["high"]
    report = read_report(folder)
    assert report["checkpoint"] == card.id
    assert report["missing"] == []
    with Image.open(report["sheet"]) as sheet:
        assert min(sheet.size) > 128
    for name in ("base", "checkpoint", "without_trigger"):
        assert len(list((folder.results / name).glob("*.png"))) == 3
    different = [(folder.results / name / "000.png").read_bytes() for name in ("base", "checkpoint")]
    assert different[0] != different[1]
    assert Shelf(tmp_path).list() == (card,)


def test_evaluating_again_gives_the_same_figures(world: World, tmp_path: Path) -> None:
    card = trained(world, tmp_path, **NAMED)
    reports = []
    for _ in range(2):
        folder = create_evaluation(tmp_path, card.id, pictures=2)
        assert work(folder.path) == 0
        reports.append(read_report(folder)["measures"])
    assert reports[0] == reports[1]


def test_a_full_fine_tune_is_measured_against_what_it_started_from(world: World, tmp_path: Path) -> None:
    card = trained(world, tmp_path, "full", **NAMED)
    found = measured(create_evaluation(tmp_path, card.id, pictures=2))
    fall = 1 - card.measures["holdout_loss"] / card.measures["holdout_loss_start"]
    assert found["concept_gain"]["value"] == pytest.approx(fall, rel=1e-4)
    assert found["leak"]["value"] > 0


def test_what_has_no_base_or_no_held_out_items_is_said(world: World, tmp_path: Path) -> None:
    from tunesmith_test_engines.items import picture_items

    scratch = trained(world, tmp_path, "scratch")
    folder = create_evaluation(tmp_path, scratch.id, pictures=2)
    assert set(measured(folder)) == {"copied_share"}
    missing = read_report(folder)["missing"]
    assert [text.partition(":")[0] for text in missing] == ["forgetting", "concept gain and forgetting", "leaks"]
    card = trained(world, tmp_path / "other", data__holdout_fraction=0.0)
    folder = create_evaluation(tmp_path / "other", card.id, pictures=2)
    assert set(measured(folder)) == {"copied_share"}
    assert any("--data" in text for text in read_report(folder)["missing"])
    # Other items of the concept may be named.
    picture_items(tmp_path / "more", 3, control=False, same_shape=True)
    folder = create_evaluation(tmp_path / "other", card.id, data=[tmp_path / "more"], pictures=2)
    assert "concept_gain" in measured(folder)


def test_a_stopped_evaluation_leaves_no_report(world: World, tmp_path: Path) -> None:
    card = trained(world, tmp_path)
    folder = create_evaluation(tmp_path, card.id, pictures=2)
    request(folder, "cancel")
    assert work(folder.path) == 130
    with pytest.raises(JobError, match="left no report"):
        read_report(folder)


def test_an_imported_checkpoint_has_no_recipe_to_measure_by(world: World, tmp_path: Path) -> None:
    card = trained(world, tmp_path)
    shelf = Shelf(tmp_path)
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "weights.bin").write_bytes(b"x")
    card = replace(card, files={})
    outside = shelf.put(replace(card, id="", name="outside", recipe={"imported": {}}, origin="imported"), copy)
    with pytest.raises(CatalogError, match="knows no recipe"):
        create_evaluation(tmp_path, outside.id)
    manifest = json.loads(create_evaluation(tmp_path, card.id).manifest_file.read_text())
    assert manifest["kind"] == "evaluate"
    assert manifest["details"]["checkpoint"] == card.id
