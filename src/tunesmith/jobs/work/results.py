"""The end of a training job: the last and the best checkpoint in the catalog, and the exports that were asked for."""

from __future__ import annotations

from pathlib import Path

from tunesmith.catalog.card import Card
from tunesmith.catalog.shelf import Shelf
from tunesmith.exchange.export import export_checkpoint
from tunesmith.jobs.records import Exported
from tunesmith.jobs.work.checkpoints import finite_only, measures_at, register_best, register_final
from tunesmith.jobs.work.live import Live
from tunesmith.jobs.work.measuring import stage_measures
from tunesmith.jobs.work.run import Run


def register_results(run: Run, live: Live) -> Card:
    """The last step's checkpoint, and the best one where that is another; says which is better by what."""
    best = register_best(run, live)
    figures = {**measures_at(run, live.state.step), **finite_only(stage_measures(live))}
    final = register_final(run, live, figures)
    if best is not None:
        loss = best.measures.get("holdout_loss", float("nan"))
        run.log(f"the lowest held-out loss, {loss:.5f}, was at step {best.step}: that is {best.name}")
    return final


def export_results(run: Run, live: Live, card: Card) -> None:
    """One file or folder for each layout of the recipe, each proven by loading it back."""
    opened = live.opened
    output = opened.recipe.output
    target = Path(output.folder) if output.folder is not None else run.folder.results
    shelf = Shelf(run.folder.home)
    for index, layout in enumerate(output.exports):
        name = export_name(output.name, layout, adapter=card.kind == "adapter", first=index == 0)
        exported = export_checkpoint(
            card,
            shelf,
            engine=opened.engine,
            base=opened.base,
            layout=layout,
            path=target / name,
            dtype=output.dtype,
        )
        run.emit(Exported(card.step, str(exported.path), layout))


def export_name(name: str, layout: str, *, adapter: bool, first: bool) -> str:
    """`peter.safetensors` for a first layout that is one file; else `peter-diffusers.safetensors` or `peter-peft`."""
    one_file = layout in ("kohya", "single_file") or (adapter and layout == "diffusers")
    stem = name if first and one_file else f"{name}-{layout}"
    return f"{stem}.safetensors" if one_file else stem
