"""States on disk: complete or absent, checked by hash, never a damaged one taken for good."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import training_run
from training_run import Run, assert_same_bits, make_run, recipe_of
from tunesmith.errors import DiskFull, JobError
from tunesmith.training import snapshot
from tunesmith.training.records import packed, unpacked
from tunesmith.training.snapshot import describe_state, newest_state, retain, save_state


@pytest.fixture
def run(world: Path) -> Run:
    made = make_run(world, recipe_of(world, optimiser={"ema_decay": 0.9}))
    made.go(1)
    return made


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_state_is_three_files_that_a_person_can_check(run: Run, tmp_path: Path) -> None:
    folder = run.save(tmp_path / "states")
    assert names(folder) == ["manifest.json", "state.json", "state.safetensors"]
    manifest = json.loads((folder / "manifest.json").read_text())
    for name, entry in manifest["files"].items():
        data = (folder / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    tensors = load_file(folder / "state.safetensors")
    assert {name.split("/")[0] for name in tensors} == {"parameter", "ema", "optimiser"}
    name, value = next(iter(run.state.parameters.items()))
    assert torch.equal(tensors[f"parameter/{name}"], value)
    assert torch.equal(tensors[f"optimiser/{name}/exp_avg"], run.state.optimiser.state[value]["exp_avg"])
    facts = describe_state(folder)
    assert (facts["step"], facts["position_items"], facts["recipe_hash"]) == (1, run.state.position_items, "r")
    assert facts["environment"]["threads"] == torch.get_num_threads()


def test_full_states_hold_buffers_too(world: Path, tmp_path: Path) -> None:
    run = make_run(world, recipe_of(world, method={"name": "full"}))
    counter = torch.nn.BatchNorm1d(2)
    run.state.buffers["denoiser/seen"] = counter.running_mean  # type: ignore[assignment]
    counter.running_mean[:] = 7.0  # type: ignore[index]
    run.save(tmp_path)
    counter.running_mean[:] = 0.0  # type: ignore[index]
    run.load(tmp_path)
    assert counter.running_mean.tolist() == [7.0, 7.0]  # type: ignore[union-attr]


def test_damage_sends_a_run_to_the_older_state_and_never_silently_to_the_start(run: Run, tmp_path: Path) -> None:
    assert newest_state(tmp_path / "none") is None
    first = run.save(tmp_path)
    run.go(2)
    second = run.save(tmp_path)
    assert newest_state(tmp_path) == second
    file = second / "state.safetensors"
    data = bytearray(file.read_bytes())
    data[-5] ^= 1  # one bit of one weight
    file.write_bytes(data)
    assert newest_state(tmp_path) == first
    assert names(tmp_path) == [f"damaged-{second.name}", first.name], "a damaged state must not count as one to keep"
    (first / "manifest.json").unlink()
    with pytest.raises(JobError, match=r"all 1 states in .* are damaged"):
        newest_state(tmp_path)
    assert first.exists()


@pytest.mark.parametrize("damage", ["missing file", "cut short", "manifest no json", "file too many"])
def test_every_kind_of_damage_is_seen(run: Run, tmp_path: Path, damage: str) -> None:
    folder = run.save(tmp_path)
    match damage:
        case "missing file":
            (folder / "state.json").unlink()
        case "cut short":
            os.truncate(folder / "state.safetensors", 100)
        case "manifest no json":
            (folder / "manifest.json").write_text("{")
        case _:
            manifest = json.loads((folder / "manifest.json").read_text())
            manifest["files"]["other"] = manifest["files"]["state.json"]
            (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(JobError, match="damaged"):
        newest_state(tmp_path)


def test_what_a_killed_process_left_is_no_state_and_goes_away(run: Run, tmp_path: Path) -> None:
    left = tmp_path / ".step-00000009.123.partial"
    left.mkdir(parents=True)
    (left / "state.safetensors").write_bytes(b"half")
    assert newest_state(tmp_path) is None
    folder = run.save(tmp_path)
    assert names(tmp_path) == [folder.name]


def test_a_state_moved_aside_for_one_that_never_came_is_put_back(run: Run, tmp_path: Path) -> None:
    folder = run.save(tmp_path)
    folder.rename(tmp_path / f".{folder.name}.abc.old")
    assert newest_state(tmp_path) == folder
    (tmp_path / f".{folder.name}.abc.old").mkdir()  # here the newer one came: the old one goes at the next save
    run.go(2)
    run.save(tmp_path)
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


@pytest.mark.parametrize("file", ["state.safetensors", "state.json", "manifest.json"])
def test_a_full_disk_leaves_the_old_state_and_nothing_else(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    old = run.save(tmp_path)
    run.go(2)
    write, count = os.fsync, {"state.safetensors": 1, "state.json": 3, "manifest.json": 5}[file]
    calls: list[int] = []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) == count:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull, match="no room left"):
        run.save(tmp_path)
    assert len(calls) == count
    assert names(tmp_path) == [old.name]
    monkeypatch.undo()
    assert newest_state(tmp_path) == old
    assert newest_state(tmp_path) == old
    run.save(tmp_path)
    assert len(names(tmp_path)) == 2


def test_retain_keeps_the_newest_and_the_best(run: Run, tmp_path: Path) -> None:
    for until in range(1, 6):
        run.go(until)
        run.save(tmp_path)
    gone = retain(tmp_path, newest=2, best=2)
    assert [path.name for path in gone] == ["step-00000001", "step-00000003"]
    assert names(tmp_path) == [f"step-{step:08d}" for step in (2, 4, 5)]
    assert retain(tmp_path, newest=2, best=None) == (tmp_path / "step-00000002",)
    assert retain(tmp_path / "none") == ()
    # A kill within an earlier thinning out leaves a folder half deleted; nothing may ever be saved again to clear it.
    (tmp_path / ".step-00000001.4711.partial").mkdir()
    assert retain(tmp_path) == ()
    assert not list(tmp_path.glob(".*"))


def test_saving_a_step_twice_keeps_the_first(run: Run, tmp_path: Path) -> None:
    folder = run.save(tmp_path)
    made = (folder / "manifest.json").stat().st_ino
    assert run.save(tmp_path) == folder
    assert (folder / "manifest.json").stat().st_ino == made
    assert describe_state(run.save(tmp_path, "longer"))["recipe_hash"] == "longer"  # the recipe was extended
    (folder / "state.safetensors").write_bytes(b"damaged")
    run.save(tmp_path, "longer")
    assert newest_state(tmp_path) == folder


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"method": {"rank": 3}}, "other tensors than this run trains.*Expected shape"),
        ({"method": {"components": ("denoiser", "text_encoder")}}, "other tensors"),
        ({"optimiser": {"name": "lion"}}, "saved by AdamW over 1 components.*Lion over 1"),
    ],
)
def test_another_recipes_state_is_refused(
    run: Run, world: Path, tmp_path: Path, changes: dict[str, Any], match: str
) -> None:
    run.save(tmp_path)
    changes.setdefault("optimiser", {})["ema_decay"] = 0.9
    with pytest.raises(JobError, match=match):
        make_run(world, recipe_of(world, **changes)).load(tmp_path)


def test_a_different_machine_is_named(run: Run, world: Path, tmp_path: Path) -> None:
    run.save(tmp_path)
    other = make_run(world, recipe_of(world, optimiser={"ema_decay": 0.9}))
    other.environment.update({"torch": "1.0", "cpu_features": ["DEFAULT"], "precision": "bf16"})
    notes = other.load(tmp_path)
    assert [note.split(" was ")[0] for note in notes] == [
        "not bit-exact: precision",
        "not bit-exact: torch",
        "not bit-exact: cpu_features",
    ]
    assert notes[0] == "not bit-exact: precision was fp32 and is bf16"


def test_threads_are_restored_unless_others_were_asked_for(
    run: Run, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_num_threads()
    run.environment["threads"] = 2
    run.save(tmp_path)
    monkeypatch.setattr(snapshot, "available_threads", lambda: 2)
    try:
        assert make_run(world, run.recipe).load(tmp_path) == ()
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)
        assert make_run(world, run.recipe).load(tmp_path, threads_asked=1) == ("not bit-exact: threads was 2 and is 1",)
        monkeypatch.setattr(snapshot, "available_threads", lambda: 1)
        assert make_run(world, run.recipe).load(tmp_path) == ("not bit-exact: threads was 2 and is 1",)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_the_scaler_is_part_of_the_state(run: Run, world: Path, tmp_path: Path) -> None:
    run.state.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    run.state.scaler.scale(torch.zeros(()))  # its scale exists from the first use on
    run.state.overflows = 3
    run.save(tmp_path)
    other = make_run(world, run.recipe)
    other.state.scaler = torch.amp.GradScaler("cpu")
    other.load(tmp_path)
    assert other.state.scaler.state_dict() == run.state.scaler.state_dict()
    assert other.state.overflows == 3


@pytest.mark.parametrize(
    "value", [None, True, 3, "x", 0.1, 1e-310, float("inf"), (0.9, 0.999), [1, (2.5,)], {"a": {"b": 0.3}}]
)
def test_numbers_survive_json_exactly(value: Any) -> None:
    assert unpacked(json.loads(json.dumps(packed(value), allow_nan=False))) == value


def test_what_a_file_cannot_hold_is_an_error() -> None:
    with pytest.raises(JobError, match="a set"):
        packed({1, 2})


KILLED = """
import os, signal, sys
from pathlib import Path
import training_run
from tunesmith.weights import atomic
world, states, calls = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
run = training_run.make_run(world, training_run.recipe_of(world, optimiser={"ema_decay": 0.9}))
run.load(states)
run.go(2)
real, seen = os.fsync, []
def dying(handle):
    seen.append(handle)
    if len(seen) == calls:
        os.kill(os.getpid(), signal.SIGKILL)
    real(handle)
os.fsync = dying
run.save(states)
"""


@pytest.mark.parametrize("call", [1, 9])
def test_a_kill_while_saving_leaves_a_state_to_go_on_from(run: Run, world: Path, tmp_path: Path, call: int) -> None:
    run.save(tmp_path)
    paths = os.pathsep.join([str(Path(training_run.__file__).parent), os.environ["PYTHONPATH"]])
    command = [sys.executable, "-c", KILLED, str(world), str(tmp_path), str(call)]
    done = subprocess.run(command, check=False, env={**os.environ, "PYTHONPATH": paths})
    assert done.returncode == -signal.SIGKILL
    resumed = make_run(world, run.recipe)
    resumed.load(tmp_path)
    resumed.go(4)
    run.go(4)
    assert_same_bits(resumed.bits(), run.bits())
    resumed.save(tmp_path)
    assert not any(name.startswith(".") for name in names(tmp_path))


def test_an_output_path_under_a_file_is_one_clear_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "states").write_text("a file")
    with pytest.raises(Exception, match="is a file"):
        save_state(run.state, tmp_path / "states" / "deeper", environment={}, recipe_hash="r")
