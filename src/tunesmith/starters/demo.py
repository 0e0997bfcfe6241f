"""The demo: pictures, a base trained from scratch, a LoRA on new pictures, exports, and base beside adapter.

Everything goes through the same recipes, jobs, catalog and exports as a user's own work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from tunesmith.catalog.card import Card
from tunesmith.catalog.concepts import Concept, Concepts
from tunesmith.catalog.shelf import Shelf
from tunesmith.engines.index import engine_named
from tunesmith.errors import DataError
from tunesmith.jobs.journal import read_events
from tunesmith.recipe.schema import MethodSection, ResourceSection
from tunesmith.starters.demo_pictures import Pictures, with_photographs, world_prompts, write_pictures
from tunesmith.starters.running import RECIPES, Done, RunJob, run_inline, run_recipe, shipped_recipe
from tunesmith.weights.atomic import write_json

if TYPE_CHECKING:
    from tunesmith.generation.session import Session

SIZE = 32
WORLD_PICTURES, OWN_PICTURES, HELD_OUT_PICTURES = 320, 24, 8
QUICK_SHARE = 0.02  # of the steps: enough to see every part of the machinery turn
SHEET_COLUMNS = 4
DEFAULT_CAPTION = "a photograph, {trigger}"


@dataclass(frozen=True)
class DemoReport:
    """What the demo made. Losses are held-out ones of the new pictures; `seconds` by part."""

    sheet: Path
    loss_plot: Path
    base: Path
    checkpoint: str
    trigger: str
    prompt: str
    pictures: Path
    exports: tuple[Path, ...]
    matched_layers: tuple[int, ...]
    loss_base: float
    loss_adapter: float
    seconds: Mapping[str, float]

    @property
    def fall(self) -> float:
        """How much of the base's held-out loss is gone with the adapter, 0 to 1."""
        return 1 - self.loss_adapter / self.loss_base


@dataclass(frozen=True)
class _Stage:
    """What every part of the demo needs. `quick` shortens the runs."""

    home: Path
    out: Path
    seed: int
    quick: bool
    say: Callable[[str], None]
    run_job: RunJob


def run_demo(
    home: Path,
    out: Path,
    *,
    photographs: Path | None = None,
    seed: int = 0,
    quick: bool = False,
    say: Callable[[str], None] = lambda line: None,
    run_job: RunJob = run_inline,
) -> DemoReport:
    """Run the whole demo, its things under `out` and its jobs and checkpoints under `home`.

    With `photographs` the LoRA learns a folder of real pictures instead of a monster. Raises TunesmithError.
    """
    stage = _Stage(home, _usable(out), seed, quick, say, run_job)
    clock = _Clock()
    say("1/5  pictures: a small world of little monsters, and one that it never shows")
    pictures = write_pictures(
        stage.out / "pictures",
        seed,
        size=SIZE,
        world_count=WORLD_PICTURES,
        own_count=OWN_PICTURES,
        held_out_count=HELD_OUT_PICTURES,
    )
    if photographs is not None:
        pictures = with_photographs(pictures, photographs.absolute(), default_caption=DEFAULT_CAPTION)
    clock.lap("pictures")
    say("2/5  a base from scratch: its autoencoder")
    autoencoder = _train(stage, "autoencoder", {"data.paths": [pictures.world, pictures.others], **_architecture()})
    clock.lap("autoencoder")
    say("3/5  a base from scratch: its denoiser and text encoder")
    parts = {"base.parts": {"autoencoder": autoencoder.weights}}
    world = _train(stage, "world", {"data.paths": [pictures.world], **_architecture(), **parts})
    base = world.weights
    clock.lap("world")
    say(f"4/5  a LoRA that learns {pictures.own}, called by {pictures.trigger!r}")
    learnt = _train(stage, "character", _own_overrides(stage, pictures, base))
    _register(stage, learnt.card, pictures)
    clock.lap("lora")
    say("5/5  base beside adapter on the same seeds")
    sheet = _draw_sheet(stage, learnt.card, pictures)
    clock.lap("sheet")
    return _report(stage, learnt, pictures=pictures, base=base, sheet=sheet, seconds=clock.laps)


