"""The demo: items of a new concept, a LoRA on the starter, exports, an evaluation, and base beside adapter.

Everything goes through the same recipes, jobs, catalog and exports as a user's own work.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith.catalog.concepts import Concept, Concepts
from tunesmith.catalog.shelf import Shelf
from tunesmith.engines.index import engine_named
from tunesmith.errors import DataError, RecipeError
from tunesmith.jobs.evaluating import create_evaluation, read_report
from tunesmith.jobs.folder import JobFolder
from tunesmith.jobs.forecast import to_text
from tunesmith.jobs.journal import read_events
from tunesmith.jobs.plan import check_refusals, plan_recipe
from tunesmith.starters.demo_pictures import PHOTOGRAPH_CAPTION, with_photographs, write_pictures
from tunesmith.starters.demo_sounds import write_sounds
from tunesmith.starters.examples import Examples, Shares
from tunesmith.starters.marked import check_apart
from tunesmith.starters.running import Done, RunJob, finished, run_inline, run_recipe, shipped_recipe
from tunesmith.weights.atomic import write_json

EXAMPLES: Mapping[str, Callable[[Path, int], Examples]] = {
    "stable_diffusion": write_pictures,
    "stable_audio": write_sounds,
}
QUICK_SHARE = 0.02  # of the steps: enough to see every part of the machinery turn
QUICK_ITEMS, QUICK_DENOISING_STEPS = 4, 2


@dataclass(frozen=True)
class DemoReport:
    """What the demo made. `evaluation` is the report of `tunesmith evaluate`; `shown` has the checker's shares of
    results by what they show, empty for photographs; `seconds` by part."""

    sheet: Path
    loss_plot: Path
    checkpoint: str
    kind: str
    trigger: str
    prompt: str
    items: Path
    exports: tuple[Path, ...]
    matched_layers: tuple[int, ...]
    loss_base: float
    loss_adapter: float
    evaluation: Mapping[str, Any]
    shown: Shares
    seconds: Mapping[str, float]

    @property
    def fall(self) -> float:
        """How much of the base's held-out loss is gone with the adapter, 0 to 1."""
        return 1 - self.loss_adapter / self.loss_base


@dataclass
class _Stage:
    """What every part of the demo needs. `quick` shortens the runs; `laps` are the seconds of the parts so far."""

    home: Path
    out: Path
    seed: int
    quick: bool
    say: Callable[[str], None]
    run_job: RunJob
    laps: dict[str, float] = field(default_factory=dict)
    _last: float = field(default_factory=time.perf_counter)

    def lap(self, name: str) -> None:
        """The part called `name` ends now."""
        now = time.perf_counter()
        self.laps[name] = round(now - self._last, 1)
        self._last = now


def examples_of(engine: str, photographs: Path | None = None) -> Callable[[Path, int], Examples]:
    """What writes the examples of an engine's demo; with `photographs` a LoRA learns that folder instead of a monster.

    Raises RecipeError where there is no such demo.
    """
    write = EXAMPLES.get(engine)
    if write is None:
        raise RecipeError(f"no demo is known for {engine!r}", expected=" or ".join(EXAMPLES))
    if photographs is None:
        return write
    if engine != "stable_diffusion":
        raise RecipeError(f"photographs, and a demo of {engine}", do="leave one of them out")
    own = photographs.absolute()

    def write_beside(folder: Path, seed: int) -> Examples:
        check_apart(own, folder)
        return with_photographs(write(folder, seed), own)

    return write_beside


def run_demo(
    home: Path,
    out: Path,
    *,
    write: Callable[[Path, int], Examples] = write_pictures,
    seed: int = 0,
    quick: bool = False,
    say: Callable[[str], None] = lambda line: None,
    run_job: RunJob = run_inline,
) -> DemoReport:
    """Run the whole demo, its things under `out` and its jobs and checkpoints under `home`.

    `write(folder, seed)` writes what is learnt, see `examples_of`. Raises TunesmithError.
    """
    stage = _Stage(home, _usable(out), seed, quick, say, run_job)
    say("1/4  examples: what the starter never met, and the world it comes into")
    examples = write(stage.out / "examples", seed)
    stage.lap("examples")
    say(
        f"2/4  plan and train: a LoRA that learns the {examples.kind} in {examples.own}, called by {examples.trigger!r}"
    )
    learnt = _train(stage, examples)
    stage.lap("lora")
    say("3/4  register, export, read back")
    _register(stage, learnt, examples)
    matched = _matched_layers(learnt)
    stage.lap("export")
    say("4/4  evaluate: base beside adapter on the same seeds")
    evaluation = _evaluate(stage, learnt, examples)
    shown = examples.shown(evaluation.results)
    stage.lap("evaluation")
    return _report(stage, learnt, examples=examples, matched=matched, evaluation=evaluation, shown=shown)


