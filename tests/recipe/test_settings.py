from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import run
from typing import Any

import pytest

from tunesmith.errors import RecipeError
from tunesmith.recipe.schema import BaseSection, Recipe, ResourceSection
from tunesmith.recipe.settings import Settings, home_folder, read_settings, with_settings, write_setting


def test_home_folder(tmp_path: Path) -> None:
    assert home_folder({"TUNESMITH_HOME": str(tmp_path)}) == tmp_path
    assert home_folder({"TUNESMITH_HOME": "~/x"}) == Path.home() / "x"
    assert home_folder({"TUNESMITH_HOME": "x"}) == Path.cwd() / "x"
    assert home_folder({}).name == "tunesmith"
    assert home_folder({}).is_absolute()


def test_defaults_without_a_file(tmp_path: Path) -> None:
    assert read_settings(tmp_path / "nowhere") == Settings()


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("device", "cuda:1", "cuda:1"),
        ("threads", "4", 4),
        ("threads", 4, 4),
        ("bases", "/models", ("/models",)),
        ("bases", "[/a, /b]", ("/a", "/b")),
        ("bases", ("/a", "/b"), ("/a", "/b")),
        ("allow_download", "true", True),
        ("executor", "inline", "inline"),
        ("bases", "123", ("123",)),
    ],
)
def test_a_setting_is_kept(tmp_path: Path, key: str, value: Any, expected: Any) -> None:
    home = tmp_path / "home"
    write_setting(home, "cache_limit_bytes", 7)
    assert getattr(write_setting(home, key, value), key) == expected
    assert getattr(read_settings(home), key) == expected
    assert read_settings(home).cache_limit_bytes == 7
    assert write_setting(home, key, None) == Settings(cache_limit_bytes=7)
    assert read_settings(home) == Settings(cache_limit_bytes=7)
    assert not list(home.glob(".settings.yaml.*.tmp"))


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("thread", 1, "did you mean 'threads'"),
        ("threads", 0, "at least 1"),
        ("allow_download", "maybe", "true or false"),
        ("executor", "moon", "one of local, inline, process"),
        ("device", "potato", "auto, cpu, cuda, cuda:1 or mps"),
        ("device", "cuda:x", "auto, cpu, cuda, cuda:1 or mps"),
    ],
)
def test_a_wrong_setting_changes_nothing(tmp_path: Path, key: str, value: Any, found: str) -> None:
    write_setting(tmp_path, "device", "cpu")
    with pytest.raises(RecipeError) as caught:
        write_setting(tmp_path, key, value)
    assert found in caught.value.message.replace("Did", "did")
    assert read_settings(tmp_path) == Settings(device="cpu")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text("device: cpu\nthrads: 2\n")
    with pytest.raises(RecipeError, match=r"settings\.yaml, line 2: no setting is called 'thrads'"):
        read_settings(tmp_path)
    (tmp_path / "settings.yaml").write_text("- 1\n")
    with pytest.raises(RecipeError, match="not settings"):
        read_settings(tmp_path)


def test_a_wrong_value_in_the_file_is_placed_and_can_be_set_right(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text("threads: 2\ndevice: potato\n")
    with pytest.raises(RecipeError, match=r"settings\.yaml, line 2: settings\.device is 'potato'"):
        read_settings(tmp_path)
    assert write_setting(tmp_path, "device", "cpu") == Settings(device="cpu", threads=2)


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").mkdir()
    with pytest.raises(RecipeError, match=r"settings\.yaml: .*[Rr]epair") as caught:
        read_settings(tmp_path)
    assert "recipe" not in caught.value.do


def test_two_at_once_lose_nothing(tmp_path: Path) -> None:
    entries = {"device": "cpu", "threads": 3, "executor": "inline", "bases": "/m"}
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda entry: write_setting(tmp_path, *entry), entries.items()))
    assert read_settings(tmp_path) == Settings(device="cpu", threads=3, executor="inline", bases=("/m",))


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_setting(tmp_path, "device", "cpu")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_setting(tmp_path, "device", "mps")
    assert read_settings(tmp_path).device == "cpu"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".settings.yaml.lock", "settings.yaml"]


def test_importing_recipes_loads_no_yaml_and_no_torch() -> None:
    code = (
        "import sys, tunesmith.recipe.load, tunesmith.recipe.settings, tunesmith.recipe.render\n"
        "print([name for name in ('ruamel.yaml', 'torch', 'filelock', 'platformdirs') if name in sys.modules])"
    )
    done = run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_settings_fill_in_what_a_recipe_leaves_open(tmp_path: Path) -> None:
    (tmp_path / "sd15.safetensors").write_bytes(b"")
    settings = Settings(
        bases=(str(tmp_path / "none"), str(tmp_path)),
        device="cuda",
        threads=3,
        allow_download=True,
        cache_limit_bytes=5,
    )
    filled = with_settings(Recipe("toy", None, base=BaseSection(path="sd15.safetensors")), settings)
    assert filled.base == BaseSection(path=str(tmp_path / "sd15.safetensors"), allow_download=True)
    assert filled.resources == ResourceSection(device="cuda", threads=3, cache_limit_bytes=5)


def test_a_recipes_own_words_win_over_settings(tmp_path: Path) -> None:
    (tmp_path / "sd15.safetensors").write_bytes(b"")
    there = tmp_path / "own.safetensors"
    there.write_bytes(b"")
    own = Recipe(
        "toy",
        None,
        base=BaseSection(path=str(there)),
        resources=ResourceSection(device="cpu", threads=1, cache_limit_bytes=7),
    )
    assert with_settings(own, Settings(bases=(str(tmp_path),), device="cuda", threads=3, cache_limit_bytes=5)) == own
