"""The demo: a few steps of it in every test run, all of it in the long ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from photographs import write_photographs
from tunesmith.catalog.concepts import Concepts
from tunesmith.catalog.shelf import Shelf
from tunesmith.errors import DataError
from tunesmith.jobs.folder import list_jobs
from tunesmith.starters.demo import DemoReport, run_demo
from tunesmith.starters.demo_pictures import DEMO_PLACES, prompts, with_photographs, write_pictures

LEAST_FALL = 0.2


def check_results(report: DemoReport, home: Path, out: Path) -> None:
    """Everything a demo must leave behind."""
    with Image.open(report.sheet) as sheet, Image.open(report.loss_plot) as plot:
        assert (report.sheet, report.loss_plot) == (out / "sheet.png", out / "loss.png")
        assert min(sheet.size) > 128 * 4
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
    assert [job.manifest()["name"] for job in list_jobs(home)] == ["demo-autoencoder", "demo-world", "demo-character"]


def test_pictures_are_a_function_of_the_seed(tmp_path: Path) -> None:
    sizes = {"size": 32, "world_count": 40, "own_count": 8, "held_out_count": 4}
    one = write_pictures(tmp_path / "one", 3, **sizes)
    two = write_pictures(tmp_path / "two", 3, **sizes)
    assert one.held_out is not None
    assert two.held_out is not None
    for a, b in ((one.world, two.world), (one.others, two.others), (one.own, two.own), (one.held_out, two.held_out)):
        assert [path.name for path in sorted(a.iterdir())] == [path.name for path in sorted(b.iterdir())]
        assert all((b / path.name).read_bytes() == path.read_bytes() for path in a.iterdir())
    held = {path.read_bytes() for path in one.held_out.glob("*.png")}
    assert not held & {path.read_bytes() for path in one.own.glob("*.png")}
    captions = [path.read_text() for path in sorted(one.world.glob("*.txt"))]
    assert len(captions) == 40
    assert not any(one.trigger in caption for caption in captions)
    assert all(path.read_text().startswith(f"{one.trigger} monster, ") for path in one.own.glob("*.txt"))


def test_prompts_are_in_the_words_of_the_captions() -> None:
    texts = prompts("zorbli")
    assert len(texts) == len(DEMO_PLACES)
    assert texts[0].startswith("zorbli monster, arms down, in a meadow, in the middle")


def test_writing_again_replaces_what_was_there(tmp_path: Path) -> None:
    sizes = {"size": 16, "own_count": 2, "held_out_count": 1}
    write_pictures(tmp_path / "p", 1, world_count=5, **sizes)
    again = write_pictures(tmp_path / "p", 2, world_count=3, **sizes)
    assert len(list(again.world.glob("*.png"))) == 3
    assert len(list((tmp_path / "p").iterdir())) == 4


def test_a_quick_demo_turns_every_wheel(tmp_path: Path, home: Path) -> None:
    said: list[str] = []
    out = tmp_path / "demo"
    report = run_demo(home, out, quick=True, say=said.append)
    check_results(report, home, out)
    assert [line[:3] for line in said] == ["1/5", "2/5", "3/5", "4/5", "5/5"]
    assert set(report.seconds) == {"pictures", "autoencoder", "world", "lora", "sheet"}


def test_photographs_take_the_place_of_the_new_monster(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "p", 1, size=16, world_count=4, own_count=2, held_out_count=1)
    (tmp_path / "photographs").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "photographs" / "a.jpg")
    Image.new("RGB", (40, 30), "red").save(tmp_path / "photographs" / "b.jpg")
    (tmp_path / "photographs" / "b.txt").write_text("a red wall, myphoto")
    found = with_photographs(pictures, tmp_path / "photographs", default_caption="a photograph, {trigger}")
    assert (found.world, found.held_out, found.trigger) == (pictures.world, None, "myphoto")
    assert found.prompts == ("a photograph, myphoto", "a red wall, myphoto")
    with pytest.raises(DataError):
        with_photographs(pictures, tmp_path / "nowhere", default_caption="")


def test_an_output_folder_that_is_a_file_is_refused(tmp_path: Path, home: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match="is a file"):
        run_demo(home, tmp_path / "file", quick=True)
    assert not (home / "jobs").exists()


@pytest.mark.long
def test_the_whole_demo_learns_a_new_monster(tmp_path: Path, home: Path) -> None:
    report = run_demo(home, tmp_path / "demo")
    check_results(report, home, tmp_path / "demo")
    assert report.fall >= LEAST_FALL


@pytest.mark.long
def test_the_whole_demo_on_real_photographs(tmp_path: Path, home: Path) -> None:
    write_photographs(tmp_path / "photographs")
    report = run_demo(home, tmp_path / "demo", photographs=tmp_path / "photographs")
    check_results(report, home, tmp_path / "demo")
    assert report.fall >= LEAST_FALL