class _Clock:
    """Seconds of each part, in order."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """The part called `name` ends now."""
        now = time.perf_counter()
        self.laps[name] = round(now - self._last, 1)
        self._last = now


def _usable(out: Path) -> Path:
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file", expected="a folder to write the demo into", do="choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    return out.absolute()


def _architecture() -> dict[str, Any]:
    return {"base.architecture": RECIPES / "demo.json"}


def _own_overrides(stage: _Stage, pictures: Pictures, base: Path) -> dict[str, Any]:
    found: dict[str, Any] = {
        "data.paths": [pictures.own],
        "data.prior_paths": [pictures.world],
        "base.path": base,
        "output.folder": stage.out,
        "output.concepts": {pictures.trigger: pictures.trigger},
    }
    if pictures.held_out is not None:
        return {**found, "data.holdout_paths": [pictures.held_out]}
    return {**found, "data.holdout_fraction": 0.25, "data.default_caption": DEFAULT_CAPTION}


def _train(stage: _Stage, name: str, overrides: Mapping[str, Any]) -> Done:
    """One recipe of the demo as an ordinary job; its final checkpoint."""
    share = QUICK_SHARE if stage.quick else 1.0
    recipe = shipped_recipe(f"demo_{name}", {**overrides, "length.seed": stage.seed}, share=share)
    return run_recipe(recipe, stage.home, run_job=stage.run_job)


def _register(stage: _Stage, card: Card, pictures: Pictures) -> None:
    """Make it the active checkpoint, and the concept callable by its name."""
    Shelf(stage.home).activate(card.id)
    concept = Concept(pictures.trigger, pictures.trigger, card.engine, card.id, template=pictures.template)
    Concepts(stage.home).put(concept)


def _draw_sheet(stage: _Stage, card: Card, pictures: Pictures) -> Path:
    from tunesmith.exchange.selection import select
    from tunesmith.generation.session import open_session
    from tunesmith.generation.sheet import contact_sheet
    from tunesmith.training.device import choose_device, choose_precision

    resources = ResourceSection()
    device = choose_device(resources)
    precision = choose_precision(resources, device, MethodSection())
    chosen = select(Shelf(stage.home), [card.id])
    session = open_session(
        chosen.engine, chosen.base, device=device, dtype=precision.dtype, attachments=chosen.attachments
    )
    own = pictures.prompts[:SHEET_COLUMNS]
    others = world_prompts(stage.seed, SHEET_COLUMNS)
    with session.without():
        before = [_pictures(stage, session, own), _pictures(stage, session, others)]
    after = [_pictures(stage, session, own), _pictures(stage, session, others)]
    session.close()
    learnt_from = [Image.open(path).convert("RGB").resize((SIZE, SIZE)) for path in _some(pictures.own)]
    labels = (
        "learnt from",
        f"base: {pictures.trigger}",
        f"adapter: {pictures.trigger}",
        "base: others",
        "adapter: others",
    )
    sheet = contact_sheet(
        [learnt_from, before[0], after[0], before[1], after[1]],
        labels,
        [f"seed {stage.seed + i}" for i in range(SHEET_COLUMNS)],
    )
    path = stage.out / "sheet.png"
    sheet.save(path)
    return path


def _some(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"))
    return found[:SHEET_COLUMNS]


def _pictures(stage: _Stage, session: Session, texts: Sequence[str]) -> list[Image.Image]:
    """One picture a prompt, seeds counting up."""
    from tunesmith.engines.protocol import Media

    make = session.engine.facts.request
    found = []
    for index, text in enumerate(texts):
        seed, steps = stage.seed + index, 2 if stage.quick else 25
        request = make(prompt=text, seed=seed, steps=steps, guidance=2.5, width=SIZE, height=SIZE)
        found += [event.data for event in session.generate(request) if isinstance(event, Media)]
    return found


def _report(
    stage: _Stage, learnt: Done, *, pictures: Pictures, base: Path, sheet: Path, seconds: Mapping[str, float]
) -> DemoReport:
    from tunesmith.adapters.files import read_adapter
    from tunesmith.catalog.card import base_of
    from tunesmith.exchange.verify import verify_adapter
    from tunesmith.generation.plots import loss_plot

    engine = engine_named(learnt.card.engine)
    opened = engine.open(base_of(learnt.card))
    adapter = read_adapter(Shelf(stage.home).path(learnt.card), engine.layouts, opened)
    exports = tuple(Path(path) for path in learnt.status.exports)
    proofs = [verify_adapter(path, engine, base=opened, adapter=adapter) for path in exports]
    report = DemoReport(
        sheet=sheet,
        loss_plot=loss_plot(read_events(learnt.folder), stage.out / "loss.png"),
        base=base,
        checkpoint=learnt.card.id,
        trigger=pictures.trigger,
        prompt=pictures.prompts[0],
        pictures=pictures.own,
        exports=exports,
        matched_layers=tuple(proof.matched for proof in proofs),
        loss_base=learnt.card.measures["holdout_loss_start"],
        loss_adapter=learnt.card.measures["holdout_loss"],
        seconds=seconds,
    )
    figures = {
        "checkpoint": report.checkpoint,
        "held_out_loss_base": report.loss_base,
        "held_out_loss_adapter": report.loss_adapter,
        "fall": report.fall,
        "matched_layers": report.matched_layers,
        "seconds": dict(seconds),
    }
    write_json(stage.out / "report.json", figures)
    return report
