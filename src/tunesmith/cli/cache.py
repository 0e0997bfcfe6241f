"""`tunesmith cache`: the encoded items kept so that nothing is encoded twice."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli.options import AsJson
from tunesmith.cli.screen import Screen, human_bytes
from tunesmith.cli.surroundings import surroundings_of

group = typer.Typer(help="encoded items on disk", no_args_is_help=True)

ENCODED = Path("cache", "encoded")  # beside it, the remembered file hashes, which are small


@group.command()
def show(context: typer.Context, as_json: AsJson = False) -> None:
    """Show where the cache is and how much it holds."""
    folder = surroundings_of(context).home / ENCODED
    files = [path for path in folder.rglob("*") if path.is_file()] if folder.exists() else []
    size = sum(path.stat().st_size for path in files)
    screen = Screen(as_json)
    if as_json:
        screen.document({"folder": folder, "files": len(files), "size_bytes": size})
        return
    screen.fields({"folder": folder, "files": len(files), "size": human_bytes(size)})
    screen.next_steps("tunesmith cache prune --keep-gib 5")


@group.command()
def prune(
    context: typer.Context,
    keep_gib: Annotated[float, typer.Option(min=0, help="drop the least recently used until this is left")] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Drop what was used longest ago. Whatever is dropped is encoded again when it is needed."""
    from tunesmith.data.cache import Cache

    limit = int(keep_gib * 2**30)
    folder = surroundings_of(context).home / ENCODED
    freed = Cache(folder, limit).prune(limit) if folder.exists() else 0
    screen = Screen(as_json)
    if as_json:
        screen.document({"folder": folder, "freed_bytes": freed})
        return
    screen.say(f"freed {human_bytes(freed)} in {folder}")
