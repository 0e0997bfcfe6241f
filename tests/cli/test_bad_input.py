"""Bad input: one clear line on stderr, the right exit code, and nothing half-written."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tiny_sd import write_single_file
from tunesmith.catalog.shelf import Shelf


def leftovers(home: Path) -> list[Path]:
    """Jobs and checkpoints that should not be there."""
    return [path for name in ("jobs", "checkpoints") if (home / name).exists() for path in (home / name).iterdir()]


def empty_the_folder(w) -> None:
    for path in w.pictures.iterdir():
        path.unlink()


def one_level_too_deep(w) -> None:
    inner = w.pictures / "a" / "b" / "c"
    inner.mkdir(parents=True)
    for path in list(w.pictures.glob("*.*")):
        path.rename(inner / path.name)


def one_level_too_shallow(w) -> None:
    w.recipe.write_text(w.recipe.read_text().replace(str(w.pictures), str(w.pictures / "0.png")))


def unreadable(w) -> None:
    (w.pictures / "0.png").write_bytes(b"not a picture at all")


def truncated(w) -> None:
    Image.effect_noise((64, 64), 90).convert("RGB").save(w.pictures / "0.png")
    data = (w.pictures / "0.png").read_bytes()
    (w.pictures / "0.png").write_bytes(data[: len(data) // 2])


def hundred_megapixels(w) -> None:
    Image.new("1", (10_000, 10_000)).save(w.pictures / "0.png")


def non_utf8_caption(w) -> None:
    (w.pictures / "0.txt").write_bytes(b"qb_peter \xff\xfe caf\xe9")


def base_missing(w) -> None:
    w.base.unlink()


def base_of_another_architecture(w) -> None:
    write_single_file(w.base)


def base_cut_short(w) -> None:
    w.base.write_bytes(w.base.read_bytes()[:100])


def add(line: str) -> Callable[[object], None]:
    def change(w) -> None:
        w.recipe.write_text(w.recipe.read_text() + line)

    return change


def replace(old: str, new: str) -> Callable[[object], None]:
    def change(w) -> None:
        text = w.recipe.read_text()
        assert old in text
        w.recipe.write_text(text.replace(old, new))

    return change


REFUSED_BEFORE = [
    (empty_the_folder, ("pictures is empty",)),
    (one_level_too_deep, ("pictures",)),
    (one_level_too_shallow, ("0.png",)),
    (unreadable, ("0.png",)),
    (hundred_megapixels, ("0.png", "megapixel")),
    (non_utf8_caption, ("0.txt", "UTF-8")),
    (base_missing, ("base.safetensors",)),
    (base_of_another_architecture, ("base.safetensors",)),
    (base_cut_short, ("base.safetensors",)),
    (replace("rank: 2", "rnak: 2"), ("line", "method.rnak", "Did you mean 'method.rank'?")),
    (replace("rank: 2", "rank: 0"), ("line", "method.rank is 0", "at least 1")),
    (add("optimiser: {rate: -1e-4}\n"), ("line 8", "optimiser.rate", "at least 0")),
    (add("method: {rank: 4}\n"), ("method",)),  # a section written twice
    (add("output: [\n"), ("recipe.yaml",)),
    (replace("engine: test_pictures", "engine: stable_difusion"), ("Did you mean 'stable_diffusion'?",)),
]


@pytest.mark.parametrize(("spoil", "words"), REFUSED_BEFORE, ids=lambda value: getattr(value, "__name__", ""))
def test_refused_before_anything_starts(tunesmith, workshop, home: Path, spoil, words: tuple[str, ...]) -> None:
    spoil(workshop)
    ran = tunesmith("train", workshop.recipe, "--on", "inline")
    assert ran.code == 2
    for word in words:
        assert word in ran.error
    assert leftovers(home) == []


def test_a_truncated_picture_is_named(tunesmith, workshop, home: Path) -> None:
    """Its header is whole, so it is found when it is decoded; nothing reaches the catalog."""
    truncated(workshop)
    ran = tunesmith("train", workshop.recipe, "--on", "inline")
    assert ran.code == 2
    assert "0.png" in ran.error
    assert not (home / "checkpoints").exists()


def test_an_empty_caption_is_said_and_not_fatal(tunesmith, workshop) -> None:
    (workshop.pictures / "0.txt").write_text("")
    ran = tunesmith("plan", workshop.recipe)
    assert ran.code == 0
    assert "caption" in ran.out
    assert "empty" in ran.out


class Hostile:
    """Would make a file when it is unpickled by anyone careless."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


