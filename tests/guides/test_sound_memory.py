"""The guide's memory figures are the plan's own estimate for the published shape."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tunesmith.data.item import Item, MediaFile
from tunesmith.engines.index import recipe_facts
from tunesmith.engines.protocol import Machine
from tunesmith.engines.stable_audio import engine
from tunesmith.jobs.plan import peak_bytes
from tunesmith.recipe.load import read_recipe
from tunesmith.recipe.schema import BaseSection
from tunesmith.training.components import settled

GUIDE = (Path(__file__).parents[2] / "docs" / "guides" / "sound.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\|[^|]*\| `(preset=[^`]*)` \| ([\d.]+) \| ([\d.]+) \|$", GUIDE, re.M)
OTHER_TOOLS = "preset=family length.batch_items=32 engine.window_seconds=10"
GPU = Machine(device="cuda", memory_bytes=24 << 30, threads=8, bf16=True, matrix_rate={}, convolution_rate={})


def estimated_gib(words: str, precision: str) -> float:
    """Peak of the largest phase with a hundred clips."""
    item = Item("clip", {"audio": MediaFile(Path("clip.wav"), "")}, {"caption": "ghoul screech"}, "clip")
    head = ["engine.name=stable_audio", "base.path=base", "data.paths=[clips]", f"resources.precision={precision}"]
    recipe = read_recipe([], [*head, *words.split()], recipe_facts)
    recipe = settled(engine.facts, replace(recipe, base=BaseSection(architecture="stable_audio_open_1")))
    estimate = engine.estimate(engine.open(recipe.base), recipe, {engine.shape(item, recipe): 100}, GPU)
    return peak_bytes(estimate) / 2**30


def test_the_table_is_there() -> None:
    assert len(ROWS) >= 8
    assert {"preset=family", "preset=ambience"} <= {words for words, _, _ in ROWS}


@pytest.mark.parametrize(("words", "bf16", "fp32"), ROWS)
def test_a_row_is_the_estimate(words: str, bf16: str, fp32: str) -> None:
    assert f"{estimated_gib(words, 'bf16'):.1f}" == bf16
    assert f"{estimated_gib(words, 'fp32'):.1f}" == fp32


def test_the_figure_beside_what_others_report() -> None:
    stated = re.search(r"for a LoRA on 32 clips of 10 s a step, where this estimate says ([\d.]+)", GUIDE)
    assert stated is not None
    assert f"{estimated_gib(OTHER_TOOLS, 'bf16'):.1f}" == stated[1]
