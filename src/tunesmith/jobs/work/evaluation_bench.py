"""What every measure of an evaluation needs, and how it draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from tunesmith.adapters.files import read_adapter
from tunesmith.data.cache import Cache
from tunesmith.data.item import Item
from tunesmith.engines.protocol import Base, Media
from tunesmith.evaluation.report import without_words
from tunesmith.generation.session import Attachment, Session, open_session
from tunesmith.jobs.evaluating import NAME_START
from tunesmith.jobs.work.drawing import request_for
from tunesmith.jobs.work.opening import Opened
from tunesmith.jobs.work.run import Run
from tunesmith.training.device import Precision

SHEET = "sheet.png"


@dataclass(frozen=True)
class Asked:
    """What the manifest's details ask for beyond the recipe.

    `base` is how to open what it was trained from, None where that was nothing; `words` are its triggers; `world` are
    folders of items the checkpoint should not have changed; `pictures` how many prompts are drawn; `request` knobs of
    the generation request, such as guidance.
    """

    checkpoint: str
    base: dict[str, Any] | None = None
    words: tuple[str, ...] = ()
    world: tuple[str, ...] = ()
    pictures: int = 24
    request: dict[str, Any] | None = None


@dataclass(frozen=True)
class Bench:
    """What every measure needs. `opened.base` is the checkpoint's; `plain` is the base without the checkpoint."""

    run: Run
    opened: Opened
    asked: Asked
    cache: Cache
    device: torch.device
    precision: Precision
    world: tuple[Item, ...]
    plain: Base | None

    @property
    def labels(self) -> tuple[str, str, str]:
        """What the rows of the sheet show."""
        return "real", "base", self.opened.recipe.output.name.removeprefix(NAME_START)


@dataclass(frozen=True)
class Drawn:
    """What was made of the prompts of `items`, with and without the checkpoint, on the same seeds.

    `before` and `unasked` are empty where there is no base; `unasked` and `leaked` are of the same prompts without
    the triggers, empty where there are none. `parameters` are those of one of them, such as a sound's rate.
    """

    items: tuple[Item, ...]
    before: list[Any]
    after: list[Any]
    unasked: list[Any]
    leaked: list[Any]
    parameters: Mapping[str, Any]


def draw_both(bench: Bench) -> Drawn | None:
    """Draw the prompts of held-out items, or of those learnt from; None where no item has a caption."""
    gathered, asked = bench.opened.gathered, bench.asked
    items = [item for item in (*gathered.held_out, *gathered.own) if item.text.get("caption")]
    if not items:
        return None
    shown = tuple(items[index % len(items)] for index in range(min(asked.pictures, len(items))))
    bare = shown if asked.words else ()
    after, leaked = _draw(bench, shown, bare, tuned=True)
    before, unasked = _draw(bench, shown, bare, tuned=False) if bench.plain is not None else ([], [])

    def data(group: Sequence[Media]) -> list[Any]:
        return [media.data for media in group]

    return Drawn(shown, data(before), data(after), data(unasked), data(leaked), after[0].parameters)


def _draw(bench: Bench, shown: Sequence[Item], bare: Sequence[Item], *, tuned: bool) -> tuple[list[Media], list[Media]]:
    """The prompts of `shown`, and those of `bare` without triggers; number i of both has the same seed always."""
    opened, words = bench.opened, bench.asked.words
    base = opened.base if tuned else bench.plain
    assert base is not None
    attachments: tuple[Attachment, ...] = ()
    if tuned and opened.init_adapter is not None:
        adapter = read_adapter(opened.init_adapter, opened.engine.layouts, opened.base)
        attachments = (Attachment(adapter),)
    session = open_session(
        opened.engine, base, device=bench.device, dtype=bench.precision.dtype, attachments=attachments
    )
    first = [_drawn(bench, session, item, item.text["caption"], index) for index, item in enumerate(shown)]
    second = [
        _drawn(bench, session, item, without_words(item.text["caption"], words), index)
        for index, item in enumerate(bare)
    ]
    session.close()
    return first, second


def _drawn(bench: Bench, session: Session, item: Item, prompt: str, index: int) -> Media:
    opened = bench.opened
    seed = opened.recipe.length.seed + index
    request = request_for(opened.engine, opened.base, opened.settled, prompt=prompt, seed=seed, like=item)
    request = replace(request, **(bench.asked.request or {}))
    found = [event for event in session.generate(request, bench.run.stops) if isinstance(event, Media)]
    bench.run.check_stop()
    return found[-1]
