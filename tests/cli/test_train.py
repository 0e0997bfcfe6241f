"""From a recipe to pictures, through every command on the way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tunesmith.generation.pictures import read_parameters


@pytest.fixture
def trained(tunesmith, workshop):
    """The job and checkpoint of a finished run."""
    ran = tunesmith("train", workshop.recipe, "--on", "inline")
    assert ran.code == 0, ran.err + ran.out
    job = tunesmith("jobs", "list", "--json").document[-1]
    return job["id"], job["status"]["checkpoints"][-1]


def test_train_says_what_happens_and_what_to_do_next(tunesmith, workshop) -> None:
    ran = tunesmith("train", workshop.recipe, "--on", "inline")
    assert ran.code == 0, ran.err
    assert "3 steps" in ran.out  # the plan
    assert "held-out loss" in ran.out
    assert "completed" in ran.out
    assert "tunesmith concepts add peter --from-checkpoint peter-3-" in ran.out
    assert "\x1b[" not in ran.out  # plain lines where there is no terminal


def test_train_in_a_process_of_its_own(tunesmith, workshop) -> None:
    ran = tunesmith("train", workshop.recipe, "--on", "local")
    assert ran.code == 0, ran.err + ran.out
    assert "completed" in ran.out


def test_train_by_flags_alone(tunesmith, workshop, monkeypatch) -> None:
    monkeypatch.setattr("tunesmith.engines.index.OWN", {"test_pictures": "tunesmith_test_engines.pictures:engine"})
    ran = tunesmith(
        "train", "--data", workshop.pictures, "--base", workshop.base, "--steps", 2, "--name", "maria",
        "--creature-family", "maria=qb_maria", "--rank", 2, "--threads", 1, "--on", "inline",
        "--resources-disk-reserve-bytes", 0,
    )  # fmt: skip
    assert ran.code == 0, ran.err + ran.out
    card = tunesmith("checkpoints", "show", "maria", "--json").document
    assert (card["step"], card["concepts"]) == (2, {"maria": "qb_maria"})


def test_json_is_one_document_about_how_it_ended(tunesmith, workshop) -> None:
    document = tunesmith("train", workshop.recipe, "--on", "inline", "--json").document
    assert (document["status"]["state"], document["status"]["step"]) == ("completed", 3)
    assert Path(document["folder"]).name == document["job"]


def test_plan_starts_nothing(tunesmith, workshop, home: Path) -> None:
    ran = tunesmith("plan", workshop.recipe, "--json")
    assert ran.code == 0, ran.err
    assert ran.document["steps"] == 3
    assert not (home / "jobs").exists()
    words = tunesmith("plan", workshop.recipe)
    assert "3 steps" in words.out
    assert words.code == 0


def test_plan_refuses_what_cannot_fit(tunesmith, workshop, home: Path) -> None:
    ran = tunesmith("plan", workshop.recipe, "resources.memory_limit_bytes=1000")
    assert ran.code == 2
    assert "REFUSED" in ran.out
    assert "memory" in ran.error
    assert tunesmith("train", workshop.recipe, "resources.memory_limit_bytes=1000").code == 2
    assert not (home / "jobs").exists()


def test_plan_probe_runs_real_steps_and_keeps_nothing(tunesmith, workshop, home: Path) -> None:
    ran = tunesmith("plan", workshop.recipe, "--probe", "--json")
    assert ran.code == 0, ran.err
    assert ran.document["probe"]["seconds_per_step"] > 0
    assert not (home / "jobs").exists()


def test_jobs_list_show_and_logs(tunesmith, trained) -> None:
    job, checkpoint = trained
    assert "completed" in tunesmith("jobs", "list").out
    shown = tunesmith("jobs", "show", "peter")
    assert checkpoint in shown.out
    document = tunesmith("jobs", "show", job, "--json").document
    assert document["status"]["step"] == 3
    with Image.open(document["plot"]) as plot:
        assert plot.format == "PNG"
    assert "attempt 1" in tunesmith("jobs", "logs", job).out
    assert tunesmith("jobs", "logs", job, "--tail", 1).out.count("\n") == 1
    assert tunesmith("jobs", "watch", job).code == 0


def test_a_longer_length_goes_on(tunesmith, trained) -> None:
    job, _ = trained
    ran = tunesmith("train", "-r", job, "--steps", 5, "--on", "inline")
    assert ran.code == 0, ran.err + ran.out
    assert "goes on from step 3" in ran.out
    assert tunesmith("jobs", "show", job, "--json").document["status"]["step"] == 5


def test_resume_of_a_finished_job_changes_nothing(tunesmith, trained) -> None:
    job, checkpoint = trained
    assert tunesmith("jobs", "resume", job, "--on", "inline").code == 0
    assert tunesmith("jobs", "show", job, "--json").document["status"]["checkpoints"][-1] == checkpoint


def test_start_from_a_checkpoint(tunesmith, workshop, trained) -> None:
    _, checkpoint = trained
    ran = tunesmith("train", workshop.recipe, "--init", checkpoint, "--name", "second", "--on", "inline")
    assert ran.code == 0, ran.err + ran.out
    assert tunesmith("checkpoints", "show", "second", "--json").document["parent"] == checkpoint


def test_cancel_a_job_nobody_works_on(tunesmith, workshop) -> None:
    tunesmith("train", workshop.recipe, "--on", "inline", "length.max_minutes=1e-7", "length.steps=1000")
    (job,) = tunesmith("jobs", "list", "--json").document
    assert job["status"]["state"] == "paused"
    assert "cancelled" in tunesmith("jobs", "cancel", job["id"]).out
    assert tunesmith("jobs", "list", "--json").document[0]["status"]["state"] == "cancelled"


def test_checkpoints_from_list_to_delete(tunesmith, trained, workshop) -> None:
    _, checkpoint = trained
    assert checkpoint in tunesmith("checkpoints", "list").out
    assert tunesmith("checkpoints", "show", "peter", "--json").document["active"] is False
    assert tunesmith("checkpoints", "activate", "peter").code == 0
    assert tunesmith("checkpoints", "list", "--json").document[0]["active"] is True
    assert "adapter_model.safetensors" in tunesmith("checkpoints", "show", checkpoint).out
    refused = tunesmith("checkpoints", "delete", checkpoint, "--yes")
    assert (refused.code, "active" in refused.error) == (2, True)
    assert checkpoint in tunesmith("checkpoints", "deactivate", "test_pictures").out
    assert tunesmith("checkpoints", "delete", checkpoint, "--yes").code == 0
    assert tunesmith("checkpoints", "list", "--json").document == []


@pytest.mark.parametrize("layout", ["kohya", "diffusers", "peft"])
def test_export_verify_import(tunesmith, trained, workshop, layout: str) -> None:
    _, checkpoint = trained
    out = workshop.folder / ("out" if layout == "peft" else "out.safetensors")
    done = tunesmith("checkpoints", "export", checkpoint, "--layout", layout, "--out", out, "--dtype", "fp32", "--json")
    assert done.code == 0, done.err
    assert done.document["verification"]["leftover"] == []
    assert tunesmith("checkpoints", "verify", checkpoint, out).code == 0
    imported = tunesmith(
        "checkpoints",
        "import",
        out,
        "--name",
        "outside",
        "--base",
        workshop.base,
        "--engine",
        "test_pictures",
        "--json",
    )
    assert imported.document["origin"] == "imported"
    rows = tunesmith("checkpoints", "compare", checkpoint, "outside", "--json").document
    assert ["origin", "trained", "imported"] in rows


def test_merge_equals_base_and_adapter(tunesmith, trained, workshop) -> None:
    _, checkpoint = trained
    merged = workshop.folder / "merged.safetensors"
    ran = tunesmith("checkpoints", "merge", f"{checkpoint}:0.8", "--out", merged, "--dtype", "fp32")
    assert ran.code == 0, ran.err
    one, other = workshop.folder / "one.png", workshop.folder / "other.png"
    words = ("--engine", "test_pictures", "--prompt", "qb_peter", "--seed", 3, "--precision", "fp32")
    assert tunesmith("generate", "--base", merged, "--no-adapter", *words, "--out", one).code == 0
    assert tunesmith("generate", "--checkpoint", f"{checkpoint}:0.8", *words, "--out", other).code == 0
    difference = max(abs(a - b) for a, b in zip(Image.open(one).tobytes(), Image.open(other).tobytes(), strict=True))
    assert difference <= 1  # the merge rounds once more than the attached adapter does


def test_generate_uses_the_active_checkpoint_and_says_so(tunesmith, trained, workshop) -> None:
    _, checkpoint = trained
    out = workshop.folder / "pictures-out"
    tunesmith("checkpoints", "activate", checkpoint)
    ran = tunesmith(
        "generate",
        "--engine",
        "test_pictures",
        "--prompt",
        "qb_peter",
        "--seed",
        5,
        "--steps",
        2,
        "--count",
        2,
        "--out",
        out,
    )
    assert ran.code == 0, ran.err
    assert f"checkpoint {checkpoint} at 1 (the active one)" in ran.out
    first, second = sorted(out.glob("*.png"))
    assert read_parameters(first)["checkpoints"] == [{"name": checkpoint, "weight": 1.0}]
    assert [read_parameters(path)["seed"] for path in (first, second)] == [5, 6]
    bare = tunesmith(
        "generate", "--base", workshop.base, "--engine", "test_pictures", "--no-adapter", "--json", "--out", out
    )
    assert bare.document["checkpoints"] == []


def test_generate_with_a_concept(tunesmith, trained, workshop) -> None:
    _, checkpoint = trained
    added = tunesmith(
        "concepts", "add", "peter", "--trigger", "qb_peter", "--engine", "test_pictures", "--checkpoint", checkpoint,
        "--strength", 0.5, "--template", "{trigger} person, {prompt}", "--negative", "music",
    )  # fmt: skip
    assert added.code == 0, added.err
    out = workshop.folder / "one.png"
    ran = tunesmith("generate", "--creature-family", "peter", "--prompt", "reading", "--out", out)
    assert ran.code == 0, ran.err
    remembered = read_parameters(out)
    assert remembered["prompt"] == "qb_peter person, reading"
    assert remembered["negative"] == "music"
    assert remembered["checkpoints"] == [{"name": checkpoint, "weight": 0.5}]


def test_a_concept_with_a_wrong_name_template_or_checkpoint_is_refused(tunesmith, trained, home: Path) -> None:
    _, checkpoint = trained
    cases = {
        ("../../x",): "'../../x'",
        ("a\x1b[2Jb",): "'a\\x1b[2Jb'",
        ("a", "--template", "{trigger.__class__} {nope}"): "only {trigger} and {prompt}",
        ("a", "--checkpoint", checkpoint[:-2] + "zz"): "Did you mean",
        ("a", "--strength", "nan"): "finite",
    }
    for words, found in cases.items():
        ran = tunesmith("concepts", "add", *words)
        assert ran.code == 2, words
        assert found in ran.error
    assert not (home / "concepts.json").exists()


def test_a_registry_written_by_hand_does_not_steer_the_terminal(tunesmith, home: Path) -> None:
    home.mkdir(exist_ok=True)
    entry = {"name": "a\x1b[2J", "trigger": "b\r"}
    (home / "concepts.json").write_text(json.dumps({"format": 1, "concepts": [entry]}))
    for ran in (tunesmith("concepts", "list"), tunesmith("concepts", "show", "a\x1b[2J")):
        assert "a\\x1b[2J" in ran.out
        assert not set(ran.out) & set("\x1b\r")


def test_cancelling_what_has_ended_changes_nothing(tunesmith, trained) -> None:
    job, _ = trained
    for words in ((), ("--pause",)):
        assert f"{job} has ended as completed; nothing was changed" in tunesmith("jobs", "cancel", job, *words).out
    assert tunesmith("jobs", "list", "--json").document[0]["status"]["state"] == "completed"


@pytest.mark.parametrize("content", ["{", '{"id": "x"}'])
def test_a_damaged_job_does_not_hide_the_others(tunesmith, trained, home: Path, content: str) -> None:
    job, _ = trained
    damaged = home / "jobs" / "zz-damaged"
    damaged.mkdir()
    (damaged / "manifest.json").write_text(content)
    listed = {entry["id"]: entry["status"] for entry in tunesmith("jobs", "list", "--json").document}
    assert listed[job]["state"] == "completed"
    assert (listed["zz-damaged"]["state"], "manifest.json" in listed["zz-damaged"]["reason"]) == ("damaged", True)
    assert "zz-damaged: " in tunesmith("jobs", "list").out


def test_concepts_are_listed_edited_and_forgotten(tunesmith) -> None:
    assert "concepts add" in tunesmith("concepts", "list").out
    assert tunesmith("concepts", "add", "ghoul", "--engine", "test_pictures").code == 0
    assert tunesmith("concepts", "add", "ghoul").code == 2
    assert tunesmith("concepts", "edit", "ghoul", "--strength", 0.8, "--notes", "growls").code == 0
    shown = tunesmith("concepts", "show", "ghoul", "--json").document
    assert (shown["trigger"], shown["strength"], shown["notes"]) == ("ghoul", 0.8, "growls")
    assert "ghoul" in tunesmith("concepts", "list").out
    assert tunesmith("concepts", "remove", "ghoul", "--yes").code == 0
    assert tunesmith("concepts", "list", "--json").document == []


def test_cache_is_shown_and_pruned(tunesmith, trained) -> None:
    before = tunesmith("cache", "show", "--json").document
    assert before["files"] > 0
    freed = tunesmith("cache", "prune", "--json").document["freed_bytes"]
    assert freed > 0
    assert tunesmith("cache", "show", "--json").document["size_bytes"] < before["size_bytes"]


def test_a_dataset_check_says_each_thing_once(tunesmith, workshop) -> None:
    for caption in workshop.pictures.glob("*.txt"):
        caption.unlink()
    words = ("dataset", "check", workshop.pictures, "--engine", "test_pictures")
    lines = [line for line in tunesmith(*words).out.splitlines() if line]
    assert len(set(lines)) == len(lines)
    assert len([line for line in lines if "caption" in line and "0.png" in line]) == 1
    document = tunesmith(*words, "--json").document
    assert document["notes"]
    assert not {entry["message"] for entry in document["findings"]} & set(document["notes"])


def test_datasets_are_shown_checked_and_split(tunesmith, workshop) -> None:
    shown = tunesmith("dataset", "show", workshop.pictures, "--json").document
    assert [item["text"]["caption"] for item in shown["items"]] == [f"qb_peter number {index}" for index in range(6)]
    assert "24x24" in tunesmith("dataset", "show", workshop.pictures).out
    found = tunesmith("dataset", "check", workshop.pictures, "--engine", "test_pictures", "--json").document
    assert found["items"] == 6
    split = tunesmith("dataset", "split", workshop.pictures, "--fraction", 0.5, "--json").document
    assert len(split["training"]) + len(split["held_out"]) == 6
    assert split["held_out"]


def test_doctor_measures_and_remembers(tunesmith, home: Path) -> None:
    report = tunesmith("doctor", "--json").document
    assert report["device"] == "cpu"
    assert report["memory_bytes"] > 0
    assert (home / "machine.json").exists()