def _usable(out: Path) -> Path:
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file", expected="a folder to write the demo into", do="choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    return out.absolute()


def _train(stage: _Stage, examples: Examples) -> Done:
    found: dict[str, Any] = {
        "data.paths": [examples.own],
        "data.prior_paths": [examples.prior],
        "output.folder": stage.out,
        "output.concepts": {examples.trigger: examples.trigger},
        "length.seed": stage.seed,
    }
    if examples.held_out is not None:
        found["data.holdout_paths"] = [examples.held_out]
    else:
        found |= {"data.holdout_fraction": 0.25, "data.default_caption": PHOTOGRAPH_CAPTION}
    recipe = shipped_recipe(examples.recipe, found, share=QUICK_SHARE if stage.quick else 1.0)
    forecast, _ = plan_recipe(recipe, stage.home)
    stage.say(to_text(forecast))
    check_refusals(forecast)
    return run_recipe(recipe, stage.home, run_job=stage.run_job)


def _register(stage: _Stage, learnt: Done, examples: Examples) -> None:
    """Make it the active checkpoint, and the concept callable by its name."""
    card = learnt.card
    Shelf(stage.home).activate(card.id)
    concept = Concept(examples.trigger, examples.trigger, card.engine, card.id, template=examples.template)
    Concepts(stage.home).put(concept)


def _matched_layers(learnt: Done) -> tuple[int, ...]:
    """How many layers each exported file gives back when it is read again."""
    from tunesmith.adapters.files import read_adapter
    from tunesmith.catalog.card import base_of
    from tunesmith.exchange.verify import verify_adapter

    engine = engine_named(learnt.card.engine)
    opened = engine.open(base_of(learnt.card))
    adapter = read_adapter(Shelf(learnt.folder.home).path(learnt.card), engine.layouts, opened)
    proofs = (verify_adapter(Path(path), engine, base=opened, adapter=adapter) for path in learnt.status.exports)
    return tuple(proof.matched for proof in proofs)


def _evaluate(stage: _Stage, learnt: Done, examples: Examples) -> JobFolder:
    folder = create_evaluation(
        stage.home,
        learnt.card.id,
        world=[examples.others],
        pictures=QUICK_ITEMS if stage.quick else examples.evaluated,
        request={**examples.request, **({"steps": QUICK_DENOISING_STEPS} if stage.quick else {})},
    )
    stage.run_job(folder)
    finished(folder)
    return folder


def _report(
    stage: _Stage,
    learnt: Done,
    *,
    examples: Examples,
    matched: tuple[int, ...],
    evaluation: JobFolder,
    shown: Shares,
) -> DemoReport:
    from tunesmith.generation.plots import loss_plot

    found = read_report(evaluation)
    sheet = stage.out / "sheet.png"
    shutil.copyfile(found["sheet"], sheet)
    report = DemoReport(
        sheet=sheet,
        loss_plot=loss_plot(read_events(learnt.folder), stage.out / "loss.png"),
        checkpoint=learnt.card.id,
        kind=examples.kind,
        trigger=examples.trigger,
        prompt=examples.prompt,
        items=examples.own,
        exports=tuple(Path(path) for path in learnt.status.exports),
        matched_layers=matched,
        loss_base=learnt.card.measures["holdout_loss_start"],
        loss_adapter=learnt.card.measures["holdout_loss"],
        evaluation=found,
        shown=shown,
        seconds=stage.laps,
    )
    figures = {
        "checkpoint": report.checkpoint,
        "held_out_loss_base": report.loss_base,
        "held_out_loss_adapter": report.loss_adapter,
        "fall": report.fall,
        "matched_layers": report.matched_layers,
        "evaluation": found["measures"],
        "shown": dict(report.shown),
        "seconds": dict(report.seconds),
    }
    write_json(stage.out / "report.json", figures)
    return report
