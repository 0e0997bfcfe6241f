"""`tunesmith starter build`: a starter from nothing, by the recipes of this package.

Everything lies under a work folder: the example data, the jobs with their states, the catalog. Run again after a stop
it goes on where it was.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from tunesmith.errors import RecipeError
from tunesmith.starters.build_image import build_image
from tunesmith.starters.build_sound import build_sound
from tunesmith.starters.building import Work
from tunesmith.starters.marked import check_apart, check_replaceable
from tunesmith.starters.running import RunJob, run_inline
from tunesmith.weights.starter import CARD

BUILDERS: Mapping[str, Callable[[Work, Path], None]] = {
    "stable_diffusion": build_image,
    "stable_audio": build_sound,
}


def build_starter(
    engine: str,
    work: Path,
    out: Path,
    *,
    say: Callable[[str], None] = lambda line: None,
    run_job: RunJob = run_inline,
    share: float = 1.0,
) -> Path:
    """Build the starter of `engine` into the folder `out`, everything else under `work`; returns `out`.

    `share` shortens data and training alike, to try the machinery. An earlier `out` is replaced once all trainings are
    done; anything else there is refused. Raises TunesmithError; what is done stays done.
    """
    builder = BUILDERS.get(engine)
    if builder is None:
        raise RecipeError(f"no starter is known for {engine!r}", expected=" or ".join(BUILDERS))
    # Before hours of training, not after them.
    check_apart(out, work)
    check_replaceable(out, CARD)
    made = work.absolute() / "home" / "made"  # in the build's own home, where nobody keeps things
    shutil.rmtree(made, ignore_errors=True)
    builder(Work(work.absolute(), say, run_job, share), made)
    check_replaceable(out, CARD)
    shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(made, out)
    return out
