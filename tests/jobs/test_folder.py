from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunesmith.errors import JobError, TunesmithError
from tunesmith.jobs.folder import FORMAT, JobFolder, create_job, find_job, list_jobs
from tunesmith.recipe.schema import Recipe


def test_a_new_job_is_whole_and_readable(tmp_path: Path, recipe: Recipe) -> None:
    job = create_job(tmp_path, "train", recipe, details={"executor": "inline"}, clock=lambda: 0.0)
    assert job.id.startswith("19700101-000000-peter-pan-")
    assert "peter pan" in job.recipe_file.read_text()
    manifest = job.manifest()
    assert manifest["kind"] == "train"
    assert manifest["created_utc"] == "1970-01-01T00:00:00Z"
    assert manifest["details"] == {"executor": "inline"}
    assert job.home == tmp_path
    assert [place.name for place in (tmp_path / "jobs").iterdir()] == [job.id]


def test_ids_of_the_same_second_differ(tmp_path: Path, recipe: Recipe) -> None:
    ids = {create_job(tmp_path, "train", recipe, clock=lambda: 0.0).id for _ in range(5)}
    assert len(ids) == 5


@pytest.mark.parametrize("identity", ["", "..", "a/b", "../x", ".hidden", "a b", "x" * 200, "a\n"])
def test_an_id_cannot_leave_the_folder(tmp_path: Path, recipe: Recipe, identity: str) -> None:
    with pytest.raises(JobError, match="cannot be a job's id"):
        create_job(tmp_path, "train", recipe, id=identity)
    assert not (tmp_path / "jobs").exists()


def test_an_id_is_taken_once(tmp_path: Path, recipe: Recipe) -> None:
    create_job(tmp_path, "train", recipe, id="one")
    with pytest.raises(JobError, match="already there"):
        create_job(tmp_path, "train", recipe, id="one")


def test_an_unknown_kind_is_refused(tmp_path: Path, recipe: Recipe) -> None:
    with pytest.raises(JobError, match="no kind of job"):
        create_job(tmp_path, "dance", recipe)


def test_a_home_under_a_file_is_refused_in_one_line(tmp_path: Path, recipe: Recipe) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(TunesmithError) as caught:
        create_job(tmp_path / "home", "train", recipe)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "home").read_text() == "a file"


def test_jobs_are_found_by_id_beginning_name_and_path(tmp_path: Path, recipe: Recipe) -> None:
    one = create_job(tmp_path, "train", recipe, id="20300101-one")
    two = create_job(tmp_path, "encode", recipe, id="20300102-two")
    assert find_job(tmp_path, "20300101-one") == one
    assert find_job(tmp_path, "20300102") == two
    assert find_job(tmp_path, str(one.path)) == one
    assert [job.id for job in list_jobs(tmp_path)] == [one.id, two.id]
    with pytest.raises(JobError, match="could be any of"):
        find_job(tmp_path, "2030")
    with pytest.raises(JobError, match="could be any of"):
        find_job(tmp_path, "peter pan")
    with pytest.raises(JobError, match="no job is called"):
        find_job(tmp_path, "nobody")


def test_a_half_made_job_is_not_listed(tmp_path: Path, recipe: Recipe) -> None:
    job = create_job(tmp_path, "train", recipe)
    (tmp_path / "jobs" / ".new-x").mkdir()
    (tmp_path / "jobs" / "empty").mkdir()
    assert list_jobs(tmp_path) == [job]
    assert list_jobs(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    ("content", "says"),
    [("", "cannot be read"), ("[]", "damaged"), (json.dumps({"format": FORMAT + 1}), "newer tunesmith")],
)
def test_a_damaged_or_newer_manifest_is_refused(job: JobFolder, content: str, says: str) -> None:
    job.manifest_file.write_text(content)
    with pytest.raises(JobError, match=says):
        job.manifest()


def test_a_folder_that_is_no_job(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"no manifest\.json"):
        JobFolder(tmp_path).manifest()
