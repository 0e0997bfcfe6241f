"""`tunesmith dataset prepare`, as people used to prepare creature families, and `dataset check` of what it makes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

posix = pytest.mark.skipif(os.name == "nt", reason="a backslash is a separator there")


def call(path: Path, hz: float, *, rate=8_000, level=0.5, prompt: str | None = "creature screech") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    t = np.arange(rate // 5) / rate
    soundfile.write(path, level * np.sin(2 * np.pi * hz * t) * np.exp(-5 * t), rate)
    if prompt is not None:
        credits_file = path.with_name(path.name + ".credits.json")
        credits_file.write_text(
            json.dumps({"engine": "stable_audio_open", "prompt": f"{prompt} {path.stem}", "seed": 1})
        )
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder we are in, with four usable sounds in `outputs` and two that are not."""
    for at in range(4):
        call(tmp_path / f"outputs/call{at}.wav", 300 + 70 * at)
    call(tmp_path / "outputs/mute.wav", 700, prompt="")
    call(tmp_path / "outputs/quiet.wav", 800, level=0.0)
    (tmp_path / "outputs/mute.wav.credits.json").write_text('{"prompt": ""}')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def prepare(tunesmith, *words: object):
    return tunesmith("dataset", "prepare", "--in", "outputs", *words)


@posix
def test_the_command_of_the_old_guide(tunesmith, folder: Path) -> None:
    """Word for word, the PowerShell path too."""
    ran = prepare(tunesmith, "--out", "datasets\\ghoul_family", "--family", "ghoul", "--copy-audio", "--convert-to-wav")
    assert ran.code == 0
    assert "datasets\\ghoul_family has backslashes" in ran.err
    assert "taken as datasets/ghoul_family" in ran.err
    out = folder / "datasets" / "ghoul_family"
    assert sorted(path.name for path in out.iterdir()) == ["audio", "metadata.jsonl", "report.json"]
    assert sorted(path.name for path in folder.iterdir()) == ["datasets", "outputs"]
    assert soundfile.info(out / "audio" / "ghoul__call0.wav").samplerate == 44_100
    for said in (
        "4 sounds of 'ghoul', 0.8 seconds in all",
        "4 converted",
        "licences: 4 not stated",
        "mute.wav (its prompt is empty)",
        "quiet.wav (it is silent",
        "tunesmith dataset check datasets/ghoul_family",
        "tunesmith train --data datasets/ghoul_family --base BASE --name ghoul --concept ghoul",
    ):
        assert said in ran.out


@posix
def test_backslashes_in_a_name_that_is_there_are_letters(tunesmith, folder: Path) -> None:
    call(folder / "a\\b" / "x.wav", 900)
    ran = tunesmith("dataset", "prepare", "--in", "a\\b", "--out", "out", "--family", "ghoul", "--copy-audio")
    assert ran.code == 0
    assert "backslash" not in ran.err
    ran = tunesmith("dataset", "prepare", "--in", ".\\outputs", "--out", "two", "--family", "ghoul", "--copy-audio")
    assert ran.code == 0
    assert "taken as outputs" in ran.err


@posix
def test_a_drive_of_windows_is_refused(tunesmith, folder: Path) -> None:
    ran = prepare(tunesmith, "--out", "C:\\Users\\me\\ghoul", "--family", "ghoul")
    assert ran.code == 2
    assert "/mnt/c/Users/me/ghoul" in ran.error
    assert sorted(path.name for path in folder.iterdir()) == ["outputs"]


@pytest.mark.parametrize("flag", ["--family", "--concept", "--creature-family"])
def test_spellings_of_family_and_one_json_document(tunesmith, folder: Path, flag: str) -> None:
    document = prepare(tunesmith, "--out", "set", flag, "ghoul", "--copy-audio", "--json").document
    assert (document["family"], document["kept"], document["out"]) == ("ghoul", 4, "set")
    assert {why: [Path(one["file"]).name for one in some] for why, some in document["skipped"].items()} == {
        "no_text": ["mute.wav"],
        "silent": ["quiet.wav"],
    }
    assert document == {"out": "set"} | json.loads((folder / "set" / "report.json").read_text())


def test_without_copying(tunesmith, folder: Path) -> None:
    ran = prepare(tunesmith, "--out", "set", "--family", "ghoul", "--limit", 2)
    assert ran.code == 0
    assert "not copied" in ran.out
    assert "the limit of 2 was reached" in ran.out
    lines = [json.loads(line) for line in (folder / "set/metadata.jsonl").read_text().splitlines()]
    names = [(folder / f"outputs/call{at}.wav").resolve().as_posix() for at in range(2)]
    assert [line["file_name"] for line in lines] == names


@pytest.mark.parametrize(("words", "rate"), [(("--convert-to-wav",), 44_100), (("--rate", 16_000), 16_000)])
def test_converting_implies_copying_and_says_so(tunesmith, folder: Path, words: tuple[object, ...], rate: int) -> None:
    ran = prepare(tunesmith, "--out", "set", "--family", "ghoul", *words)
    assert "note: converting makes copies" in ran.out
    assert soundfile.info(folder / "set/audio/ghoul__call0.wav").samplerate == rate


