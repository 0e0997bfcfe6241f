"""Credits: what they tell, and what they notice about a base or a checkpoint that is not the same any more."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from tunesmith.engines.protocol import Base, Media, Part
from tunesmith.errors import AdapterError, DataError, RecipeError, TunesmithError, WeightsError
from tunesmith.generation.sidecars import (
    Origin,
    base_record,
    check_replayable,
    check_same,
    checkpoint_record,
    finish_from,
    read_sidecar,
    request_from,
    sidecar_of,
)
from tunesmith.generation.sound.settings import PostSettings
from tunesmith.generation.sounds import Finish, save_sound
from tunesmith.recipe.knobs import knob


@dataclass(frozen=True)
class Request:
    prompt: str = knob("", help="words")
    negative: str | None = knob(None, help="what to keep out")
    seed: int = knob(0, low=0, help="seed")
    seconds: float = knob(1.0, above=0, help="length")
    steps: int = knob(10, low=1, help="steps")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def a_base(folder: Path) -> Base:
    (folder / "denoiser").mkdir(parents=True, exist_ok=True)
    (folder / "denoiser" / "model.safetensors").write_bytes(b"weights")
    (folder / "denoiser" / "config.json").write_text("{}")
    (folder / "denoiser" / "readme.md").write_text("words that bits do not depend on")
    parts = {"denoiser": Part("denoiser", folder / "denoiser", "folder"), "head": Part("head", None, "created")}
    return Base("toy", str(folder), {}, MappingProxyType(parts), "ab" * 32)


def an_origin(folder: Path, **changes: Any) -> Origin:
    lora = folder / "ghoul.safetensors"
    lora.write_bytes(b"lora")
    record = checkpoint_record("ghoul", lora, 0.8, sha256, ("CC-BY-4.0",))
    origin = Origin(
        engine="toy",
        base=base_record(a_base(folder / "base"), sha256),
        checkpoints=(record,),
        licences={"base": "CC0-1.0", "items": ["CC-BY-4.0"]},
        environment={"device": "cpu", "threads": 1},
        prompt="creature screech",
        family="ghoul",
        trigger="ghoul",
    )
    return replace(origin, **changes)


def a_sound() -> Media:
    asked = {"prompt": "creature screech, ghoul", "negative": "music", "seed": 7, "seconds": 0.1, "steps": 4}
    samples = np.random.default_rng(1).standard_normal((2, 800)).astype(np.float32) * 0.1
    return Media("audio", samples, {**asked, "rate": 8000, "checkpoints": [{"name": "ghoul", "weight": 0.8}]})


def written(folder: Path, finish: Finish | None = None) -> tuple[Path, dict[str, Any]]:
    told = sidecar_of(an_origin(folder), a_sound(), created_utc="2026-01-31T12:00:00Z")
    path = save_sound(a_sound(), folder / "out.wav", finish=finish, sidecar=told)
    return path, read_sidecar(path)


def test_credits_hold_what_other_tools_look_for_and_what_they_left_out(tmp_path: Path) -> None:
    path, told = written(tmp_path)
    wanted = {
        "engine": "toy",
        "prompt": "creature screech",
        "expanded_prompt": "creature screech, ghoul",
        "family": "ghoul",
        "seed": 7,
        "created_utc": "2026-01-31T12:00:00Z",
        "device": "cpu",
        "requested_seconds": 0.1,
        "model": str(tmp_path / "base"),
        "toy_steps": 4,
        "toy_negative_prompt": "music",
        "toy_lora_path": str(tmp_path / "ghoul.safetensors"),
        "toy_lora_scale": 0.8,
        "toy_lora_trigger": "ghoul",
        "licence": {"base": "CC0-1.0", "items": ["CC-BY-4.0"]},
        "replay": f"tunesmith generate --replay {path}.credits.json",
    }
    assert {name: told[name] for name in wanted} == wanted
    assert told["checkpoints"][0]["files"] == {"ghoul.safetensors": hashlib.sha256(b"lora").hexdigest()}
    assert told["base"]["header_hash"] == "ab" * 32
    assert told["base"]["files"] == {
        "denoiser/config.json": hashlib.sha256(b"{}").hexdigest(),
        "denoiser/model.safetensors": hashlib.sha256(b"weights").hexdigest(),
    }
    assert {"tunesmith", "torch", "numpy", "soundfile"} <= set(told["versions"])
    assert told["analysis"]["sample_rate"] == 8000
    assert not [name for name, value in told.items() if value is None]


def test_without_a_checkpoint_nothing_is_told_of_one(tmp_path: Path) -> None:
    told = sidecar_of(an_origin(tmp_path, checkpoints=(), family="", trigger=""), a_sound(), created_utc="")
    assert not [name for name in told if "lora" in name or name == "family"]
    assert told["checkpoints"] == []


@pytest.mark.parametrize(
    "finish",
    [
        Finish(),
        Finish(post=PostSettings(denoise=0.3, stack=("denoise", "clip")), mono=True, rate=44_100, subtype="FLOAT"),
        Finish(post=PostSettings(), loop_seconds=0.02),
    ],
)
def test_the_finish_and_the_request_come_back(tmp_path: Path, finish: Finish) -> None:
    _, told = written(tmp_path, finish)
    check_replayable(told, "out")
    assert finish_from(told, "out") == finish
    asked = Request(prompt="creature screech, ghoul", negative="music", seed=7, seconds=0.1, steps=4)
    assert request_from(told, Request, "out") == asked


def test_credits_are_found_beside_their_sound_and_by_their_own_name(tmp_path: Path) -> None:
    path, told = written(tmp_path)
    assert read_sidecar(path.with_name("out.wav.credits.json")) == told


@pytest.mark.parametrize(
    ("text", "words"), [(None, "cannot be read"), ("{", "damaged"), ("[]", "no credits"), ("\xff", "damaged")]
)
def test_credits_that_are_none(tmp_path: Path, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / "x.wav.credits.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=words):
        read_sidecar(tmp_path / "x.wav")


def test_credits_of_another_tool_cannot_be_replayed() -> None:
    theirs = {"engine": "stable_audio_open", "prompt": "growl", "seed": 4}
    with pytest.raises(DataError, match="has no request and no finish and no base"):
        check_replayable(theirs, "x.wav.credits.json")


def test_credits_of_a_later_format_are_refused(tmp_path: Path) -> None:
    _, told = written(tmp_path)
    with pytest.raises(DataError, match="format 2"):
        check_replayable({**told, "format": 2}, "x")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"request": {"steps": 0}}, RecipeError),
        ({"request": []}, DataError),
        ({"finish": {"rate": "fast"}}, DataError),
        ({"finish": {"rate": True}}, DataError),
        ({"finish": {"speed": 2}}, DataError),
        ({"post": {"denoise": {"denoise": 9}}}, RecipeError),
    ],
)
def test_damaged_credits_are_one_clear_error(tmp_path: Path, change: dict[str, Any], error: type) -> None:
    _, told = written(tmp_path)
    with pytest.raises(error):
        _both({**told, **change})


def _both(told: dict[str, Any]) -> None:
    request_from(told, Request, "x")
    finish_from(told, "x")


def lora_changed(folder: Path) -> None:
    (folder / "ghoul.safetensors").write_bytes(b"other")


def weights_changed(folder: Path) -> None:
    (folder / "base" / "denoiser" / "model.safetensors").write_bytes(b"others!")


def tokens_changed(folder: Path) -> None:
    (folder / "base" / "denoiser" / "extra.json").write_text("{}")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lora_changed, AdapterError, r"ghoul.safetensors has the SHA-256 \w{12}…, and it was \w{12}…"),
        (weights_changed, WeightsError, r"denoiser/model.safetensors has the SHA-256"),
        (tokens_changed, WeightsError, r"denoiser/extra.json has the SHA-256 \w{12}…, and it was none"),
    ],
)
def test_what_is_not_the_same_any_more_is_named(tmp_path: Path, change: Any, error: type, words: str) -> None:
    _, told = written(tmp_path)
    check_same(told, an_origin(tmp_path), "out.wav")
    change(tmp_path)
    lora, base = tmp_path / "ghoul.safetensors", tmp_path / "base"
    parts = {"denoiser": Part("denoiser", base / "denoiser", "folder")}
    now = Origin(
        engine="toy",
        base=base_record(Base("toy", str(base), {}, parts, "ab" * 32), sha256),
        checkpoints=(checkpoint_record("ghoul", lora, 0.8, sha256),),
    )
    with pytest.raises(error, match=words):
        check_same(told, now, "out.wav")


def test_a_base_of_another_shape_is_named(tmp_path: Path) -> None:
    _, told = written(tmp_path)
    other = an_origin(tmp_path)
    with pytest.raises(WeightsError, match=r"of another shape .*header cdcdcdcdcdcd…, and it was abababababab…"):
        check_same(told, replace(other, base={**other.base, "header_hash": "cd" * 32}), "out.wav")


def test_a_checkpoint_that_moved_and_has_another_name_is_the_same(tmp_path: Path) -> None:
    _, told = written(tmp_path)
    moved = (tmp_path / "ghoul.safetensors").rename(tmp_path / "renamed.safetensors")
    record = checkpoint_record("renamed", moved, 0.8, sha256)
    check_same(told, replace(an_origin(tmp_path), checkpoints=(record,)), "out.wav")


def test_the_files_of_a_folder_but_not_its_card(tmp_path: Path) -> None:
    folder = tmp_path / "ghoul-12"
    (folder / "inner").mkdir(parents=True)
    for name in ("adapter_model.safetensors", "adapter_config.json", "inner/adapter_model.safetensors", "meta.json"):
        (folder / name).write_text(name)
    files = checkpoint_record("ghoul-12", folder, 1.0, sha256)["files"]
    assert list(files) == ["adapter_config.json", "adapter_model.safetensors", "inner/adapter_model.safetensors"]


def _everything(told: dict[str, Any], origin: Origin) -> None:
    _both(told)
    check_same(told, origin, "x")


@pytest.mark.parametrize("name", ["request", "finish", "base", "checkpoints"])
@pytest.mark.parametrize("value", [None, 3, "x", [3], {"files": 3}, {"header_hash": None}], ids=repr)
def test_damage_anywhere_is_one_of_our_errors(tmp_path: Path, name: str, value: Any) -> None:
    _, told = written(tmp_path)
    broken = json.loads(json.dumps({**told, name: value}))
    with pytest.raises(TunesmithError):
        _everything(broken, an_origin(tmp_path))
