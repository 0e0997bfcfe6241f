"""Prior items of sounds, drawn by the base. Those of pictures are in test_work.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from job_cases import SoundWorld, losses
from job_killing import open_nursery
from tunesmith.data.audio import read_audio, read_audio_header
from tunesmith.engines.index import engine_named
from tunesmith.engines.protocol import Media
from tunesmith.jobs.control import request
from tunesmith.jobs.folder import JobFolder
from tunesmith.jobs.items import gather
from tunesmith.jobs.status import read_status
from tunesmith.jobs.work import prior, stops, work

PROMPTS = ["a creature", "a noise"]
WANTED: dict[str, Any] = {"data__prior": "generated", "data__prior_prompts": PROMPTS, "data__prior_items": 4}


@pytest.fixture(scope="module")
def whole(hasty: None, sound_world: SoundWorld, tmp_path_factory: pytest.TempPathFactory) -> JobFolder:
    """A job with prior items that nobody disturbed."""
    job = sound_world.job(tmp_path_factory.mktemp("whole"), **WANTED)
    assert work(job.path) == 0
    return job


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_prior_sounds_are_what_the_base_draws(sound_world: SoundWorld, whole: JobFolder) -> None:
    assert sorted(contents(whole.prior)) == sorted(
        f"{index:05d}.{end}" for index in range(4) for end in ("wav", "wav.credits.json", "txt")
    )
    engine, cpu = engine_named("stable_audio"), torch.device("cpu")
    sampler = engine.load_sampler(engine.open(sound_world.recipe().base), cpu, torch.float32)
    for index in range(4):
        file = whole.prior / f"{index:05d}.wav"
        assert file.with_suffix(".txt").read_text() == PROMPTS[index % 2]
        assert read_audio_header(file)["seconds"] == 0.5  # the window, to the sample
        seed = json.loads(Path(f"{file}.credits.json").read_text())["seed"]
        wanted = engine.facts.request(prompt=PROMPTS[index % 2], seed=seed, seconds=0.5, window_seconds=0.5)
        (*_, media) = engine.sample(sampler, wanted)
        assert np.array_equal(read_audio(file)[0], media.data)
    assert len({data for name, data in contents(whole.prior).items() if name.endswith("wav")}) == 4


def test_they_are_trained_on(sound_world: SoundWorld, whole: JobFolder, tmp_path: Path) -> None:
    recipe = sound_world.recipe(**WANTED)
    gathered = gather(recipe, engine_named("stable_audio"), home=tmp_path, generated=whole.prior)
    assert sorted(item.text["caption"] for item in gathered.prior) == sorted(PROMPTS * 2)
    assert all(item.media["audio"].facts["seconds"] == 0.5 for item in gathered.prior)
    plan = json.loads(whole.plan_file.read_text())
    assert (plan["prior_items"], plan["items"], plan["held_out"]) == (4, 2, 3)
    assert plan["dataset_hash"] == gathered.hash
    plain = sound_world.job(tmp_path)
    assert work(plain.path) == 0
    assert losses(plain) != losses(whole)


def test_running_again_draws_nothing(whole: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(whole.prior)
    monkeypatch.setattr(prior, "drawn", None)
    assert work(whole.path) == 0
    assert contents(whole.prior) == before


def test_a_stop_within_and_an_item_without_its_caption(
    sound_world: SoundWorld, whole: JobFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a kill can leave: a sound that is cut off, one whose caption is missing, something half-written aside."""
    job = sound_world.job(tmp_path, **WANTED)
    monkeypatch.setattr(stops, "_LOOK_EVERY_SECONDS", 0.0)
    real, asked = prior.drawn, []

    def stopped(*words: Any) -> Media | None:
        asked.append(words)
        if len(asked) == 3:
            request(job, "stop")
        return real(*words)

    monkeypatch.setattr(prior, "drawn", stopped)
    assert work(job.path) == 130
    assert sorted(path.name for path in job.prior.glob("*.txt")) == ["00000.txt", "00001.txt"]
    assert read_status(job).state == "paused"
    (job.prior / "00001.txt").unlink()
    (job.prior / "00002.wav").write_bytes((job.prior / "00000.wav").read_bytes()[:100])
    asked.clear()
    monkeypatch.setattr(prior, "drawn", lambda *words: asked.append(words) or real(*words))
    assert work(job.path) == 0
    assert len(asked) == 3  # the first one was whole
    assert contents(job.prior) == contents(whole.prior)
    assert losses(job) == losses(whole)


def test_a_kill_loses_what_was_not_whole_and_nothing_else(sound_world: SoundWorld, tmp_path: Path) -> None:
    """A real one, of a real process, which draws the usual hundred steps."""
    wanted = {**WANTED, "data__prior_items": 3, "length__steps": 1}
    shot, calm = (sound_world.job(tmp_path / name, **wanted) for name in ("shot", "calm"))
    first = shot.prior / "00000.wav"
    with open_nursery() as nursery:
        assert nursery.shoot(shot, "a prior item", lambda job: first.with_suffix(".txt").exists()).hit
        assert 1 <= len(list(shot.prior.glob("*.txt"))) < 3
        written = first.stat().st_mtime_ns
        assert (nursery.finish(shot), nursery.finish(calm)) == (0, 0)
    assert first.stat().st_mtime_ns == written
    whole = {name: data for name, data in contents(shot.prior).items() if not name.startswith(".")}
    assert whole == contents(calm.prior)
    assert losses(shot) == losses(calm)


def test_without_a_window_they_are_as_long_as_the_bases_own(
    hasty: None, sound_world: SoundWorld, tmp_path: Path
) -> None:
    job = sound_world.job(tmp_path, **{**WANTED, "data__prior_items": 1}, engine__window_seconds=None)
    assert work(job.path) == 0
    assert read_audio_header(job.prior / "00000.wav")["seconds"] == 1.024


def test_a_base_that_draws_nan_is_no_teacher(
    hasty: None, sound_world: SoundWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_named("stable_audio")
    real = type(engine).sample

    def broken(self: Any, sampler: Any, request: Any, should_stop: Any = lambda: False) -> Iterator[Any]:
        for event in real(self, sampler, request, should_stop):
            if isinstance(event, Media):
                event.data[0, 7] = np.nan
            yield event

    monkeypatch.setattr(type(engine), "sample", broken)
    job = sound_world.job(tmp_path, **WANTED)
    assert work(job.path) == 3
    assert "has NaN or Inf in 1 of its 1,000 samples" in read_status(job).reason
    assert list(job.prior.iterdir()) == []