def test_a_hostile_pickle_is_refused_and_not_obeyed(tunesmith, workshop, home: Path) -> None:
    ran_file, evil = workshop.folder / "ran", workshop.folder / "evil.ckpt"
    with zipfile.ZipFile(evil, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"state_dict": Hostile(ran_file)}))
    ran = tunesmith("train", workshop.recipe, "engine.name=stable_diffusion", f"base.path={evil}", "--on", "inline")
    assert ran.code == 2
    assert "evil.ckpt" in ran.error
    assert not ran_file.exists()
    assert leftovers(home) == []


def test_output_path_under_a_regular_file(tunesmith, workshop, home: Path) -> None:
    (workshop.folder / "file").write_text("")
    ran = tunesmith("--home", workshop.folder / "file" / "home", "train", workshop.recipe, "--on", "inline")
    assert ran.code == 2
    assert "file" in ran.error
    assert (workshop.folder / "file").read_text() == ""


def test_exports_under_a_regular_file(tunesmith, workshop) -> None:
    (workshop.folder / "file").write_text("")
    ran = tunesmith(
        "train", workshop.recipe, "--on", "inline", "--export", "kohya", "--out", workshop.folder / "file" / "x"
    )
    assert ran.code == 2
    assert str(workshop.folder / "file") in ran.error


@pytest.mark.skipif(sys.platform != "linux", reason="the file behind a descriptor is read from /proc")
def test_a_full_disk_blocks_the_job_and_keeps_what_was_there(tunesmith, workshop, home: Path, monkeypatch) -> None:
    """ENOSPC from the operating system, at the first state that is written."""
    import tunesmith.weights.atomic as atomic

    assert tunesmith("train", workshop.recipe, "--on", "inline").code == 0
    (job,) = tunesmith("jobs", "list", "--json").document
    before = sorted((home / "jobs" / job["id"] / "states").rglob("*"))
    real = os.fsync

    def full(number: int) -> None:
        path = Path(f"/proc/self/fd/{number}").readlink()
        if "states" in str(path):
            raise OSError(28, "No space left on device", str(path))
        real(number)

    with monkeypatch.context() as patched:
        patched.setattr(atomic.os, "fsync", full)
        ran = tunesmith("train", "-r", job["id"], "--steps", 6, "--on", "inline")
    assert ran.code == 5
    assert "disk" in ran.error
    assert tunesmith("jobs", "show", job["id"], "--json").document["status"]["state"] == "blocked"
    assert [path for path in before if not path.exists()] == []
    assert tunesmith("jobs", "resume", job["id"], "--on", "inline").code == 0


def test_resume_with_a_changed_recipe(tunesmith, workshop, home: Path) -> None:
    assert tunesmith("train", workshop.recipe, "--on", "inline").code == 0
    (job,) = tunesmith("jobs", "list", "--json").document
    recipe = (home / "jobs" / job["id"] / "recipe.yaml").read_text()
    ran = tunesmith("train", "-r", job["id"], "--rank", 4, "--on", "inline")
    assert ran.code == 2
    assert "method.rank: 2 -> 4" in ran.error
    shorter = tunesmith("train", "-r", job["id"], "--steps", 2, "--on", "inline")
    assert "may only grow" in shorter.error
    assert (home / "jobs" / job["id"] / "recipe.yaml").read_text() == recipe


def test_resume_of_a_job_that_is_not_there(tunesmith) -> None:
    ran = tunesmith("train", "-r", "nowhere")
    assert (ran.code, "nowhere" in ran.error) == (2, True)


