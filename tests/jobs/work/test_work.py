"""Whole jobs in this process: how they end, how they go on, what they leave."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from job_cases import World, checkpoint_files, final_state, losses, raw_lines
from tunesmith.catalog.shelf import Shelf
from tunesmith.errors import JobBusy, JobError
from tunesmith.events import Event, StepDone, Validated
from tunesmith.jobs.control import request
from tunesmith.jobs.folder import JobFolder
from tunesmith.jobs.journal import read_events
from tunesmith.jobs.lock import hold
from tunesmith.jobs.status import read_status
from tunesmith.jobs.work import probe_steps, stops, train_job, work
from tunesmith.jobs.work.results import export_name
from tunesmith.training import snapshot
from tunesmith.training.holdout import Holdout
from tunesmith.weights.atomic import write_text


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`at_step(5, action)` calls `action()` right after step 5 was done, before anything else happens."""
    actions: dict[int, Any] = {}
    real = train_job.train

    def watched(*words: Any, **named: Any) -> Iterator[Event]:
        for event in real(*words, **named):
            if isinstance(event, StepDone) and event.step in actions:
                actions.pop(event.step)()
            yield event

    monkeypatch.setattr(train_job, "train", watched)
    monkeypatch.setattr(stops, "_LOOK_EVERY_SECONDS", 0.0)
    return lambda step, action: actions.__setitem__(step, action)


@pytest.fixture(scope="module")
def calm(world: World, tmp_path_factory: pytest.TempPathFactory) -> JobFolder:
    """A LoRA job that nobody disturbed."""
    job = world.job(tmp_path_factory.mktemp("calm"))
    assert work(job.path) == 0
    return job


def kinds(job: JobFolder) -> list[str]:
    return [line["kind"] for line in read_events(job)]


def test_a_job_leaves_a_checkpoint_with_its_card(world: World, calm: JobFolder) -> None:
    status = read_status(calm)
    assert (status.state, status.exit_code, status.step) == ("completed", 0, 12)
    (card,) = (Shelf(calm.home).get(name) for name in status.checkpoints)
    assert (card.name, card.kind, card.step, card.job) == ("peter lora", "adapter", 12, calm.id)
    assert card.item_count + 2 == 8
    assert card.measures["holdout_loss"] < card.measures["holdout_loss_start"]
    assert card.recipe["method"]["rank"] == 2
    assert card.dataset_hash == json.loads(calm.plan_file.read_text())["dataset_hash"]
    assert checkpoint_files(calm, card.id)
    assert not list(calm.work.glob("*"))
    phases = [line["name"] for line in read_events(calm) if line["kind"] == "phase_ended"]
    assert phases == ["plan", "encode", "load", "train", "register"]
    assert all(peak > 50e6 for peak in status.peak_bytes.values())


def test_losses_fall_and_validation_comes_ten_times_at_most(calm: JobFolder) -> None:
    measured = read_status(calm).validations
    assert [one.step for one in measured] == [0, 4, 8, 12]
    assert measured[-1].loss < measured[0].loss


@pytest.mark.parametrize(
    ("action", "state", "code"),
    [
        ("stop", "paused", 130),
        ("cancel", "cancelled", 130),
        (signal.SIGTERM, "paused", 130),
        (signal.SIGHUP, "paused", 130),
    ],
)
def test_a_stopped_job_goes_on_exactly(
    world: World, calm: JobFolder, tmp_path: Path, at_step: Any, action: str | signal.Signals, state: str, code: int
) -> None:
    job, handler = world.job(tmp_path), signal.getsignal(signal.SIGTERM)
    at_step(5, lambda: request(job, action) if isinstance(action, str) else os.kill(os.getpid(), action))
    assert work(job.path) == code
    status = read_status(job)
    assert (status.state, status.exit_code, status.step, status.saved_step) == (state, code, 5, 5)
    assert work(job.path) == 0
    assert final_state(job) == final_state(calm)
    assert losses(job) == losses(calm)
    # Nothing was done twice: it went on, it did not start over.
    assert [line["step"] for line in raw_lines(job) if line["kind"] == "step"] == list(range(1, 13))
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_second_ctrl_c_ends_at_once_and_loses_only_what_was_not_saved(
    world: World, calm: JobFolder, tmp_path: Path, at_step: Any
) -> None:
    job = world.job(tmp_path)

    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    at_step(5, twice)
    assert work(job.path) == 130
    status = read_status(job)
    assert (status.state, status.saved_step) == ("paused", 3)
    assert "at once" in status.reason
    assert work(job.path) == 0
    assert losses(job) == losses(calm)


