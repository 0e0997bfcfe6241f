"""`tunesmith generate`: pictures or sounds from a base and any checkpoints on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunesmith.cli.calling import Asked, Call, request_of, say_what, select_for, settle
from tunesmith.cli.opening import Place, open_on
from tunesmith.cli.options import AsJson
from tunesmith.cli.outputs import PICTURE_ENDINGS, as_path, check_out, free, is_one_file, refuse_existing, slug
from tunesmith.cli.screen import Screen
from tunesmith.cli.sound_flags import given_flags, sound_wish, with_sound_flags
from tunesmith.cli.surroundings import Surroundings, surroundings_of
from tunesmith.errors import RecipeError

if TYPE_CHECKING:
    from tunesmith.generation.session import Session

group = typer.Typer()

OUT = "generated"
Setting = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KNOB=VALUE…]", help="other knobs of the engine's request; post.KNOB=VALUE for --post"),
]


@group.command(short_help="make pictures or sounds")
@with_sound_flags
def generate(
    context: typer.Context,
    settings: Setting = None,
    prompt: Annotated[str | None, typer.Option(help="what to draw, or to hear")] = None,
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
    seed: Annotated[str | None, typer.Option(metavar="N", help="same seed, same picture or sound")] = None,
    steps: Annotated[str | None, typer.Option(metavar="N", help="denoising steps")] = None,
    guidance: Annotated[str | None, typer.Option(metavar="X", help="how strongly the prompt pulls")] = None,
    scheduler: Annotated[str | None, typer.Option(help="pictures: the sampler")] = None,
    width: Annotated[str | None, typer.Option(metavar="PIXELS", help="pictures: width")] = None,
    height: Annotated[str | None, typer.Option(metavar="PIXELS", help="pictures: height")] = None,
    count: Annotated[int, typer.Option(min=1, max=10_000, help="how many, with seeds counting up")] = 1,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps")] = None,
    precision: Annotated[
        str | None, typer.Option(metavar="auto|fp32|bf16|fp16", help="precision of the weights")
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="PATH", help=f"a folder, or one file: .png, .wav, .ogg … [{OUT}]")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace the file that --out names")] = False,
    as_json: AsJson = False,
    **sound: Any,
) -> int:
    """Generate with the active checkpoint, or the ones named, or the bare base."""
    here, screen, flags = surroundings_of(context), Screen(as_json), given_flags(sound)
    knobs = {
        "prompt": prompt,
        "negative": negative,
        "seed": seed,
        "steps": steps,
        "guidance": guidance,
        "scheduler": scheduler,
        "width": width,
        "height": height,
    }
    asked = Asked(
        request={name: value for name, value in knobs.items() if value is not None},
        words=settings or (),
        sound=flags,
        concept=concept,
        checkpoints=[] if no_adapter else checkpoint,
        base=base,
        engine=engine,
        out=as_path(out if out is not None else OUT, "--out", screen),
    )
    if "replay" in flags:
        return _replay(here, asked, asked.out if out is not None else None, device=device, force=force, screen=screen)
    call = settle(here, asked, screen)
    place = _place(here, device, precision)
    if call.makes_sounds:
        from tunesmith.cli.generate_sound import Output, make_sounds

        if "minecraft" in flags:
            flags["minecraft"] = str(as_path(flags["minecraft"], "--minecraft", screen))
        wish = sound_wish(flags, asked.words)
        if wish.pack is not None and out is not None:
            raise RecipeError("--out and --minecraft are both given", do="packs have their own places: leave --out out")
        make_sounds(here, call, wish, output=Output(asked.out, count, force), place=place, screen=screen)
        return 0
    _make_pictures(here, call, asked.out, count=count, force=force, place=place, screen=screen)
    return 0


def _replay(
    here: Surroundings, asked: Asked, out: Path | None, *, device: str | None, force: bool, screen: Screen
) -> int:
    """The sound of --replay again; beside it only places may be given, since everything else is in the credits."""
    from tunesmith.cli.replay_sound import Again, replay_sound

    stray = [*(f"--{name}" for name in asked.request), *asked.words]
    stray += [f"--{name.replace('_', '-')}" for name in asked.flags if name != "replay"]
    stray += [flag for flag, value in (("--concept", asked.concept), ("--engine", asked.engine)) if value is not None]
    if stray:
        expected = "--out, --force, --base, --checkpoint, --device, --json"
        raise RecipeError(f"{stray[0]} is given with --replay", expected=expected)
    source = as_path(asked.flags["replay"], "--replay", screen)
    again = Again(out, force, asked.base, asked.checkpoints, device)
    return replay_sound(here, source, again, screen)


def _place(here: Surroundings, device: str | None, precision: str | None) -> Place:
    source = "" if device else str(here.home / "settings.yaml")
    return Place(device or here.settings().device, precision or "auto", device_source=source)


def _make_pictures(
    here: Surroundings, call: Call, out: Path, *, count: int, force: bool, place: Place, screen: Screen
) -> None:
    check_out(out, PICTURE_ENDINGS, count)
    if is_one_file(out, PICTURE_ENDINGS):
        refuse_existing([out], force=force)
    selection = select_for(here, call)
    first = request_of(selection.engine.facts.request, call.request)
    say_what(screen, selection)
    session, _ = open_on(selection, place)
    written = [_draw(session, _with_seed(first, index), out, screen) for index in range(count)]
    session.close()
    if screen.as_json:
        screen.document({"files": written, "base": selection.base.source, "checkpoints": selection.used})
    screen.next_steps("tunesmith checkpoints list", "the settings are inside each PNG, for this and other tools")


def _draw(session: Session, request: Any, out: Path, screen: Screen) -> Path:
    """One picture to its file, with progress."""
    from tunesmith.engines.protocol import Media
    from tunesmith.generation.pictures import save_png

    one_file = is_one_file(out, PICTURE_ENDINGS)
    path = out if one_file else free(out / f"{slug(request.prompt, 'picture')}-{request.seed}.png")
    for event in session.generate(request):
        if isinstance(event, Media):
            save_png(event, path)
    screen.say(f"wrote {path}")
    return path


def _with_seed(request: Any, index: int) -> Any:
    from dataclasses import replace

    return replace(request, seed=request.seed + index)
