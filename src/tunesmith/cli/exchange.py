"""`tunesmith checkpoints import|export|verify|merge`: files in from other tools, and out to them, each proven."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from tunesmith.cli.checkpoints import shelf_of
from tunesmith.cli.options import AsJson
from tunesmith.cli.screen import Screen, human_bytes

if TYPE_CHECKING:
    from tunesmith.catalog.card import Card
    from tunesmith.catalog.shelf import Shelf
    from tunesmith.engines.protocol import Base, Engine

group = typer.Typer()

Name = Annotated[str, typer.Argument(metavar="CHECKPOINT", help="its id, the beginning of it, or its name")]
BasePath = Annotated[str | None, typer.Option("--base", help="the base it belongs to; else the one on its card")]
Layout = Annotated[str | None, typer.Option(help="file layout; the engine's first one if left out")]
Dtype = Annotated[str, typer.Option(metavar="fp16|bf16|fp32", help="precision of the file")]
Force = Annotated[bool, typer.Option("--force", help="replace what is there")]
Out = Annotated[Path | None, typer.Option(help="the file or folder to write; else a name in this folder")]


@group.command("import")
def import_file(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(help="a LoRA file or a PEFT folder from anywhere")],
    name: Annotated[str | None, typer.Option(help="what to call it; else its own name")] = None,
    base: BasePath = None,
    engine: Annotated[str | None, typer.Option(help="its engine; the usual one if left out")] = None,
    as_json: AsJson = False,
) -> None:
    """Take a LoRA made elsewhere into the catalog. With --base every layer is checked against it."""
    from tunesmith.engines.index import engine_named, engine_names
    from tunesmith.exchange.importing import import_adapter
    from tunesmith.recipe.schema import BaseSection

    chosen = engine_named(engine or engine_names()[0])
    shelf = shelf_of(context)
    opened = chosen.open(BaseSection(path=shelf.base_path(base))) if base else None
    card = import_adapter(path, chosen, shelf=shelf, base=opened, name=name)
    screen = Screen(as_json)
    if as_json:
        screen.document(card)
        return
    screen.say(f"imported {path} as {card.id}")
    screen.next_steps(f"tunesmith generate --checkpoint {card.id} --base {base or 'BASE'} --prompt '…'")


@group.command()
def export(
    context: typer.Context,
    checkpoint: Name,
    layout: Layout = None,
    out: Out = None,
    dtype: Dtype = "fp16",
    base: BasePath = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Write it for another tool, and prove it by reading it back: kohya (A1111, ComfyUI), diffusers, peft."""
    from tunesmith.exchange.export import adapter_path, export_checkpoint
    from tunesmith.exchange.settling import check_target, weights_target
    from tunesmith.recipe.checks import is_plain_name

    shelf = shelf_of(context)
    card = shelf.get(checkpoint)
    engine, opened = _engine_and_base(card, base, shelf)
    known = engine.layouts.adapter_layouts if card.kind == "adapter" else engine.layouts.weight_layouts
    chosen = layout or known[0]
    folders = chosen == "peft" or (card.kind == "weights" and chosen != "single_file")
    # Old cards may hold any name; a file's name is all that it may say here.
    stem = card.name if is_plain_name(card.name) else card.id
    path = out or Path(f"{stem}-{chosen}" + ("" if folders else ".safetensors"))
    target = adapter_path(path, chosen) if card.kind == "adapter" else weights_target(path, chosen)
    check_target(target, opened, replace=force)
    done = export_checkpoint(card, shelf, engine=engine, base=opened, layout=chosen, path=path, dtype=dtype)
    screen = Screen(as_json)
    if as_json:
        screen.document(done)
        return
    proof = done.verification
    screen.say(
        f"wrote {done.path} ({done.layout}, {human_bytes(done.size_bytes)})",
        f"read back: {proof.matched} matched, {len(proof.leftover)} left over, "
        f"largest difference {proof.largest_difference:.3g}",
    )


@group.command()
def verify(
    context: typer.Context,
    checkpoint: Name,
    path: Annotated[Path, typer.Argument(help="the exported file or folder")],
    base: BasePath = None,
    as_json: AsJson = False,
) -> None:
    """Check that an exported file still holds exactly this checkpoint."""
    from tunesmith.adapters.files import read_adapter
    from tunesmith.errors import ExchangeError
    from tunesmith.exchange.verify import verify_adapter

    shelf = shelf_of(context)
    card = shelf.get(checkpoint)
    if card.kind != "adapter":
        raise ExchangeError(f"{card.id} holds full weights", expected="an adapter", do="compare it with `generate`")
    engine, opened = _engine_and_base(card, base, shelf)
    adapter = read_adapter(shelf.path(card), engine.layouts, opened)
    if not path.exists():
        raise ExchangeError(f"{path} does not exist", expected="a file or folder that was exported")
    try:
        proof = verify_adapter(path, engine, base=opened, adapter=adapter)
    except ExchangeError as error:
        # Here it may well be another checkpoint's file; only a fresh export is worth a report.
        do = f"export it again with `tunesmith checkpoints export {card.id}`, or name the checkpoint it was made from"
        raise ExchangeError(error.found, expected=error.expected, do=do) from error
    screen = Screen(as_json)
    if as_json:
        screen.document(proof)
        return
    screen.say(f"{path} is {card.id}: {proof.matched} layers, largest difference {proof.largest_difference:.3g}")


@group.command()
def merge(
    context: typer.Context,
    checkpoints: Annotated[list[str], typer.Argument(metavar="CHECKPOINT[:WEIGHT]…", help="what to bake in")],
    out: Annotated[Path, typer.Option(help="the file or folder to write")],
    base: BasePath = None,
    layout: Layout = None,
    dtype: Dtype = "fp16",
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Bake adapters into their base: one full checkpoint equal to base + adapters."""
    from tunesmith.adapters.files import read_adapter
    from tunesmith.errors import ExchangeError
    from tunesmith.exchange.merge import merge_adapters
    from tunesmith.exchange.selection import named_weight
    from tunesmith.exchange.settling import check_target, weights_target

    shelf = shelf_of(context)
    named = [named_weight(text) for text in checkpoints]
    cards = [(shelf.get(name), weight) for name, weight in named]
    for card, _ in cards:
        if card.kind != "adapter":
            raise ExchangeError(f"{card.id} holds full weights", expected="adapters to bake into a base")
    engine, opened = _engine_and_base(cards[0][0], base, shelf)
    chosen = layout or engine.layouts.weight_layouts[0]
    check_target(weights_target(out, chosen), opened, replace=force)
    adapters = [(read_adapter(shelf.path(card), engine.layouts, opened), weight) for card, weight in cards]
    written = merge_adapters(
        engine,
        opened,
        adapters=adapters,
        path=out,
        layout=chosen,
        dtype=dtype,
    )
    screen = Screen(as_json)
    if as_json:
        screen.document({"path": written, "checkpoints": [{"id": card.id, "weight": weight} for card, weight in cards]})
        return
    screen.say(f"wrote {written}")
    screen.next_steps(f"tunesmith generate --base {quote(str(written))} --no-adapter --prompt '…'")


def _engine_and_base(card: Card, base: str | None, shelf: Shelf) -> tuple[Engine, Base]:
    from tunesmith.catalog.card import base_of
    from tunesmith.engines.index import engine_named

    engine = engine_named(card.engine)
    return engine, engine.open(base_of(card, shelf.base_path(base) if base else None))
