"""`tunesmith generate`: pictures from a base and any checkpoints on it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunesmith.cli.options import AsJson
from tunesmith.cli.screen import Screen
from tunesmith.cli.surroundings import Surroundings, surroundings_of
from tunesmith.errors import DeviceError, RecipeError

if TYPE_CHECKING:
    from tunesmith.exchange.selection import Selection
    from tunesmith.generation.session import Session

group = typer.Typer()

Setting = Annotated[
    list[str] | None, typer.Argument(metavar="[KNOB=VALUE…]", help="other knobs of the engine's request")
]


@group.command(short_help="make pictures")
def generate(
    context: typer.Context,
    settings: Setting = None,
    prompt: Annotated[str | None, typer.Option(help="what to draw")] = None,
    negative: Annotated[str | None, typer.Option(help="what to keep out")] = None,
    concept: Annotated[
        str | None,
        typer.Option(
            "--concept", "--family", "--creature-family", help="a concept of the registry: trigger, checkpoint"
        ),
    ] = None,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[:WEIGHT]", help="what to attach (repeatable); else the active one"),
    ] = None,
    no_adapter: Annotated[bool, typer.Option("--no-adapter", help="the bare base")] = False,
    base: Annotated[str | None, typer.Option(help="file or folder; else the checkpoint's own base")] = None,
    engine: Annotated[str | None, typer.Option(help="the engine; else the checkpoint's")] = None,
    seed: Annotated[str | None, typer.Option(metavar="N", help="same seed, same picture")] = None,
    steps: Annotated[str | None, typer.Option(metavar="N", help="denoising steps")] = None,
    guidance: Annotated[str | None, typer.Option(metavar="X", help="how strongly the prompt pulls")] = None,
    scheduler: Annotated[str | None, typer.Option(help="the sampler")] = None,
    width: Annotated[str | None, typer.Option(metavar="PIXELS", help="width")] = None,
    height: Annotated[str | None, typer.Option(metavar="PIXELS", help="height")] = None,
    count: Annotated[int, typer.Option(min=1, max=10_000, help="how many, with seeds counting up")] = 1,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps")] = None,
    precision: Annotated[
        str | None, typer.Option(metavar="auto|fp32|bf16|fp16", help="precision of the weights")
    ] = None,
    out: Annotated[Path, typer.Option(help="a folder, or a .png file for one picture")] = Path("generated"),
    force: Annotated[bool, typer.Option("--force", help="replace the file that --out names")] = False,
    as_json: AsJson = False,
) -> None:
    """Generate with the active checkpoint, or the ones named, or the bare base."""
    from tunesmith.recipe.settings import find_base

    here = surroundings_of(context)
    screen = Screen(as_json)
    given: dict[str, Any] = {
        "prompt": prompt,
        "negative": negative,
        "seed": seed,
        "steps": steps,
        "guidance": guidance,
        "scheduler": scheduler,
        "width": width,
        "height": height,
    }
    given = {name: value for name, value in given.items() if value is not None}
    _check_out(out, count, force=force)
    standing = here.settings()
    named: list[str] | None = [] if no_adapter else checkpoint
    if concept is not None:
        called = _apply_concept(here, concept, given)
        named = [called] if named is None and called else named
    given.update(_pairs(settings or []))
    selection = _select(here, named, base=find_base(base, standing), engine=engine)
    first = _request(selection.engine.facts.request, given)
    _say_what(screen, selection)
    source = "" if device else str(here.home / "settings.yaml")
    session = _open(selection, device or standing.device, precision or "auto", device_source=source)
    written = [_draw(session, _with_seed(first, index), out, screen) for index in range(count)]
    session.close()
    if as_json:
        screen.document({"files": written, "base": selection.base.source, "checkpoints": selection.used})
    screen.next_steps("tunesmith checkpoints list", "the settings are inside each PNG, for this and other tools")


def _apply_concept(here: Surroundings, name: str, given: dict[str, Any]) -> str | None:
    """Fill the concept's template and negative prompt in; returns its checkpoint at its strength."""
    from tunesmith.catalog.concepts import Concepts

    concept = Concepts(here.home).get(name)
    given["prompt"] = concept.prompt(given.get("prompt", ""))
    given.setdefault("negative", concept.negative_prompt)
    return f"{concept.checkpoint}:{concept.strength:g}" if concept.checkpoint else None


