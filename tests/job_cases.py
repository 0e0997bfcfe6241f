"""Whole jobs on the tiny test engine, for tests of work, executors and crashes."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.engines.index import recipe_facts
from tunesmith.jobs.folder import JobFolder, create_job
from tunesmith.jobs.journal import read_events
from tunesmith.recipe.load import recipe_from
from tunesmith.recipe.schema import Recipe

WORK = "import sys; from pathlib import Path; from tunesmith.jobs.work import work; sys.exit(work(Path(sys.argv[1])))"
TESTS = Path(__file__).parent


@dataclass(frozen=True)
class World:
    """Pictures and a base of the engine `test_pictures` on disk."""

    pictures: Path
    base: Path

    def recipe(self, method: str = "lora", **changes: Any) -> Recipe:
        """A short run; `changes` such as `length__steps=3` override single knobs."""
        document: dict[str, Any] = {
            "engine": {"name": "test_pictures", "buckets": False},
            "data": {"paths": [str(self.pictures)], "holdout_fraction": 0.2, "caption_dropout": 0.2},
            "base": {"path": str(self.base)},
            "method": {"name": method, "components": ["denoiser"]},
            "optimiser": {"rate": 1e-2},
            "length": {"steps": 12, "batch_items": 2, "seed": 3},
            "output": {"name": f"peter {method}", "state_every_steps": 3, "validate_every_steps": 4, "dtype": "fp32"},
            "resources": {"device": "cpu", "precision": "fp32", "threads": 1, "disk_reserve_bytes": 0},
        }
        if method in ("lora", "dora"):
            document["method"]["rank"] = 2
        if method == "scratch":
            document["base"] = {"architecture": "tiny", "parts": {"autoencoder": str(self.base)}}
        return _changed(document, changes)

    def job(self, home: Path, method: str = "lora", **changes: Any) -> JobFolder:
        """A job of that recipe, queued."""
        return create_job(home, "train", self.recipe(method, **changes))


@dataclass(frozen=True)
class SoundWorld:
    """Sounds and a base of the engine `stable_audio` on disk; the base's own window is 1.024 seconds at 1,000 Hz."""

    sounds: Path
    base: Path

    def recipe(self, **changes: Any) -> Recipe:
        """A short run with a window of half a second; `changes` as those of `World.recipe`."""
        document: dict[str, Any] = {
            "engine": {"name": "stable_audio", "window_seconds": 0.5},
            "data": {"paths": [str(self.sounds)], "holdout_fraction": 0.3, "caption_dropout": 0.2},
            "base": {"path": str(self.base)},
            "method": {"name": "lora", "rank": 2, "dropout": 0.2},
            "optimiser": {"rate": 1e-2},
            "length": {"steps": 4, "batch_items": 2, "seed": 3},
            "output": {"name": "ghoul", "dtype": "fp32", "validate_every_steps": 2, "state_every_steps": 2},
            "resources": {"device": "cpu", "precision": "fp32", "threads": 1, "disk_reserve_bytes": 0},
        }
        return _changed(document, changes)

    def job(self, home: Path, **changes: Any) -> JobFolder:
        """A job of that recipe, queued."""
        return create_job(home, "train", self.recipe(**changes))


def _changed(document: dict[str, Any], changes: dict[str, Any]) -> Recipe:
    """The recipe of a document with single knobs, as `length__steps`, changed."""
    for name, value in changes.items():
        section, _, key = name.partition("__")
        document.setdefault(section, {})[key] = value
    return recipe_from(document, recipe_facts)


def write_sound_world(folder: Path) -> SoundWorld:
    """Five sounds with captions and a base with weights by formula."""
    from tiny_audio import write_folder
    from tunesmith_test_engines.items import sound_items

    sound_items(folder / "sounds", 5)
    return SoundWorld(folder / "sounds", write_folder(folder / "base"))


def write_world(folder: Path) -> World:
    """Eight pictures with captions and a base with weights by formula."""
    from tunesmith_test_engines.items import picture_items
    from tunesmith_test_engines.pictures import write_pictures_base

    picture_items(folder / "pictures", 8, control=False, same_shape=True)
    return World(folder / "pictures", write_pictures_base(folder / "base.safetensors"))


def work_command(job: JobFolder) -> list[str]:
    """A child process that does the job and nothing else."""
    return [sys.executable, "-c", WORK, str(job.path)]


def child_environment() -> dict[str, str]:
    """One thread, and the test modules importable."""
    paths = [str(TESTS), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def raw_lines(job: JobFolder) -> list[dict[str, Any]]:
    """The journal as written, nothing left out."""
    if not job.events_file.exists():
        return []
    return [json.loads(row) for row in job.events_file.read_bytes().splitlines()]


def losses(job: JobFolder) -> list[tuple[int, float]]:
    """(step, loss) of the story that the journal tells."""
    return [(line["step"], line["loss"]) for line in read_events(job) if line["kind"] == "step"]


def final_state(job: JobFolder) -> dict[str, bytes]:
    """Every tensor of the newest state by name: weights, average, optimiser; and its plain numbers."""
    newest = max(job.states.glob("step-*"))
    facts = json.loads((newest / "state.json").read_text())
    facts.pop("environment")
    return {
        "state.safetensors": (newest / "state.safetensors").read_bytes(),
        "state.json": json.dumps(facts, sort_keys=True).encode(),
    }


def checkpoint_files(job: JobFolder, checkpoint: str) -> dict[str, bytes]:
    """A checkpoint's files by name, its card left out."""
    folder = job.home / "checkpoints" / checkpoint
    files = (file for file in folder.rglob("*") if file.is_file() and file.name != "meta.json")
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}
