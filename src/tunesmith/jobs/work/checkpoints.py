"""From live weights to the catalog: what was trained, with a card that says how."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from tunesmith.adapters.files import write_adapter
from tunesmith.catalog.card import Card
from tunesmith.catalog.shelf import Shelf
from tunesmith.jobs.folder import JobFolder
from tunesmith.jobs.records import Registered
from tunesmith.jobs.work.live import Live
from tunesmith.jobs.work.run import Run
from tunesmith.recipe.load import to_document
from tunesmith.training.average import averaged
from tunesmith.weights.atomic import replace_folder, write_json


def register_step(run: Run, live: Live) -> Card:
    """Put the weights as they are now into the catalog; nothing is done twice for one step of one job."""
    return _register(run, live, step=live.state.step, measures=measures_at(run, live.state.step), final=False)


def register_final(run: Run, live: Live, measures: dict[str, float]) -> Card:
    """Put the weights of the last step into the catalog."""
    return _register(run, live, step=live.state.step, measures=measures, final=True)


def keep_best(run: Run, live: Live, loss: float) -> None:
    """Write the weights with the lowest held-out loss so far into the job's folder; they replace those before."""
    aside = run.folder.work / "best"
    write_weights(live, aside)
    write_json(aside / "best.json", {"step": live.state.step, "loss": loss})
    replace_folder(aside, best_folder(run.folder))


def register_best(run: Run, live: Live) -> Card | None:
    """Put what `keep_best` kept into the catalog as NAME-best, where it is not the last step's; else None."""
    best, folder = run.status.best, best_folder(run.folder)
    if best is None or best.step in (0, live.steps):
        shutil.rmtree(folder, ignore_errors=True)
        return None
    name = f"{live.opened.recipe.output.name}-best"
    card = _card(run, live, step=best.step, measures=measures_at(run, best.step), name=name)
    if _known(run, card) is None and not _holds_step(folder, best.step):
        return None
    put = _put(run, card, lambda aside: _copy_best(folder, aside), final=False)
    shutil.rmtree(folder, ignore_errors=True)
    return put


def best_folder(folder: JobFolder) -> Path:
    """Where the best weights so far are kept."""
    return folder.path / "best"


def write_weights(live: Live, folder: Path) -> None:
    """The trained weights (the average where there is one) as a checkpoint's files."""
    opened, engine = live.opened, live.opened.engine
    with averaged(live.state):
        if live.state.attached is not None:
            folder.mkdir(parents=True)
            adapter = live.state.attached.adapter()
            metadata = {"tunesmith_engine": engine.facts.name, "tunesmith_step": str(live.state.step)}
            write_adapter(folder, adapter, engine.layouts, opened.base, "peft", "fp32", metadata)
            return
        weights = engine.trained_weights(live.model)
        # One file where the engine has such a layout and the base fits in: a tokenizer of its own does not. Else the
        # checkpoint's folder is the base's folder.
        layouts = engine.layouts.weight_layouts
        if "single_file" in layouts and all(part.layout != "files" for part in opened.base.parts.values()):
            layout, target = "single_file", folder / "model.safetensors"
        else:
            layout, target = next(name for name in layouts if name != "single_file"), folder
        target.parent.mkdir(parents=True, exist_ok=True)
        engine.write_base(opened.base, weights, target, layout, opened.recipe.output.dtype)


def measures_at(run: Run, step: int) -> dict[str, float]:
    """Held-out loss at a step and at the start, and the running training loss."""
    found: dict[str, float] = {}
    by_step = {measured.step: measured.loss for measured in run.status.validations}
    if step in by_step:
        found["holdout_loss"] = by_step[step]
    if 0 in by_step:
        found["holdout_loss_start"] = by_step[0]
    if run.status.loss_mean is not None and step == run.status.step:
        found["train_loss"] = run.status.loss_mean
    return finite_only(found)


def finite_only(measures: Mapping[str, float]) -> dict[str, float]:
    """Without NaN and Inf, which a card cannot hold."""
    return {name: value for name, value in measures.items() if math.isfinite(value)}


def _register(run: Run, live: Live, *, step: int, measures: dict[str, float], final: bool) -> Card:
    card = _card(run, live, step=step, measures=measures, name=live.opened.recipe.output.name)
    return _put(run, card, lambda aside: write_weights(live, aside), final=final)


def _put(run: Run, card: Card, fill: Callable[[Path], None], *, final: bool) -> Card:
    """On the shelf by one rename; what an attempt before a kill put there already is taken as it is."""
    put = _known(run, card)
    if put is None:
        aside = run.folder.work / f"register-{card.id}"
        shutil.rmtree(aside, ignore_errors=True)
        fill(aside)
        put = Shelf(run.folder.home).put(card, aside)
    run.emit(Registered(put.step, put.id, put.name, final, dict(put.measures)))
    return put


def _known(run: Run, card: Card) -> Card | None:
    shelf = Shelf(run.folder.home)
    return shelf.get(card.id) if (shelf.folder / card.id / "meta.json").exists() else None


def _holds_step(folder: Path, step: int) -> bool:
    try:
        return bool(json.loads((folder / "best.json").read_text(encoding="utf-8"))["step"] == step)
    except (OSError, ValueError, KeyError):
        return False


def _copy_best(folder: Path, aside: Path) -> None:
    shutil.copytree(folder, aside)
    (aside / "best.json").unlink()


def _card(run: Run, live: Live, *, step: int, measures: dict[str, float], name: str) -> Card:
    opened, recipe = live.opened, live.opened.recipe
    items = opened.gathered.own
    credited = {json.dumps(dict(item.credits), sort_keys=True) for item in items if item.credits}
    licences = {str(item.credits["licence"]) for item in items if item.credits.get("licence")}
    return Card(
        id=checkpoint_id(run.folder, name, step),
        name=name,
        engine=recipe.engine,
        method=recipe.method.name,
        stage=recipe.method.stage,
        kind="adapter" if live.state.attached is not None else "weights",
        base=asdict(recipe.base),
        base_hash=opened.base.header_hash,
        recipe=to_document(recipe),
        trained_at=dict(opened.engine.trained_at(opened.base, recipe)),
        dataset_hash=opened.gathered.hash,
        item_count=len(items),
        concepts=dict(recipe.output.concepts),
        credits=tuple(json.loads(credit) for credit in sorted(credited)),
        licences=tuple(sorted(licences)),
        measures=measures,
        parent=opened.parent.id if opened.parent is not None else None,
        job=run.folder.id,
        step=step,
        created_utc=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )


def checkpoint_id(folder: JobFolder, name: str, step: int) -> str:
    """A function of job, name and step, so that registering again after a kill finds what is there already."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60] or "checkpoint"
    origin = hashlib.sha256(f"{folder.id} {folder.manifest()['created_utc']}".encode()).hexdigest()[:6]
    return f"{slug}-{step}-{origin}"
