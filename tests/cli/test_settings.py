"""`settings`."""

from __future__ import annotations

from pathlib import Path


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


def test_home_may_be_named_on_the_command_line(tunesmith, tmp_path: Path) -> None:
    assert tunesmith("--home", tmp_path / "other", "settings", "--json").document["home"] == str(tmp_path / "other")