def test_requests_are_answered_while_it_goes_on(world: World, tmp_path: Path, at_step: Any) -> None:
    job = world.job(tmp_path)
    at_step(4, lambda: request(job, "save"))
    at_step(7, lambda: request(job, "sample"))
    assert work(job.path) == 0
    lines = read_events(job)
    saved = [line["step"] for line in lines if line["kind"] == "state_saved"]
    assert saved in ([3, 4, 6, 9, 12], [3, 5, 6, 9, 12])
    (sampled,) = (line for line in lines if line["kind"] == "sampled")
    assert Path(sampled["path"]).is_file()


def test_previews_change_nothing(world: World, calm: JobFolder, tmp_path: Path) -> None:
    job = world.job(tmp_path, output__preview_every_steps=4, output__preview_prompts=["a red square"])
    assert work(job.path) == 0
    assert losses(job) == losses(calm)
    found = sorted(str(path.relative_to(job.samples)) for path in job.samples.rglob("*.png"))
    assert found == [
        *(f"step-{step:08d}.png" for step in (4,)),
        "step-00000004/00.png",
        "step-00000008.png",
        "step-00000008/00.png",
        "step-00000012.png",
        "step-00000012/00.png",
    ]
    assert (job.samples / found[1]).read_bytes() != (job.samples / found[5]).read_bytes()


@pytest.mark.parametrize(
    ("layout", "adapter", "first", "name"),
    [
        ("kohya", True, True, "x.safetensors"),
        ("kohya", True, False, "x-kohya.safetensors"),
        ("diffusers", True, True, "x.safetensors"),
        ("diffusers", False, True, "x-diffusers"),
        ("single_file", False, True, "x.safetensors"),
        ("peft", True, True, "x-peft"),
    ],
)
def test_exports_are_named_by_what_they_are(layout: str, adapter: bool, first: bool, name: str) -> None:
    assert export_name("x", layout, adapter=adapter, first=first) == name


def test_max_minutes_saves_and_pauses(world: World, calm: JobFolder, tmp_path: Path, at_step: Any) -> None:
    job = world.job(tmp_path, length__max_minutes=600)
    late = [0.0]
    at_step(4, lambda: late.__setitem__(0, 36_000.0))
    assert work(job.path, clock=lambda: time.monotonic() + late[0]) == 0
    status = read_status(job)
    assert (status.state, status.saved_step) == ("paused", 4)
    assert "max_minutes" in status.reason
    assert work(job.path) == 0
    assert losses(job) == losses(calm)