def test_resume_of_weights_says_how_to_start_from_them(tunesmith, workshop) -> None:
    ran = tunesmith("train", workshop.recipe, "-r", workshop.base)
    assert ran.code == 2
    assert f"--base {workshop.base}" in ran.error


def test_a_lora_for_another_base(tunesmith, workshop, home: Path) -> None:
    """An SD LoRA on a base whose layers it does not know, for generation, import and as a start."""
    stem = "lora_unet_down_blocks_9_attentions_0_proj_in"
    lora = workshop.folder / "other.safetensors"
    save_file(
        {
            f"{stem}.lora_down.weight": torch.ones(2, 8),
            f"{stem}.lora_up.weight": torch.ones(8, 2),
            f"{stem}.alpha": torch.tensor(2.0),
        },
        lora,
    )
    words = ("--base", workshop.base, "--engine", "test_pictures")
    for ran in (
        tunesmith("checkpoints", "import", lora, *words),
        tunesmith("generate", "--checkpoint", lora, *words, "--out", workshop.folder / "x.png"),
        tunesmith("train", workshop.recipe, "--init", lora, "--on", "inline"),
    ):
        assert ran.code == 2
        assert "other.safetensors" in ran.error or "down_blocks_9" in ran.error
    assert not (workshop.folder / "x.png").exists()
    assert not (home / "checkpoints").exists() or tunesmith("checkpoints", "list", "--json").document == []


