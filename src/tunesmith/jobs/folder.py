"""A job's folder: every file name in one place, and how a job is made, found and listed. No torch."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.errors import JobError
from tunesmith.jobs.bases import named_bases
from tunesmith.recipe.load import recipe_hash, to_yaml
from tunesmith.recipe.paths import absolute_paths
from tunesmith.recipe.schema import Recipe
from tunesmith.weights.atomic import fsync_folder, replace_folder, write_json

FORMAT = 1
KINDS = ("train", "encode", "evaluate")
_PLAIN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")
_SHORTEST_PREFIX = 3


@dataclass(frozen=True)
class JobFolder:
    """Where the files of one job are. A path and nothing else: any number of these may name the same job."""

    path: Path

    @property
    def id(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def home(self) -> Path:
        """The home folder the job lives in (`home/jobs/<id>`), so a home can be moved as a whole."""
        return self.path.parent.parent

    @property
    def recipe_file(self) -> Path:
        """What was asked for; a person may edit `length.steps` in it to make the run longer."""
        return self.path / "recipe.yaml"

    @property
    def plan_file(self) -> Path:
        """The forecast of the latest attempt."""
        return self.path / "plan.json"

    @property
    def manifest_file(self) -> Path:
        """Kind, name, time of making, where it was submitted."""
        return self.path / "manifest.json"

    @property
    def accepted_file(self) -> Path:
        """The recipe the states were made with: what a changed `recipe.yaml` is compared to."""
        return self.path / "accepted.yaml"

    @property
    def events_file(self) -> Path:
        """The journal: the one truth about what happened."""
        return self.path / "events.jsonl"

    @property
    def status_file(self) -> Path:
        """A fold over the events so far; rebuildable."""
        return self.path / "status.json"

    @property
    def log_file(self) -> Path:
        """What the process printed, and the tracebacks of unexpected errors."""
        return self.path / "logs.txt"

    @property
    def lock_file(self) -> Path:
        """Held by the kernel for the process that works here; its content means nothing."""
        return self.path / ".lock"

    @property
    def attempt_file(self) -> Path:
        """Who holds, or held last, the lock: token, number, process, host, time."""
        return self.path / "attempt.json"

    @property
    def control(self) -> Path:
        """Requests to the running process, one file each."""
        return self.path / "control"

    @property
    def states(self) -> Path:
        """What the run needs to go on as if it had never stopped."""
        return self.path / "states"

    @property
    def samples(self) -> Path:
        """Previews."""
        return self.path / "samples"

    @property
    def results(self) -> Path:
        """Exported files, unless the recipe names another folder."""
        return self.path / "results"

    @property
    def work(self) -> Path:
        """Half-made things; emptied when an attempt starts."""
        return self.path / ".work"

    @property
    def prior(self) -> Path:
        """Prior preservation items that the base generated."""
        return self.path / "prior"

    def manifest(self) -> dict[str, Any]:
        """The manifest. Raises JobError where it is missing, damaged or of a newer format."""
        try:
            content = json.loads(self.manifest_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise JobError(
                f"{self.path} is not a job's folder: it has no manifest.json",
                do="see the jobs there are with `tunesmith jobs list`",
            ) from None
        except (OSError, ValueError) as problem:
            raise JobError(f"{self.manifest_file} cannot be read: {problem}") from None
        if not isinstance(content, dict) or not isinstance(content.get("format"), int):
            raise JobError(f"{self.manifest_file} is damaged", expected="a mapping with a format number")
        if content["format"] > FORMAT:
            raise JobError(
                f"{self.path} was made by a newer tunesmith (job format {content['format']})",
                expected=f"format {FORMAT} or older",
                do="update tunesmith",
            )
        return content


def create_job(
    home: Path,
    kind: str,
    recipe: Recipe,
    *,
    id: str | None = None,  # noqa: A002 - what the folder, the manifest and the commands call it
    details: Mapping[str, Any] = {},
    clock: Callable[[], float] = time.time,
) -> JobFolder:
    """Make the folder of a new job, complete or not at all.

    Paths in the recipe are made absolute, since the job runs elsewhere. `details` go into the manifest as they are.
    Raises JobError where `id` is taken or cannot be a folder's name.
    """
    if kind not in KINDS:
        raise JobError(f"no kind of job is called {kind!r}", expected=f"one of {', '.join(KINDS)}")
    now = clock()
    recipe = named_bases(absolute_paths(recipe, Path.cwd()), home)
    name = recipe.output.name
    identity = id if id is not None else _fresh_id(name, now)
    if not _PLAIN_ID.fullmatch(identity):
        raise JobError(f"{identity!r} cannot be a job's id", expected="letters, digits, dots, dashes and underscores")
    folder = JobFolder(home / "jobs" / identity)
    if folder.path.exists():
        raise JobError(f"a job called {identity!r} is already there", do="choose another id, or resume that one")
    aside = JobFolder(folder.path.parent / f".new-{identity}-{secrets.token_hex(4)}")
    try:
        for place in (aside.control, aside.states, aside.samples):
            place.mkdir(parents=True)
    except (FileExistsError, NotADirectoryError):
        raise JobError(
            f"{home} cannot hold jobs: a file is in the way", do="choose another folder with --home"
        ) from None
    except PermissionError as problem:
        raise JobError(
            f"{problem.filename} cannot be made: permission denied", do="choose another folder with --home"
        ) from None
    aside.recipe_file.write_text(to_yaml(recipe), encoding="utf-8")
    manifest = {
        "format": FORMAT,
        "id": identity,
        "kind": kind,
        "name": name,
        "engine": recipe.engine,
        "created_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
        "recipe_hash": recipe_hash(recipe),
        "details": dict(details),
    }
    write_json(aside.manifest_file, manifest)
    fsync_folder(aside.path)
    replace_folder(aside.path, folder.path)
    return folder


def find_job(home: Path, id_or_prefix: str) -> JobFolder:
    """The job with this id, folder, unambiguous beginning of an id, or name. Raises JobError naming the near ones."""
    as_path = Path(id_or_prefix)
    if (as_path / "manifest.json").is_file():
        return JobFolder(as_path.absolute())
    jobs = list_jobs(home)
    for job in jobs:
        if job.id == id_or_prefix:
            return job
    near = [job for job in jobs if len(id_or_prefix) >= _SHORTEST_PREFIX and job.id.startswith(id_or_prefix)]
    if not near:
        near = [job for job in jobs if job.manifest().get("name") == id_or_prefix]
    if len(near) == 1:
        return near[0]
    if near:
        raise JobError(
            f"{id_or_prefix!r} could be any of {', '.join(job.id for job in near[:5])}", do="write more of the id"
        )
    raise JobError(f"no job is called {id_or_prefix!r}", do="see them with `tunesmith jobs list`")


def list_jobs(home: Path) -> list[JobFolder]:
    """Every job of this home, oldest first."""
    root = home / "jobs"
    if not root.is_dir():
        return []
    found = [place for place in root.iterdir() if not place.name.startswith(".")]
    jobs = [JobFolder(place) for place in found if (place / "manifest.json").is_file()]
    return sorted(jobs, key=lambda job: (job.manifest_file.stat().st_mtime_ns, job.id))


def _fresh_id(name: str, now: float) -> str:
    """Sorts by time, says what it is, and does not repeat: 20260131-142530-peter-3fa9."""
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:40] or "job"
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now))}-{slug}-{secrets.token_hex(2)}"
