"""Loss curves as PNG, from the events of a run. Drawn without a display and without matplotlib's global state."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.errors import DataError
from tunesmith.events import Event, to_json
from tunesmith.weights.atomic import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = tuple[list[int], list[float]]  # steps, values

TRAINING, HELD_OUT = "#7c5cff", "#00a6c8"


def loss_plot(events: Iterable[Event | Mapping[str, Any]], path: Path) -> Path:
    """Training loss per step, its running mean and the held-out loss (per concept where there are several).

    `events` are records or lines of `events.jsonl`. Values that are not finite are left out, as are steps that were
    rolled back. Raises DataError where no event is a step or a validation.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = [event if isinstance(event, Mapping) else to_json(event) for event in events]
    steps, held_out, concepts = curves(lines)
    if not steps[0] and not held_out[0]:
        raise DataError("there is nothing to plot", expected="at least one step", do="let the run take a step first")
    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if steps[0]:
        axes.plot(*steps, color=TRAINING, alpha=0.25, linewidth=0.8)
        axes.plot(steps[0], running_mean(steps[1]), color=TRAINING, linewidth=1.6, label="training, running mean")
    if held_out[0]:
        _draw_held_out(axes, held_out, concepts)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.grid(visible=True, alpha=0.25)
    axes.legend(frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, buffer.getvalue())
    return path


def _draw_held_out(axes: Axes, held_out: Curve, concepts: Mapping[str, Curve]) -> None:
    axes.plot(*held_out, color=HELD_OUT, marker="o", markersize=3.5, linewidth=1.6, label="held out")
    best = min(range(len(held_out[1])), key=lambda at: held_out[1][at])
    label = f"best: {held_out[1][best]:.4g} at step {held_out[0][best]}"
    axes.plot(
        held_out[0][best], held_out[1][best], color=HELD_OUT, marker="*", markersize=12, linestyle="", label=label
    )
    if len(concepts) > 1:
        for concept, curve in concepts.items():
            axes.plot(*curve, linewidth=1.0, linestyle="--", label=f"held out: {concept or 'no concept'}")


def curves(lines: Sequence[Mapping[str, Any]]) -> tuple[Curve, Curve, dict[str, Curve]]:
    """Training loss, held-out loss and held-out loss per concept, each by step; the last value of a step counts."""
    training: dict[int, float] = {}
    held_out: dict[int, float] = {}
    concepts: dict[str, dict[int, float]] = {}
    for line in lines:
        if line["kind"] == "rolled_back":
            for kept in (training, held_out, *concepts.values()):
                for step in [step for step in kept if step > line["to_step"]]:
                    del kept[step]
        elif line["kind"] == "step" and _finite(line["loss"]):
            training[line["step"]] = line["loss"]
        elif line["kind"] == "validated" and _finite(line["loss"]):
            held_out[line["step"]] = line["loss"]
            for concept, value in line.get("per_concept", {}).items():
                if _finite(value):
                    concepts.setdefault(concept, {})[line["step"]] = value
    return _curve(training), _curve(held_out), {name: _curve(found) for name, found in concepts.items()}


def running_mean(values: Sequence[float], share: float = 0.1) -> list[float]:
    """Mean over the last `share` of the run's length at every point, fewer at the start."""
    window = max(1, round(share * len(values)))
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    return [(sums[at + 1] - sums[max(0, at + 1 - window)]) / min(at + 1, window) for at in range(len(values))]


def _curve(found: Mapping[int, float]) -> Curve:
    steps = sorted(found)
    return steps, [found[step] for step in steps]


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