def _select(here: Surroundings, named: list[str] | None, *, base: str | None, engine: str | None) -> Selection:
    from tunesmith.catalog.shelf import Shelf
    from tunesmith.exchange.selection import select

    return select(Shelf(here.home), named, base=base, engine=engine)


def _say_what(screen: Screen, selection: Selection) -> None:
    screen.say(f"base {selection.base.source}")
    for used in selection.used:
        screen.say(f"checkpoint {used.name} at {used.weight:g}" + (" (the active one)" if used.active else ""))
    if not selection.used:
        screen.say("no checkpoint: the bare base")


def _check_out(out: Path, count: int, *, force: bool) -> None:
    """Refuse a place that cannot be written before anything is loaded."""
    one_file = out.suffix.lower() == ".png"
    if one_file and count > 1:
        raise RecipeError(f"--out {out} is one file and --count is {count}", do="name a folder")
    if one_file and out.is_file() and not force:
        raise RecipeError(f"{out} is there already", do="choose another name, or replace it with --force")
    if one_file and out.is_dir():
        raise RecipeError(f"--out {out} is a folder", expected="a .png file, or a folder without that ending")
    folders = out.parents if one_file else (out, *out.parents)
    blocked = next((folder for folder in folders if folder.exists() and not folder.is_dir()), None)
    if blocked is not None:
        raise RecipeError(f"--out {out}: {blocked} is a file", expected="a folder", do="name another with --out")


def _open(selection: Selection, device: str, precision: str, *, device_source: str = "") -> Session:
    """Load on the device; `device_source` is the file that named it, for the error where it is missing."""
    from tunesmith.generation.session import open_session
    from tunesmith.recipe.schema import MethodSection, ResourceSection
    from tunesmith.training.device import choose_device, choose_precision, set_threads

    resources = ResourceSection(device=device, precision=_checked_precision(precision))
    try:
        place = choose_device(resources)
    except DeviceError as error:
        if not device_source:
            raise
        do = "set another with `tunesmith settings set device auto`, or name one with --device"
        found = error.found.replace("resources.device", "device")
        raise DeviceError(f"{device_source}: {found}", expected=error.expected, do=do) from error
    set_threads(None, place)
    chosen = choose_precision(resources, place, MethodSection())
    return open_session(
        selection.engine, selection.base, device=place, dtype=chosen.dtype, attachments=selection.attachments
    )


def _checked_precision(name: str) -> str:
    from tunesmith.recipe.knobs import knobs_of
    from tunesmith.recipe.schema import ResourceSection

    known = next(knob for knob in knobs_of(ResourceSection, "resources") if knob.name == "precision").choices
    if name not in known:
        raise RecipeError(f"--precision is {name!r}", expected=f"one of {', '.join(known)}")
    return name


def _draw(session: Session, request: Any, out: Path, screen: Screen) -> Path:
    """One picture to its file, with progress."""
    from tunesmith.engines.protocol import Media
    from tunesmith.generation.pictures import save_png

    one_file = out.suffix.lower() == ".png"
    path = out if one_file else _free(out / f"{_slug(request.prompt)}-{request.seed}.png")
    for event in session.generate(request):
        if isinstance(event, Media):
            save_png(event, path)
    screen.say(f"wrote {path}")
    return path


def _free(path: Path) -> Path:
    """The path, or the first of `NAME-2.png`, `NAME-3.png` … that nothing has."""
    number, found = 2, path
    while found.exists():
        found = path.with_stem(f"{path.stem}-{number}")
        number += 1
    return found


def _request(section: type, given: Mapping[str, str]) -> Any:
    """The engine's request, every value checked against its knob."""
    from tunesmith.recipe.document import Node, plain_scalar
    from tunesmith.recipe.knobs import knobs_of
    from tunesmith.recipe.values import value_of

    known = {knob.name: knob for knob in knobs_of(section, "request")}
    for name in given:
        if name not in known:
            raise RecipeError(f"this engine's request has no {name!r}", expected=f"one of {', '.join(known)}")
    texts = {name: value if known[name].type is str else plain_scalar(value) for name, value in given.items()}
    return section(
        **{name: value_of(known[name], Node(value, "the request", given[name])) for name, value in texts.items()}
    )


def _with_seed(request: Any, index: int) -> Any:
    from dataclasses import replace

    return replace(request, seed=request.seed + index)


def _pairs(words: list[str]) -> dict[str, str]:
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise RecipeError(f"{word!r} is not a setting", expected="KNOB=VALUE, or --prompt for the words")
        found[name] = value
    return found


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:50] or "picture"
