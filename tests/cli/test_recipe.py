"""`recipe new` and `recipe show`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.engines.index import recipe_facts
from tunesmith.recipe.knobs import knobs_of
from tunesmith.recipe.load import read_recipe, to_document
from tunesmith.recipe.schema import SECTIONS

FLAGS = ("--engine", "test_pictures", "--data", "pictures", "--base", "base.safetensors", "--name", "peter")


def test_new_writes_every_knob_and_reads_back(tunesmith, tmp_path: Path) -> None:
    file = tmp_path / "peter.yaml"
    ran = tunesmith("recipe", "new", file, *FLAGS, "--steps", "300", "--rank", "8", "--concept", "peter=qb_peter")
    assert ran.code == 0, ran.err
    assert f"tunesmith plan {file}" in ran.out
    text = file.read_text()
    for name, section in SECTIONS.items():
        for knob in knobs_of(section, name):
            assert f"{knob.name}:" in text
            assert knob.help in text
    document = to_document(read_recipe([file], (), recipe_facts))
    assert document == {
        "engine": {"name": "test_pictures"},
        "data": {"paths": ["pictures"]},
        "base": {"path": "base.safetensors"},
        "method": {"rank": 8},
        "length": {"steps": 300},
        "output": {"name": "peter", "concepts": {"peter": "qb_peter"}},
    }


def test_taking_the_comments_away_changes_nothing(tunesmith, tmp_path: Path) -> None:
    """Every commented knob shows its true default."""
    file, bare = tmp_path / "a.yaml", tmp_path / "b.yaml"
    tunesmith("recipe", "new", file, *FLAGS)
    bare.write_text(file.read_text().replace("\n  # ", "\n  "))
    assert read_recipe([bare], (), recipe_facts) == read_recipe([file], (), recipe_facts)


def test_new_without_flags_names_what_only_the_user_knows(tunesmith, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    assert tunesmith("recipe", "new", file, "--engine", "test_pictures").code == 0
    recipe = read_recipe([file], (), recipe_facts)
    assert recipe.data.paths == ("PATH/TO/PICTURES",)
    assert recipe.length.steps == 1200


def test_new_from_scratch_and_by_epochs(tunesmith, tmp_path: Path) -> None:
    file = tmp_path / "scratch.yaml"
    ran = tunesmith(
        "recipe",
        "new",
        file,
        "--engine",
        "test_pictures",
        "--method",
        "scratch",
        "--architecture",
        "tiny",
        "--epochs",
        3,
    )
    assert ran.code == 0, ran.err
    recipe = read_recipe([file], (), recipe_facts)
    assert (recipe.base.path, recipe.length.steps, recipe.length.epochs) == (None, None, 3)


def test_new_replaces_only_when_told(tunesmith, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("mine")
    ran = tunesmith("recipe", "new", file, *FLAGS)
    assert ran.code == 2
    assert "--force" in ran.error
    assert file.read_text() == "mine"
    assert tunesmith("recipe", "new", file, *FLAGS, "--force").code == 0
    assert file.read_text() != "mine"


def test_show_merges_base_configs_files_overrides_and_flags(tunesmith, tmp_path: Path) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text("engine: test_pictures\nbase: {path: b}\nlength: {steps: 10}\nmethod: {rank: 2, alpha: 1}\n")
    two.write_text("length: {steps: 20}\nmethod: {rank: 3}\n")
    ran = tunesmith("recipe", "show", "--json", "-b", one, two, "method.rank=4", "--seed", "7")
    document = ran.document["recipe"]
    assert document["method"] == {"rank": 4, "alpha": 1.0}
    assert document["length"] == {"steps": 20, "seed": 7}
    shown = tunesmith("recipe", "show", one, "--full").out
    assert "gradient_checkpointing: false" in shown


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("engine.name=test_pictures", "method.rnak=4"), "Did you mean 'method.rank'"),
        (("engine.name=test_pictures", "method.rank=0"), "at least 1"),
        (("engine.name=test_pictures", "--rank", "0"), "at least 1"),
        (("engine.name=test_pictures", "optimiser.rate=-1e-4"), "at least 0"),
        (("engine.name=test_pictures", "--rate", "-1e-4"), "at least 0"),
        (("engine.name=test_pictures", "--method", "lorra"), "Did you mean 'lora'"),
        (("engine.name=test_picture",), "Did you mean 'test_pictures'"),
        (("missing.yaml",), "missing.yaml"),
        ((), "nothing was asked for"),
    ],
)
def test_bad_recipes_are_one_clear_line(tunesmith, words: tuple[str, ...], named: str) -> None:
    ran = tunesmith("recipe", "show", *words)
    assert ran.code == 2
    assert ran.out == ""
    assert named in ran.error
