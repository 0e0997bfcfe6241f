"""The guide's way of loading our LoRA into a stock diffusers pipeline, run as it is printed, on a tiny base."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from small_adapters import adapter_for
from tiny_audio import write_folder
from tunesmith.adapters.adapter import Adapter
from tunesmith.engines.protocol import Base
from tunesmith.engines.stable_audio import engine
from tunesmith.engines.stable_audio.layouts import adapter_layers
from tunesmith.engines.stable_audio.shapes import tensor_shapes
from tunesmith.exchange.export import export_adapter
from tunesmith.generation.session import Attachment, open_session
from tunesmith.recipe.schema import BaseSection

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "sound.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.S | re.M)
MERGE = "pipeline.transformer = adapted.merge_and_unload()"
RATE = 200  # with the tiny base's hop of 8 samples its window is 5 s: room for the guide's three
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the base under the name that the guide gives it."""
    folder = tmp_path_factory.mktemp("guide")
    base = write_folder(folder / "models" / "stable-audio-open-1.0")
    config = base / "vae" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "sampling_rate": RATE}))
    return folder


@pytest.fixture
def base(place: Path, monkeypatch: pytest.MonkeyPatch) -> Base:
    """The base, opened by us, from the folder that is the current one."""
    monkeypatch.chdir(place)
    return engine.open(BaseSection(path="models/stable-audio-open-1.0"))


def made(base: Base, *, dora: bool) -> Adapter:
    """An adapter on every layer that takes one; ranks and alphas differ."""
    shapes = tensor_shapes("denoiser", base.architecture["denoiser"])
    layers = adapter_layers(base.architecture["denoiser"])
    return adapter_for({("denoiser", layer): shapes[f"{layer}.weight"] for layer in layers}, dora=dora)


def ours(base: Base, adapter: Adapter | None, weight: float = 1.0) -> np.ndarray[Any, Any]:
    """What `tunesmith generate` makes of the guide's request: samples [channels, samples]."""
    attachments = [] if adapter is None else [Attachment(adapter, weight, "ghoul")]
    session = open_session(engine, base, device=CPU, dtype=torch.float32, attachments=attachments)
    request = engine.facts.request(prompt="ghoul screech", seconds=1.6, window_seconds=3.0, seed=123)
    *_, media = session.generate(request)
    return np.asarray(media.data)


@pytest.fixture
def load(base: Base) -> Iterator[Any]:
    """`load(...)` runs the guide's blocks on a fresh pipeline and returns the sound of the last."""
    import diffusers
    from diffusers.utils import logging

    logging.disable_progress_bar()

    def run(*blocks: str) -> np.ndarray[Any, Any]:
        names: dict[str, Any] = {}
        for block in blocks:
            exec(compile(block, str(GUIDE), "exec"), names)
            if "pipeline" in names:
                names["pipeline"].set_progress_bar_config(disable=True)
        assert type(names["pipeline"]) is diffusers.StableAudioPipeline
        return np.asarray(names["sound"])

    yield run
    logging.enable_progress_bar()


def test_the_snippet_is_three_lines() -> None:
    assert len(BLOCKS) == 3
    assert len([line for line in BLOCKS[1].splitlines() if line]) == 3
    assert MERGE in BLOCKS[1]


@pytest.mark.parametrize("dora", [False, True])
def test_a_stock_pipeline_makes_our_sound(base: Base, load: Any, tmp_path: Path, dora: bool) -> None:
    adapter = made(base, dora=dora)
    export_adapter(adapter, tmp_path / "ghoul_peft", engine=engine, base=base, layout="peft", dtype="fp32")
    there = [block.replace('"ghoul_peft"', repr(str(tmp_path / "ghoul_peft"))) for block in BLOCKS]
    bare, adapted, wanted = load(BLOCKS[0], BLOCKS[2]), load(*there), ours(base, adapter)
    assert adapted.shape == wanted.shape == (2, round(1.6 * RATE))
    np.testing.assert_allclose(bare, ours(base, None), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(adapted, wanted, rtol=1e-4, atol=1e-4)
    assert np.abs(adapted - bare).max() > 100 * np.abs(adapted - wanted).max()
    assert np.abs(adapted - bare).max() > 0.01


def test_a_strength_as_the_guide_has_it(base: Base, load: Any, tmp_path: Path) -> None:
    text = GUIDE.read_text(encoding="utf-8")
    assert "with rescale_adapter_scale(adapted, 0.8):`, from `peft.helpers`" in text
    adapter = made(base, dora=False)
    export_adapter(adapter, tmp_path / "ghoul_peft", engine=engine, base=base, layout="peft", dtype="fp32")
    weaker = BLOCKS[1].replace(MERGE, f"with rescale_adapter_scale(adapted, 0.8):\n    {MERGE}")
    weaker = weaker.replace('"ghoul_peft"', repr(str(tmp_path / "ghoul_peft")))
    sound = load(BLOCKS[0], "from peft.helpers import rescale_adapter_scale", weaker, BLOCKS[2])
    np.testing.assert_allclose(sound, ours(base, adapter, 0.8), rtol=1e-4, atol=1e-4)
    assert np.abs(sound - ours(base, adapter)).max() > 1e-3