def test_a_nan_is_rolled_back_and_told_in_one_line(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith_test_engines.pictures import PicturesEngine

    job = world.job(tmp_path)
    real, calls = PicturesEngine.loss, [0]

    def spoiled(self: Any, model: Any, batch: Any, recipe: Any, rng: Any) -> Any:
        loss = real(self, model, batch, recipe, rng)
        calls[0] += torch.is_grad_enabled()
        if calls[0] == 8:
            return dataclasses.replace(loss, total=loss.total * float("nan"), per_item=loss.per_item * float("nan"))
        return loss

    with monkeypatch.context() as patch:
        patch.setattr(PicturesEngine, "loss", spoiled)
        assert work(job.path) == 3
    status = read_status(job)
    assert (status.state, status.step, status.saved_step) == ("failed", 7, 7)
    assert ".png" in status.reason
    assert "\n" not in status.reason
    assert kinds(job).count("rolled_back") == 1
    assert work(job.path) == 0
    assert read_status(job).state == "completed"


def test_a_full_disk_blocks_and_leaves_the_state_before(
    world: World, calm: JobFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = world.job(tmp_path)
    real = snapshot.write_safetensors

    def no_room(path: Path, tensors: Any, *rest: Any) -> None:
        if "00000006" in str(path):
            path.write_bytes(b"half of it")
            raise OSError(28, "No space left on device", str(path))
        real(path, tensors, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(snapshot, "write_safetensors", no_room)
        assert work(job.path) == 5
    status = read_status(job)
    assert (status.state, status.saved_step) == ("blocked", 3)
    assert status.reason.startswith("disk: ")
    assert [path.name for path in job.states.iterdir()] == ["step-00000003"]
    assert work(job.path) == 0
    assert final_state(job) == final_state(calm)
    assert losses(job) == losses(calm)


def test_a_job_without_any_room_can_still_say_so(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesmith.errors import DiskFull
    from tunesmith.jobs.journal import Journal

    job = world.job(tmp_path)
    real = Journal.append

    def full(self: Journal, entry: Any) -> Any:
        if entry.kind == "state" and (job.work / "ballast").exists():
            raise DiskFull("no room left")
        if entry.kind == "step" and entry.step == 5:
            raise DiskFull("no room left")
        return real(self, entry)

    monkeypatch.setattr(Journal, "append", full)
    assert work(job.path) == 5
    assert read_status(job).state == "blocked"


def test_a_defect_is_told_in_one_line_with_its_traceback_in_the_log(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from tunesmith_test_engines.pictures import PicturesEngine

    job = world.job(tmp_path)

    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("somebody blundered")

    with monkeypatch.context() as patch:
        patch.setattr(PicturesEngine, "collate", broken)
        assert work(job.path) == 1
    status = read_status(job)
    assert status.state == "failed"
    assert str(job.log_file) in status.reason
    assert "\n" not in status.reason
    assert "somebody blundered" in job.log_file.read_text()
    assert "Traceback" not in "".join(capfd.readouterr())
    assert work(job.path) == 0


def test_the_second_process_is_told_who_works_there(world: World, tmp_path: Path) -> None:
    job = world.job(tmp_path)
    with hold(job), pytest.raises(JobBusy, match=f"process {os.getpid()}"):
        work(job.path)
    assert not job.events_file.exists()


def test_a_folder_that_is_no_job(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"no manifest\.json"):
        work(tmp_path)
    assert not list(tmp_path.iterdir())


def edit(job: JobFolder, old: str, new: str) -> None:
    text = job.recipe_file.read_text()
    assert old in text
    write_text(job.recipe_file, text.replace(old, new))


def test_a_changed_recipe_is_refused_by_name(world: World, tmp_path: Path, at_step: Any) -> None:
    job = world.job(tmp_path)
    at_step(4, lambda: request(job, "stop"))
    assert work(job.path) == 130
    edit(job, "rank: 2", "rank: 4")
    assert work(job.path) == 2
    assert "method.rank" in read_status(job).reason
    edit(job, "rank: 4", "rank: 2")
    assert work(job.path) == 0


@pytest.mark.parametrize("damage", [None, "{{{", "[]"])
@pytest.mark.parametrize("record", ["plan.json", "accepted.yaml"])
def test_without_its_records_a_run_does_not_go_on(
    world: World, tmp_path: Path, at_step: Any, record: str, damage: str | None
) -> None:
    job = world.job(tmp_path)
    at_step(3, lambda: request(job, "stop"))
    assert work(job.path) == 130
    (job.path / record).unlink()
    if damage is not None:
        (job.path / record).write_text(damage)
    assert work(job.path) == 2
    assert record in read_status(job).reason
    assert "unexpected" not in read_status(job).reason


def test_changed_items_are_refused(world: World, tmp_path: Path, at_step: Any) -> None:
    import shutil

    pictures = tmp_path / "pictures"
    shutil.copytree(world.pictures, pictures)
    job = world.job(tmp_path / "home", data__paths=[str(pictures)])
    at_step(4, lambda: request(job, "stop"))
    assert work(job.path) == 130
    caption = pictures / "000.txt"
    before = caption.read_text()
    caption.write_text("something else")
    assert work(job.path) == 2
    assert "items" in read_status(job).reason
    caption.write_text(before)
    assert work(job.path) == 0


@pytest.mark.parametrize(("schedule", "exact"), [("constant", True), ("cosine", False)])
def test_a_longer_length_goes_on(world: World, tmp_path: Path, schedule: str, exact: bool) -> None:
    long = world.job(tmp_path / "long", optimiser__schedule=schedule, length__steps=18)
    assert work(long.path) == 0
    job = world.job(tmp_path / "grown", optimiser__schedule=schedule)
    assert work(job.path) == 0
    edit(job, "steps: 12", "steps: 18")
    assert work(job.path) == 0
    status = read_status(job)
    assert (status.state, status.step, len(status.checkpoints)) == ("completed", 18, 2)
    assert any("from 12 to 18 steps" in text for text in status.warnings)
    assert (final_state(job)["state.safetensors"] == final_state(long)["state.safetensors"]) is exact
    edit(job, "steps: 18", "steps: 12")
    assert work(job.path) == 2
    assert "length.steps" in read_status(job).reason


def test_running_a_completed_job_again_changes_nothing(world: World, tmp_path: Path) -> None:
    job = world.job(tmp_path, output__exports=["kohya", "diffusers", "peft"])
    assert work(job.path) == 0
    before = final_state(job), read_status(job).checkpoints, read_status(job).exports
    assert work(job.path) == 0
    assert (final_state(job), read_status(job).checkpoints, read_status(job).exports) == before
    assert sorted(path.name for path in job.results.iterdir() if path.suffix != ".json") == [
        "peter lora-diffusers.safetensors",
        "peter lora-peft",
        "peter lora.safetensors",
    ]


def test_a_damaged_state_is_passed_over_and_none_whole_is_refused(
    world: World, calm: JobFolder, tmp_path: Path, at_step: Any
) -> None:
    job = world.job(tmp_path)
    at_step(7, lambda: request(job, "stop"))
    assert work(job.path) == 130
    newest = max(job.states.glob("step-*")) / "state.safetensors"
    data = bytearray(newest.read_bytes())
    data[-1] ^= 1
    newest.write_bytes(data)
    assert work(job.path) == 0
    assert any("step-00000007 is damaged" in text for text in read_status(job).warnings)
    assert losses(job) == losses(calm)
    for state in job.states.glob("step-*"):
        (state / "manifest.json").unlink()
    assert work(job.path) == 2
    assert "damaged" in read_status(job).reason


def test_a_kill_before_a_state_is_told_leaves_no_gap(
    world: World, calm: JobFolder, tmp_path: Path, at_step: Any
) -> None:
    job = world.job(tmp_path)
    at_step(6, lambda: request(job, "stop"))
    assert work(job.path) == 130
    journal = job.events_file.read_bytes()
    # The last line of that kind is of step 6, whose state is in place.
    job.events_file.write_bytes(journal[: journal.rindex(b"\n", 0, journal.rindex(b'"kind": "state_saved"')) + 1])
    job.status_file.unlink()
    assert work(job.path) == 0
    told = [[line["step"] for line in read_events(one) if line["kind"] == "state_saved"] for one in (job, calm)]
    assert told == [[3, 6, 9, 12]] * 2
    assert final_state(job) == final_state(calm)
    assert losses(job) == losses(calm)


def test_the_best_checkpoint_is_kept_beside_the_last(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overshoots(self: Holdout, state: Any) -> Validated:
        return Validated(state.step, 1.0 + abs(state.step - 8))

    monkeypatch.setattr(Holdout, "measure", overshoots)
    job = world.job(tmp_path, output__save_every_steps=8)
    assert work(job.path) == 0
    status = read_status(job)
    assert status.best is not None
    assert status.best.step == 8
    cards = [Shelf(job.home).get(name) for name in status.checkpoints]
    assert [(card.name, card.step) for card in cards] == [("peter lora", 8), ("peter lora-best", 8), ("peter lora", 12)]
    assert cards[1].measures == {"holdout_loss": 1.0, "holdout_loss_start": 9.0}
    assert checkpoint_files(job, cards[1].id) == checkpoint_files(job, cards[0].id)
    assert checkpoint_files(job, cards[1].id) != checkpoint_files(job, cards[2].id)
    assert not (job.path / "best").exists()


def test_prior_items_are_drawn_by_the_base_once(world: World, tmp_path: Path) -> None:
    job = world.job(tmp_path, data__prior="generated", data__prior_prompts=["a thing", "a place"], data__prior_items=4)
    assert work(job.path) == 0
    pictures = {path.name: path.read_bytes() for path in job.prior.iterdir()}
    assert sorted(pictures) == sorted(f"{index:05d}.{end}" for index in range(4) for end in ("png", "txt"))
    assert pictures["00001.txt"] == b"a place"
    assert len({data for name, data in pictures.items() if name.endswith("png")}) == 4
    assert json.loads(job.plan_file.read_text())["prior_items"] == 4
    assert work(job.path) == 0
    assert {path.name: path.read_bytes() for path in job.prior.iterdir()} == pictures


def test_held_out_folders_take_their_items_out_of_training(world: World, tmp_path: Path) -> None:
    import shutil

    held = tmp_path / "held"
    held.mkdir()
    for name in ("000.png", "000.txt", "001.png", "001.txt"):
        shutil.copy(world.pictures / name, held)
    job = world.job(tmp_path / "home", data__holdout_paths=[str(held)], length__steps=2)
    assert work(job.path) == 0
    plan = json.loads(job.plan_file.read_text())
    assert (plan["items"], plan["held_out"]) == (6, 2)


def test_an_adapter_is_no_start_for_a_whole_model(world: World, calm: JobFolder) -> None:
    parent = read_status(calm).checkpoints[0]
    job = world.job(calm.home, "full", base__init=parent)
    assert work(job.path) == 2
    assert "Merge it" in read_status(job).reason


def test_full_weights_of_the_catalog_are_gone_on_from(world: World, tmp_path: Path) -> None:
    first = world.job(tmp_path, "full", length__steps=4)
    assert work(first.path) == 0
    parent = read_status(first).checkpoints[-1]
    second = world.job(tmp_path, "full", base__init=parent, length__steps=2)
    assert work(second.path) == 0
    assert Shelf(tmp_path).get(read_status(second).checkpoints[-1]).parent == parent
    start, end = read_status(second).validations[0], read_status(first).validations[-1]
    assert start.loss == pytest.approx(end.loss, rel=1e-4)
    adapter = world.job(tmp_path, "lora", base__init=parent)
    assert work(adapter.path) == 2
    assert "base.path" in read_status(adapter).reason


def test_a_run_starts_from_an_adapter_of_the_catalog(world: World, calm: JobFolder) -> None:
    parent = read_status(calm).checkpoints[0]
    job = world.job(calm.home, base__init=parent, length__steps=2, output__name="second")
    assert work(job.path) == 0
    card = Shelf(job.home).get(read_status(job).checkpoints[-1])
    assert card.parent == parent
    start, end = read_status(job).validations[0], read_status(calm).validations[-1]
    assert start.loss == pytest.approx(end.loss, abs=1e-6)


def test_an_encode_job_fills_the_cache(world: World, tmp_path: Path) -> None:
    from tunesmith.jobs.folder import create_job

    job = create_job(tmp_path, "encode", world.recipe())
    assert work(job.path) == 0
    assert read_status(job).state == "completed"
    count = len(list((tmp_path / "cache" / "encoded").rglob("*.safetensors")))
    assert count >= 16
    trained = world.job(tmp_path)
    assert work(trained.path) == 0
    assert len(list((tmp_path / "cache" / "encoded").rglob("*.safetensors"))) == count


def test_a_refused_plan_fails_before_anything_is_made(world: World, tmp_path: Path) -> None:
    job = world.job(tmp_path, resources__memory_limit_bytes=1000)
    assert work(job.path) == 2
    assert "memory" in read_status(job).reason
    assert not (tmp_path / "cache" / "encoded").exists()


def test_a_probe_measures_real_steps_and_keeps_nothing(world: World, tmp_path: Path) -> None:
    probe = probe_steps(world.recipe(), tmp_path)
    assert probe.steps == 4
    assert 0 < probe.seconds_per_step < 5
    assert probe.minutes == pytest.approx(probe.seconds_per_step * 12 / 60)
    assert set(probe.peak_bytes) == {"encode", "load", "train"}
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_threads_of_a_state_come_back(world: World, tmp_path: Path, at_step: Any) -> None:
    job = world.job(tmp_path, resources__threads=None)
    torch.set_num_threads(1)
    at_step(4, lambda: request(job, "stop"))
    assert work(job.path) == 130
    state = max(job.states.glob("step-*")) / "state.json"
    assert json.loads(state.read_text())["environment"]["threads"] == 1
    edit(job, "precision: fp32", "precision: fp32, threads: 2")
    try:
        assert work(job.path) == 0
        assert any("not bit-exact: threads" in text for text in read_status(job).warnings)
    finally:
        torch.set_num_threads(1)


def test_every_line_of_the_journal_has_one_writer(world: World, tmp_path: Path, at_step: Any) -> None:
    job = world.job(tmp_path)
    for step in (2, 5, 9):
        at_step(step, lambda: request(job, "stop"))
        assert work(job.path) == 130
    assert work(job.path) == 0
    tokens = list(dict.fromkeys(line["token"] for line in raw_lines(job)))
    assert len(tokens) == 4
    changes = sum(a["token"] != b["token"] for a, b in zip(raw_lines(job), raw_lines(job)[1:], strict=False))
    assert changes == 3


def test_a_stage_brings_its_own_measures(world: World, tmp_path: Path) -> None:
    changes = {"method__stage": "autoencoder", "method__components": [], "data__caption_dropout": 0.0}
    job = world.job(tmp_path, "full", **changes)
    assert work(job.path) == 0
    card = Shelf(job.home).get(read_status(job).checkpoints[-1])
    assert (card.kind, card.stage) == ("weights", "autoencoder")
    assert 3 < card.measures["holdout_psnr_db"] < 60
