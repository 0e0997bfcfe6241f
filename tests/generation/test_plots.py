"""Loss curves show what happened, without what was rolled back and what is no number."""

from __future__ import annotations

import math
from pathlib import Path

import numpy
import pytest
from PIL import Image

from tunesmith.errors import DataError
from tunesmith.events import Event, Phase, RolledBack, StepDone, Validated, to_json
from tunesmith.generation.plots import curves, loss_plot, running_mean


def _step(step: int, loss: float) -> StepDone:
    return StepDone(step, step, loss, {"denoiser": 1e-4}, 1.0, 0.1)


EVENTS: list[Event] = [
    Phase("train"),
    *[_step(step, 1.0 / step) for step in range(1, 6)],
    Validated(5, 0.5, {"one": 0.4, "two": 0.6}),
    _step(6, math.nan),
    RolledBack(6, 4, "NaN in item 7"),
    _step(5, 0.25),
    _step(6, 0.2),
    Validated(6, 0.3, {"one": 0.2, "two": 0.4}),
    Validated(7, math.inf),
]


def test_curves_of_a_run_with_a_rollback() -> None:
    training, held_out, concepts = curves([to_json(event) for event in EVENTS])
    assert training == ([1, 2, 3, 4, 5, 6], [1.0, 0.5, 1 / 3, 0.25, 0.25, 0.2])
    assert held_out == ([6], [0.3])
    assert concepts == {"one": ([6], [0.2]), "two": ([6], [0.4])}


def test_running_mean_matches_numpy() -> None:
    values = [float(value) for value in numpy.sin(numpy.arange(50.0))]
    expected = [float(numpy.mean(values[max(0, at - 4) : at + 1])) for at in range(50)]
    assert running_mean(values, 0.1) == pytest.approx(expected, abs=1e-12)
    assert running_mean([3.0]) == [3.0]


@pytest.mark.parametrize("lines", [False, True])
def test_a_plot_is_drawn(tmp_path: Path, lines: bool) -> None:
    events = [to_json(event) for event in EVENTS] if lines else EVENTS
    path = loss_plot(events, tmp_path / "plots" / "loss.png")
    with Image.open(path) as image:
        assert image.size == (960, 540)
        pixels = numpy.asarray(image.convert("RGB")).reshape(-1, 3)
    assert (pixels == (0x7C, 0x5C, 0xFF)).all(axis=1).sum() > 200, "the training curve"
    assert (pixels == (0x00, 0xA6, 0xC8)).all(axis=1).sum() > 20, "the held-out point"


def test_other_values_draw_other_plots(tmp_path: Path) -> None:
    first = loss_plot(EVENTS, tmp_path / "a.png").read_bytes()
    again = loss_plot(EVENTS, tmp_path / "b.png").read_bytes()
    other = loss_plot([*EVENTS, _step(7, 0.9)], tmp_path / "c.png").read_bytes()
    assert first == again
    assert first != other


def test_nothing_to_plot_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing to plot"):
        loss_plot([Phase("encode"), _step(1, math.nan)], tmp_path / "loss.png")
    assert not (tmp_path / "loss.png").exists()
