"""What building a starter of any engine needs: a work folder, one training after the other, and a card."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith.jobs.journal import read_events
from tunesmith.starters.marked import emptied
from tunesmith.starters.running import Done, RunJob, run_inline, run_recipe, shipped_recipe
from tunesmith.weights.atomic import write_json
from tunesmith.weights.starter import CARD

DATA_SEED = 0
LICENCE = "Apache-2.0"


@dataclass
class Work:
    """A build under way. `share` shortens data and training alike; `stages` are the trainings that are done."""

    folder: Path
    say: Callable[[str], None] = lambda line: None
    run_job: RunJob = run_inline
    share: float = 1.0
    stages: list[Done] = field(default_factory=list)

    def count(self, whole: int, least: int) -> int:
        """The share of a count, at least `least`."""
        return max(least, round(whole * self.share))

    def train(self, name: str, overrides: Mapping[str, Any]) -> Done:
        """Run the recipe of this package called `name`; one that was begun before is gone on with."""
        recipe = shipped_recipe(name, {**overrides, "length.seed": DATA_SEED}, share=self.share)
        done = run_recipe(recipe, self.folder / "home", run_job=self.run_job, again=True)
        self.stages.append(done)
        return done

    def data(self, write: Callable[[Path], None]) -> Path:
        """The folder of example data; written once, what lies there complete is taken as it is."""
        folder = self.folder / "data"
        if not (folder / "complete").exists():
            write(emptied(folder))
            (folder / "complete").touch()
        return folder


def numbered_random(what: str, index: int) -> random.Random:
    """The random numbers of example `index`: independent of how many there are."""
    return random.Random(f"{what}/{DATA_SEED}/{index}")


def write_card(folder: Path, engine: str, stages: Sequence[Done], figures: Mapping[str, Any]) -> None:
    """What ships beside the weights: how they were made and how good they are."""
    made = [
        {
            "recipe": _by_name(done.card.recipe),
            "steps": done.card.step,
            "seconds": round(sum(line["seconds"] for line in read_events(done.folder) if line["kind"] == "step")),
            "measures": dict(done.card.measures),
        }
        for done in stages
    ]
    card = {
        "engine": engine,
        "licence": LICENCE,
        "data_seed": DATA_SEED,
        "weights_bytes": sum(path.stat().st_size for path in folder.rglob("*.safetensors")),
        "made_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "figures": dict(figures),
        "stages": made,
    }
    write_json(folder / CARD, card)


def _by_name(value: Any) -> Any:
    """Without the folders that files lay in: they say nothing elsewhere."""
    if isinstance(value, Mapping):
        return {key: _by_name(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_by_name(entry) for entry in value]
    if isinstance(value, str) and Path(value).is_absolute():
        return Path(value).name
    return value