def test_an_earlier_preparation(tunesmith, folder: Path) -> None:
    assert prepare(tunesmith, "--out", "set", "--family", "ghoul").code == 0
    again = prepare(tunesmith, "--out", "set", "--family", "wolf")
    assert again.code == 2
    assert "set holds an earlier preparation. Expected a new folder. Replace it with --force" in again.error
    assert prepare(tunesmith, "--out", "set", "--family", "wolf", "--force").code == 0
    assert '"family": "wolf"' in (folder / "set/metadata.jsonl").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--in", "output", "--out", "set", "--family", "ghoul"), "output does not exist"),
        (("--in", "outputs", "--in", "nowhere", "--out", "set", "--family", "ghoul"), "nowhere does not exist"),
        (("--in", "outputs/call0.wav", "--out", "set", "--family", "ghoul"), "is a file"),
        (("--in", "outputs", "--out", "outputs/set", "--family", "ghoul"), "lies in outputs"),
        (("--in", "outputs", "--out", "set", "--family", ""), "family"),
        (("--in", "outputs", "--out", "set"), "--family"),
        (("--out", "set", "--family", "ghoul"), "--in"),
        (("--in", "outputs", "--out", "set", "--family", "ghoul", "--limit", "0"), "limit of 0"),
        (("--in", "outputs", "--out", "set", "--family", "ghoul", "--rate", "5"), "5 Hz"),
        (("--in", "outputs", "--out", ".", "--family", "ghoul"), "."),
    ],
)
def test_refused_and_nothing_made(tunesmith, folder: Path, words: tuple[str, ...], said: str) -> None:
    ran = tunesmith("dataset", "prepare", *words)
    assert ran.code == 2
    assert said in ran.error
    assert sorted(path.name for path in folder.iterdir()) == ["outputs"]
    assert len(list((folder / "outputs").iterdir())) == 12


@pytest.mark.parametrize("json_flag", [(), ("--json",)])
def test_nothing_usable_is_no_success(tunesmith, folder: Path, json_flag: tuple[str, ...]) -> None:
    for path in (folder / "outputs").glob("call*"):
        path.unlink()
    ran = prepare(tunesmith, "--out", "new/set", "--family", "ghoul", *json_flag)
    assert ran.code == 2
    assert "1 left out, without a prompt or caption: mute.wav" in ran.error
    assert "1 left out, silent: quiet.wav" in ran.error
    assert not (folder / "new").exists()


def test_no_torch_is_needed(folder: Path) -> None:
    code = (
        "import sys\nfrom tunesmith.cli.main import main\n"
        "words = ['--in', 'outputs', '--out', 'set', '--family', 'ghoul', '--rate', '16000']\n"
        "sys.exit(main(['dataset', 'prepare', *words]) or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------- dataset check, show, split of sounds


@pytest.fixture
def prepared(tunesmith, folder: Path) -> Path:
    tone = np.clip(2.0 * np.sin(2 * np.pi * 200 * np.arange(8_000) / 8_000), -1, 1)
    soundfile.write(folder / "outputs/loud.wav", tone, 8_000)
    for at in range(5):
        (folder / "outputs/loud.txt").write_text("creature screech")
        path = folder / f"outputs/call{at}.wav.credits.json"
        path.write_text('{"prompt": "creature screech"}')
    assert prepare(tunesmith, "--out", "set", "--family", "ghoul", "--copy-audio").code == 0
    return folder / "set"


@pytest.mark.parametrize("words", [(), ("--engine", "stable_audio")])
def test_check_listens_to_sounds(tunesmith, prepared: Path, words: tuple[str, ...]) -> None:
    document = tunesmith("dataset", "check", prepared, *words, "--json").document
    codes = {finding["code"]: finding for finding in document["findings"]}
    assert document["items"] == 5
    assert codes["clipped"]["items"] == ["ghoul__loud.wav"]
    assert "few" in codes
    assert "rate_low" not in codes  # the rate trained at is not known here
    severities = [finding["severity"] for finding in document["findings"]]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)
    ran = tunesmith("dataset", "check", prepared, *words)
    assert "clipped" in ran.out
    assert "picture" not in ran.out
    assert "pose" not in ran.out
    assert "have the same caption" in ran.out
    assert "engine.name=stable_audio" in ran.out


def test_plain_folders_of_sounds_are_told_from_pictures(tunesmith, folder: Path) -> None:
    assert tunesmith("dataset", "check", "outputs", "--json").document["items"] == 6
    for at in range(3):
        Image.new("RGB", (64, 64), (80 * at, 0, 0)).save(folder / f"outputs/{at}.png")
    ran = tunesmith("dataset", "check", "outputs", "--json")
    assert ran.document["items"] == 3
    assert "clipped" not in ran.out


def test_show_and_split_of_sounds(tunesmith, prepared: Path) -> None:
    assert "0.20 s" in tunesmith("dataset", "show", prepared).out
    document = tunesmith("dataset", "split", prepared, "--json").document
    lines = [json.loads(line) for line in (prepared / "metadata.jsonl").read_text().splitlines()]
    held_out = [line["file_name"] for line in lines if line["split"] == "held_out"]
    assert document["held_out"] == [str(prepared / name) for name in held_out]
    assert held_out
