"""Previews of sounds while a model trains. Those of pictures are in test_work.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from job_cases import SoundWorld, checkpoint_files, final_state, losses, raw_lines
from tunesmith.data.audio import read_audio, read_audio_header
from tunesmith.engines.index import engine_named
from tunesmith.engines.protocol import Media
from tunesmith.generation.sheet import ROW_LABEL_WIDTH
from tunesmith.jobs.folder import JobFolder
from tunesmith.jobs.status import read_status
from tunesmith.jobs.work import keeping, work
from tunesmith.jobs.work.live import Live

pytestmark = pytest.mark.usefixtures("hasty")
PROMPTS = ["a growl", "a screech, far away"]
EMA = {"optimiser__ema_decay": 0.9}
STEPS = ("step-00000002", "step-00000004")


@pytest.fixture(scope="module")
def calm(sound_world: SoundWorld, tmp_path_factory: pytest.TempPathFactory) -> JobFolder:
    """A job with dropout and an average, without previews."""
    job = sound_world.job(tmp_path_factory.mktemp("calm"), **EMA)
    assert work(job.path) == 0
    return job


def fingerprint(live: Live) -> dict[str, Any]:
    """Everything of a training that previews could disturb, down to the bits."""
    modules = {**live.model.components, **live.model.frozen}
    named = {f"{role}.{name}": one for role, whole in modules.items() for name, one in whole.named_modules()}
    parameters = {f"{role}.{name}": one for role, whole in modules.items() for name, one in whole.named_parameters()}
    return {
        "weights": {name: one.detach().numpy().tobytes() for name, one in parameters.items()},
        "trains": {name: one.requires_grad for name, one in parameters.items()},
        "average": {name: one.numpy().tobytes() for name, one in (live.state.ema or {}).items()},
        "modes": {name: one.training for name, one in named.items()},
        "modules": {name: id(one) for name, one in named.items()},
        "scales": {name: dict(one.scaling) for name, one in named.items() if hasattr(one, "scaling")},
        "torch": torch.random.get_rng_state().numpy().tobytes(),
        "numpy": repr(np.random.get_state()),
        "grad": torch.is_grad_enabled(),
    }


def test_previews_of_sounds_leave_files_and_change_nothing(
    sound_world: SoundWorld, calm: JobFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    real = keeping.draw_previews

    def watched(run: Any, live: Live) -> None:
        before = fingerprint(live)
        real(run, live)
        after = fingerprint(live)
        seen.append([name for name in before if before[name] != after[name]])

    monkeypatch.setattr(keeping, "draw_previews", watched)
    job = sound_world.job(tmp_path, output__preview_every_steps=2, output__preview_prompts=PROMPTS, **EMA)
    assert work(job.path) == 0
    assert seen == [[], []]
    assert losses(job) == losses(calm)
    name = "state.safetensors"  # weights, average, optimiser; the recipe's hash beside them differs
    assert final_state(job)[name] == final_state(calm)[name]
    ours, theirs = (checkpoint_files(one, read_status(one).checkpoints[-1]) for one in (job, calm))
    assert ours == theirs

    sampled = [(line["step"], line["path"]) for line in raw_lines(job) if line["kind"] == "sampled"]
    assert sampled == [(step, str(job.samples / f"{name}.png")) for step, name in zip((2, 4), STEPS, strict=True)]
    made = sorted(str(path.relative_to(job.samples)) for path in job.samples.rglob("*") if path.is_file())
    files = [f"{index:02d}.wav{end}" for index in range(2) for end in ("", ".credits.json")]
    assert made == sorted([*(f"{step}.png" for step in STEPS), *(f"{step}/{name}" for step in STEPS for name in files)])
    for step in STEPS:
        with Image.open(job.samples / f"{step}.png") as sheet:
            assert sheet.size > (ROW_LABEL_WIDTH + 2 * 300, 2 * 190)  # base beside step, one row a prompt
        header = read_audio_header(job.samples / step / "01.wav")
        assert (header["rate"], header["channels"], header["seconds"]) == (1000, 2, 0.5)
    told = json.loads((job.samples / STEPS[1] / "01.wav.credits.json").read_text())
    assert (told["prompt"], told["seed"], told["window_seconds"]) == (PROMPTS[1], 4, 0.5)
    assert (told["step"], told["job"]) == (4, job.id)
    assert "replay" not in told  # nobody keeps the weights of a step


def test_a_preview_is_what_the_engine_draws_with_those_weights(
    sound_world: SoundWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawn once more outside, and in the base's column from the base alone."""
    engine = engine_named("stable_audio")
    cells: list[Media] = []
    real = type(engine).sample

    def watched(self: Any, sampler: Any, request: Any, should_stop: Any = lambda: False) -> Iterator[Any]:
        for event in real(self, sampler, request, should_stop):
            if isinstance(event, Media):
                cells.append(event)
            yield event

    monkeypatch.setattr(type(engine), "sample", watched)
    job = sound_world.job(tmp_path, output__preview_every_steps=4, output__preview_prompts=PROMPTS[:1])
    assert work(job.path) == 0
    base, tuned = cells
    assert (base.parameters, base.parameters["seconds"]) == (tuned.parameters, 0.5)
    opened = engine.open(sound_world.recipe().base)
    request = engine.facts.request(
        **{name: base.parameters[name] for name in ("prompt", "seed", "seconds", "window_seconds")}
    )
    (*_, alone) = engine.sample(engine.load_sampler(opened, torch.device("cpu"), torch.float32), request, lambda: False)
    assert np.array_equal(base.data, alone.data)
    assert not np.array_equal(base.data, tuned.data)
    kept, rate = read_audio(job.samples / STEPS[1] / "00.wav")
    assert rate == 1000
    assert np.array_equal(kept, tuned.data)  # also beyond full scale, which this base reaches
    assert np.abs(kept).max() > 1


def test_without_prompts_captions_are_used_and_without_a_window_the_bases_own(
    sound_world: SoundWorld, tmp_path: Path
) -> None:
    job = sound_world.job(tmp_path, output__preview_every_steps=4, engine__window_seconds=None)
    assert work(job.path) == 0
    folder = job.samples / STEPS[1]
    prompts = [json.loads(path.read_text())["prompt"] for path in sorted(folder.glob("*.json"))]
    assert prompts
    assert all(prompt.startswith("sound number") for prompt in prompts)
    assert read_audio_header(folder / "00.wav")["seconds"] == 1.024


def test_a_preview_of_nan_is_said_and_the_training_goes_on(
    sound_world: SoundWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_named("stable_audio")
    real = type(engine).sample

    def broken(self: Any, sampler: Any, request: Any, should_stop: Any = lambda: False) -> Iterator[Any]:
        for event in real(self, sampler, request, should_stop):
            if isinstance(event, Media) and request.prompt == PROMPTS[1]:
                event.data[:] = np.nan
            yield event

    monkeypatch.setattr(type(engine), "sample", broken)
    job = sound_world.job(tmp_path, output__preview_every_steps=4, output__preview_prompts=PROMPTS)
    assert work(job.path) == 0
    status = read_status(job)
    assert [warning for warning in status.warnings if "preview 1: the sound of seed 4 has NaN" in warning]
    assert [warning for warning in status.warnings if "preview 1 of the base: the sound of seed 4" in warning]
    assert sorted(path.name for path in (job.samples / STEPS[1]).glob("*.wav")) == ["00.wav"]
    assert Path(status.last_sample).is_file()
