from __future__ import annotations

from pathlib import Path

from recipe_engines import lookup
from tunesmith.recipe.load import recipe_from
from tunesmith.recipe.paths import absolute_paths


def test_paths_are_taken_from_the_folder_and_names_stay_names(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").touch()
    recipe = recipe_from(
        {
            "engine": "toy",
            "base": {
                "path": "w.safetensors",
                "init": "some-checkpoint",
                "parts": {"vae": "w.safetensors", "te": "hub/x"},
            },
            "data": {"paths": ["a", "/b"], "holdout_paths": ["c"], "prior": "given", "prior_paths": ["~/p"]},
            "length": {"steps": 1},
            "output": {"folder": "out"},
        },
        lookup,
    )
    found = absolute_paths(recipe, tmp_path)
    assert found.base.path == str(tmp_path / "w.safetensors")
    assert found.base.init == "some-checkpoint"
    assert found.base.parts == {"vae": str(tmp_path / "w.safetensors"), "te": "hub/x"}
    assert found.data.paths == (str(tmp_path / "a"), "/b")
    assert found.data.prior_paths == (str(Path.home() / "p"),)
    assert found.output.folder == str(tmp_path / "out")
    assert absolute_paths(found, Path("/elsewhere")) == found
    assert (
        absolute_paths(
            recipe_from({"engine": "toy", "base": {"path": "starter"}, "length": {"steps": 1}}, lookup), tmp_path
        ).base.path
        == "starter"
    )
