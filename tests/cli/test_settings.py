"""`settings`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.executors.index import executor_names
from tunesmith.recipe.settings import EXECUTORS


def test_show_and_set(tunesmith, home: Path) -> None:
    assert tunesmith("settings", "--json").document["settings"]["device"] == "auto"
    ran = tunesmith("settings", "set", "device", "cpu")
    assert (ran.code, ran.out) == (0, "device is now cpu\n")
    shown = tunesmith("settings")
    assert f"home               {home}" in shown.out
    assert tunesmith("settings", "--json").document["settings"]["device"] == "cpu"


def test_an_unknown_setting_is_refused(tunesmith, home: Path) -> None:
    ran = tunesmith("settings", "set", "devise", "cpu")
    assert ran.code == 2
    assert "Did you mean 'device'" in ran.error
    assert not (home / "settings.yaml").exists()


def test_every_executor_may_be_set() -> None:
    assert set(EXECUTORS) == set(executor_names())


@pytest.mark.parametrize(("key", "value"), [("executor", "moon"), ("device", "potato")])
def test_a_wrong_value_is_refused_when_it_is_set_and_when_it_is_used(
    tunesmith, workshop, home: Path, key: str, value: str
) -> None:
    assert value in tunesmith("settings", "set", key, value).error
    assert not (home / "settings.yaml").exists()
    home.mkdir(exist_ok=True)
    (home / "settings.yaml").write_text(f"{key}: {value}\n")
    words = ("--engine", "test_pictures", "--base", workshop.base, "--out", workshop.folder / "x.png")
    for ran in (
        tunesmith("train", workshop.recipe, "--detach"),
        tunesmith("plan", workshop.recipe),
        tunesmith("generate", *words),
    ):
        assert ran.code == 2
        assert f"settings.yaml, line 1: settings.{key} is '{value}'" in ran.error
    assert not (home / "jobs").exists()


def test_a_device_of_the_settings_that_is_missing_is_traced_to_the_file(tunesmith, workshop, monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    tunesmith("settings", "set", "device", "cuda:7")
    words = ("--engine", "test_pictures", "--base", workshop.base, "--out", workshop.folder / "x.png")
    ran = tunesmith("generate", *words)
    assert ran.code == 2
    assert "settings.yaml: device is cuda:7" in ran.error
    assert "settings.yaml" not in tunesmith("generate", *words, "--device", "cuda").error


def test_settings_that_cannot_be_read_make_no_job(tunesmith, workshop, home: Path) -> None:
    home.mkdir(exist_ok=True)
    (home / "settings.yaml").write_bytes(b"device: \xff\n")
    for ran in (tunesmith("train", workshop.recipe, "--on", "inline"), tunesmith("plan", workshop.recipe)):
        assert ran.code == 2
        assert "settings.yaml, line 1" in ran.error
    assert not (home / "jobs").exists()


def test_an_unknown_executor_makes_no_job(tunesmith, workshop, home: Path) -> None:
    assert "no executor is called 'moon'" in tunesmith("train", workshop.recipe, "--on", "moon").error
    assert not (home / "jobs").exists()


def test_home_may_be_named_on_the_command_line(tunesmith, tmp_path: Path) -> None:
    assert tunesmith("--home", tmp_path / "other", "settings", "--json").document["home"] == str(tmp_path / "other")
