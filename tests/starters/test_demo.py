"""The demo: a few steps of it in every test run, all of it in the long ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from photographs import write_photographs
from tunesmith.catalog.concepts import Concepts
from tunesmith.catalog.shelf import Shelf
from tunesmith.errors import DataError
from tunesmith.jobs.folder import list_jobs
from tunesmith.starters.demo import DemoReport, examples_of, run_demo
from tunesmith.starters.demo_pictures import with_photographs, write_pictures
from tunesmith.starters.marked import MARK

PHOTOGRAPHS_LEAST_FALL = 0.2


def check_results(report: DemoReport, home: Path, out: Path) -> None:
    """Everything a demo must leave behind."""
    with Image.open(report.sheet) as sheet, Image.open(report.loss_plot) as plot:
        assert (report.sheet, report.loss_plot) == (out / "sheet.png", out / "loss.png")
        assert min(sheet.size) > 128 * 3
        assert plot.size[0] > 400
    card = Shelf(home).active("stable_diffusion")
    assert card is not None
    assert card.id == report.checkpoint
    assert Concepts(home).get(report.trigger).checkpoint == card.id
    assert {path.name for path in report.exports} == {
        "demo-character.safetensors",
        "demo-character-diffusers.safetensors",
    }
    assert len(set(report.matched_layers)) == 1
    assert report.matched_layers[0] > 0
    figures = json.loads((out / "report.json").read_text())
    assert figures["fall"] == pytest.approx(1 - figures["held_out_loss_adapter"] / figures["held_out_loss_base"])
    assert {measure["name"] for measure in figures["evaluation"]} >= {"concept_gain", "forgetting", "leak"}
    assert [job.manifest()["kind"] for job in list_jobs(home)] == ["train", "evaluate"]


def test_pictures_are_a_function_of_the_seed(tmp_path: Path) -> None:
    one, two = write_pictures(tmp_path / "one", 3), write_pictures(tmp_path / "two", 3)
    assert one.held_out is not None
    assert two.held_out is not None
    for a, b in ((one.prior, two.prior), (one.others, two.others), (one.own, two.own), (one.held_out, two.held_out)):
        assert [path.name for path in sorted(a.iterdir())] == [path.name for path in sorted(b.iterdir())]
        assert all((b / path.name).read_bytes() == path.read_bytes() for path in a.iterdir())
    held = {path.read_bytes() for path in one.held_out.glob("*.png")}
    assert not held & {path.read_bytes() for path in one.own.glob("*.png")}
    captions = [path.read_text() for path in sorted(one.prior.glob("*.txt"))]
    assert len(captions) == 800
    assert not any(one.trigger in caption for caption in captions)
    assert all(path.read_text().startswith(f"{one.trigger} monster, ") for path in one.own.glob("*.txt"))


def test_the_checker_finds_the_character_where_it_is(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "pictures", 5)
    assert pictures.held_out is not None
    for name in ("checkpoint", "without_trigger"):
        shutil.copytree(pictures.held_out, tmp_path / name)
    shutil.copytree(pictures.others, tmp_path / "base")
    shown = pictures.shown(tmp_path)
    assert min(shown["adapter"], shown["without_trigger"], shown["place"]) >= 23 / 24
    assert shown["base"] <= 0.02


def test_writing_again_replaces_what_was_there(tmp_path: Path) -> None:
    first = write_pictures(tmp_path / "p", 1)
    again = write_pictures(tmp_path / "p", 2)
    assert not first.own.exists()
    assert {path.name for path in (tmp_path / "p").iterdir()} == {
        again.trigger,
        f"{again.trigger}-held-out",
        "world",
        "others",
        MARK,
    }


def test_somebody_elses_files_stay(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "mine.png").write_bytes(b"dear to me")
    with pytest.raises(DataError, match="were not written by this command"):
        write_pictures(tmp_path / "p", 1)
    assert (tmp_path / "p" / "mine.png").read_bytes() == b"dear to me"


def test_a_quick_demo_turns_every_wheel(tmp_path: Path, home: Path) -> None:
    said: list[str] = []
    out = tmp_path / "demo"
    report = run_demo(home, out, quick=True, say=said.append)
    check_results(report, home, out)
    assert [line[:3] for line in said if line[1:3] == "/4"] == ["1/4", "2/4", "3/4", "4/4"]
    assert set(report.seconds) == {"examples", "lora", "export", "evaluation"}
    assert set(report.shown) >= {"adapter", "base", "without_trigger", "pose", "place"}


def test_photographs_take_the_place_of_the_new_monster(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "p", 1)
    (tmp_path / "photographs").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "photographs" / "a.jpg")
    Image.new("RGB", (40, 30), "red").save(tmp_path / "photographs" / "b.jpg")
    (tmp_path / "photographs" / "b.txt").write_text("a red wall, myphoto")
    found = with_photographs(pictures, tmp_path / "photographs")
    assert (found.prior, found.held_out, found.trigger) == (pictures.prior, None, "myphoto")
    assert found.prompt == "a photograph, myphoto"
    assert found.shown(tmp_path) == {}
    with pytest.raises(DataError):
        with_photographs(pictures, tmp_path / "nowhere")


def test_photographs_among_the_examples_of_an_earlier_demo_stay(tmp_path: Path) -> None:
    earlier = write_pictures(tmp_path / "examples", 1)
    with pytest.raises(DataError, match="lie in one another"):
        examples_of("stable_diffusion", earlier.own)(tmp_path / "examples", 2)
    assert len(list(earlier.own.glob("*.png"))) == 24


def test_an_output_folder_that_is_a_file_is_refused(tmp_path: Path, home: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match="is a file"):
        run_demo(home, tmp_path / "file", quick=True)
    assert not (home / "jobs").exists()


@pytest.mark.long
def test_the_whole_demo_learns_a_new_monster(tmp_path: Path, home: Path) -> None:
    report = run_demo(home, tmp_path / "demo")
    check_results(report, home, tmp_path / "demo")
    assert report.fall >= 0.4
    measures = {measure["name"]: measure for measure in report.evaluation["measures"]}
    assert measures["concept_gain"]["low"] > 0.3
    assert measures["forgetting"]["value"] <= 0.1
    assert report.shown["adapter"] >= 0.8
    assert report.shown["base"] <= 0.1
    assert report.shown["without_trigger"] <= 0.2
    assert min(report.shown["pose"], report.shown["place"]) >= 0.7


@pytest.mark.long
def test_the_whole_demo_on_real_photographs(tmp_path: Path, home: Path) -> None:
    write_photographs(tmp_path / "photographs")
    report = run_demo(home, tmp_path / "demo", write=examples_of("stable_diffusion", tmp_path / "photographs"))
    check_results(report, home, tmp_path / "demo")
    assert report.fall >= PHOTOGRAPHS_LEAST_FALL