def test_two_processes_on_one_job(tunesmith, workshop, home: Path) -> None:
    from tunesmith.jobs.folder import JobFolder
    from tunesmith.jobs.lock import hold

    assert tunesmith("train", workshop.recipe, "--on", "inline").code == 0
    (job,) = tunesmith("jobs", "list", "--json").document
    with hold(JobFolder(home / "jobs" / job["id"])):
        for on in ("inline", "local"):
            ran = tunesmith("jobs", "resume", job["id"], "--on", on)
            assert ran.code == 4
            assert str(os.getpid()) in ran.error


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("on", ["inline", "local"])
def test_ctrl_c_saves_the_state_and_ends_with_130(workshop, home: Path, on: str, tunesmith) -> None:
    command = [
        sys.executable,
        "-m",
        "tunesmith",
        "train",
        str(workshop.recipe),
        "--steps",
        "100000",
        "--on",
        on,
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step ") and "s/step" in line:
            break
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "Traceback" not in rest + errors
    assert "stopped by SIGINT" in errors.splitlines()[-1] or "paused on request" in errors.splitlines()[-1]
    assert "error" not in errors  # it was asked for
    (job,) = tunesmith("jobs", "list", "--json").document
    assert job["status"]["state"] == "paused"
    assert job["status"]["saved_step"] == job["status"]["step"] > 0


def test_generate_refuses_what_the_engine_does_not_know(tunesmith, workshop) -> None:
    words = ("--engine", "test_pictures", "--base", workshop.base, "--out", workshop.folder / "x.png")
    cases = {
        ("--scheduler", "ddim"): "scheduler",
        ("--steps", 0): "at least 1",
        ("--count", 2): "Name a folder",
        ("colour=red",): "colour",
        ("prompt",): "KNOB=VALUE",
        ("--checkpoint", "nothing"): "no checkpoint is called",
    }
    for extra, named in cases.items():
        ran = tunesmith("generate", *words, *extra)
        assert ran.code == 2, extra
        assert named in ran.error
    assert not (workshop.folder / "x.png").exists()


@pytest.mark.parametrize("below", ["x", "x/y.png", ""])
def test_generate_under_a_regular_file_is_refused_before_loading(tunesmith, tmp_path: Path, below: str) -> None:
    (tmp_path / "file.txt").write_text("mine")
    ran = tunesmith("generate", "--base", tmp_path / "missing", "--out", tmp_path / "file.txt" / below)
    assert ran.code == 2
    assert f"{tmp_path / 'file.txt'} is a file. Expected a folder. Name another with --out." in ran.error
    assert (tmp_path / "file.txt").read_text() == "mine"


def test_a_device_that_cannot_be_is_refused_by_plan_and_train(tunesmith, workshop, home: Path) -> None:
    for command in ("plan", "train"):
        ran = tunesmith(command, workshop.recipe, "--device", "foo")
        assert ran.code == 2
        assert "resources.device is 'foo'. Expected auto, cpu, cuda, cuda:1 or mps." in ran.error
    assert leftovers(home) == []


def test_generate_without_a_base_says_so(tunesmith) -> None:
    assert "--base" in tunesmith("generate", "--engine", "test_pictures").error


def test_a_job_that_takes_long_is_not_waited_for(tunesmith, workshop) -> None:
    """--detach returns while the job goes on; cancelling it ends it."""
    ran = tunesmith("train", workshop.recipe, "--steps", 100000, "--on", "local", "--detach")
    assert ran.code == 0, ran.err
    (job,) = tunesmith("jobs", "list", "--json").document
    tunesmith("jobs", "cancel", job["id"])
    deadline = time.monotonic() + 120
    while tunesmith("jobs", "list", "--json").document[0]["status"]["state"] in ("queued", "running"):
        assert time.monotonic() < deadline
    assert tunesmith("jobs", "list", "--json").document[0]["status"]["state"] == "cancelled"


def test_generate_never_writes_over_a_picture(tunesmith, workshop, tmp_path: Path) -> None:
    words = ("generate", "--base", workshop.base, "--engine", "test_pictures", "--prompt", "a cat", "--seed", 4)
    for name in ("a-cat-4.png", "a-cat-4-2.png", "a-cat-4-3.png"):
        assert tunesmith(*words, "--out", tmp_path / "drawn").code == 0
        assert (tmp_path / "drawn" / name).is_file()
    one = tmp_path / "one.png"
    one.write_text("mine")
    ran = tunesmith(*words, "--out", one)
    assert ran.code == 2
    assert f"{one} is there already. Choose another name, or replace it with --force." in ran.error
    assert one.read_text() == "mine"
    assert tunesmith(*words, "--out", one, "--force").code == 0
    assert one.read_bytes()[:4] == b"\x89PNG"


def test_verify_takes_a_typo_for_a_typo(tunesmith, workshop, home: Path, tmp_path: Path) -> None:
    ran = tunesmith("train", workshop.recipe, "length.steps=2")
    assert ran.code == 0, ran.error
    name = Shelf(home).list()[0].id
    ran = tunesmith("checkpoints", "verify", name, tmp_path / "zipo.safetensors")
    assert ran.code == 2
    assert "zipo.safetensors does not exist" in ran.error
    assert "eport this" not in ran.error


def test_a_size_the_base_cannot_take_is_refused_by_the_plan(tunesmith, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for index in range(3):
        Image.new("RGB", (40, 40), (80 * index, 0, 0)).save(pictures / f"{index}.png")
    base = write_single_file(tmp_path / "base.safetensors")
    ran = tunesmith("plan", "--data", pictures, "--base", base, "--steps", 3, "--name", "x", "--resolution", 33)
    assert ran.code == 2
    assert "engine.resolution is 33 pixels. Expected a multiple of" in ran.error


def test_a_base_in_the_making_is_no_base_for_an_adapter(tunesmith, tmp_path: Path, home: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for index in range(3):
        Image.new("RGB", (40, 40), (80 * index, 0, 0)).save(pictures / f"{index}.png")
    words = ("--data", pictures, "--steps", 1, "--resolution", 32, "--on", "inline")
    made = ("--method", "scratch", "--stage", "autoencoder", "--architecture", "tiny32", "--name", "half")
    assert tunesmith("train", *words, *made).code == 0
    ran = tunesmith("train", *words, "--base", "half", "--name", "lora")
    assert ran.code == 2
    assert "has no denoiser and no text_encoder yet" in ran.error


def test_merge_and_export_without_an_ending_write_over_nothing(tunesmith, workshop, home: Path, tmp_path: Path) -> None:
    assert tunesmith("train", workshop.recipe, "length.steps=2", "--on", "inline").code == 0
    adapter = Shelf(home).list()[0].id
    base = tmp_path / "base.safetensors"
    base.write_bytes(workshop.base.read_bytes())
    before = base.read_bytes()
    ran = tunesmith("checkpoints", "merge", adapter, "--base", base, "--out", tmp_path / "base")
    assert ran.code == 2
    assert "belongs to the base" in ran.error
    (tmp_path / "mine.safetensors").write_text("mine")
    ran = tunesmith("checkpoints", "merge", adapter, "--out", tmp_path / "mine")
    assert ran.code == 2
    assert "is there already" in ran.error
    assert (base.read_bytes(), (tmp_path / "mine.safetensors").read_text()) == (before, "mine")


@pytest.mark.parametrize("name", ["../../outside", "..", "a/b", "two\nlines", "   ", "x" * 300])
def test_an_outside_lora_does_not_choose_where_files_go(
    tunesmith, workshop, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from tunesmith.weights.files import edit_metadata

    assert tunesmith("train", workshop.recipe, "length.steps=2", "--on", "inline").code == 0
    trained, hostile = Shelf(home).list()[0].id, tmp_path / "hostile.safetensors"
    assert tunesmith("checkpoints", "export", trained, "--out", hostile).code == 0
    edit_metadata(hostile, {"ss_output_name": name, "modelspec.title": name})
    inside = tmp_path / "deep" / "er" / "work"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    ran = tunesmith("checkpoints", "import", hostile, "--base", workshop.base, "--engine", "test_pictures")
    assert ran.code == 0, ran.error
    (taken,) = (card for card in Shelf(home).list() if card.origin == "imported")
    assert taken.name == "hostile"
    assert tunesmith("checkpoints", "export", taken.id).code == 0
    assert [path.parent for path in (tmp_path / "deep").rglob("*.safetensors")] == [inside]
    ran = tunesmith("checkpoints", "import", hostile, "--engine", "test_pictures", "--name", name)
    assert ran.code == 2
    assert "cannot be a name" in ran.error


@pytest.mark.parametrize("value", [[1.0, 2.0], [float("nan")], [float("inf")]])
def test_an_alpha_that_is_no_number(tunesmith, workshop, home: Path, tmp_path: Path, value: list[float]) -> None:
    from safetensors.torch import load_file

    assert tunesmith("train", workshop.recipe, "length.steps=2", "--on", "inline").code == 0
    file = tmp_path / "lora.safetensors"
    assert tunesmith("checkpoints", "export", Shelf(home).list()[0].id, "--layout", "kohya", "--out", file).code == 0
    tensors = load_file(file)
    alpha = next(name for name in tensors if name.endswith(".alpha"))
    save_file({**tensors, alpha: torch.tensor(value)}, file, {"format": "pt"})
    ran = tunesmith("checkpoints", "import", file, "--base", workshop.base, "--engine", "test_pictures")
    assert ran.code == 2
    assert "for the alpha of" in ran.error


def test_a_file_where_the_results_shall_go_is_refused_by_the_plan(tunesmith, workshop, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for below in ("", "deeper"):
        ran = tunesmith("plan", workshop.recipe, "--out", tmp_path / "file" / below)
        assert ran.code == 2
        assert f"{tmp_path / 'file'} is a file. Name a folder (output.folder, --out)." in ran.error


@pytest.mark.parametrize("word", ["data.paths=['']", "base.init=''", "base.path=' '", "output.folder=''"])
def test_an_empty_path_is_no_path(tunesmith, workshop, word: str) -> None:
    ran = tunesmith("plan", workshop.recipe, word)
    assert ran.code == 2
    assert "empty" in ran.error


def test_a_closed_stdout_is_no_defect(tmp_path: Path) -> None:
    words = f"{sys.executable} -m tunesmith --home {tmp_path / 'home'} jobs list >&-"
    done = subprocess.run(words, shell=True, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
