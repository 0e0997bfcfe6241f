"""Training speed side by side in one run: a plain diffusers + peft loop in float32, and ours.

    python -m benchmarks.training_speed [--resolution 256] [--steps 10] [--base FILE]

Both take the same steps in turn (same pictures, captions, noise, timesteps, first weights), each in a process of its
own, so that neither gains from a quiet moment of the machine and peak memory belongs to one of them. Without --base, a
full-size SD 1.5 with weights by formula is written to a temporary folder first (2.1 GB).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.dialogue import Contender, started

WARM_UP_STEPS = 2  # allocation, oneDNN's first choices


def write_pictures(folder: Path, side: int, count: int = 6) -> Path:
    """Smooth pictures with a few shapes, and captions; what they show does not change the speed."""
    from PIL import Image, ImageDraw

    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        red = Image.linear_gradient("L").resize((side, side)).rotate(60 * index)
        picture = Image.merge("RGB", (red, Image.radial_gradient("L").resize((side, side)), red.rotate(90)))
        box = (side // 8 * (index % 4), side // 4, side // 8 * (index % 4) + side // 3, side // 2)
        ImageDraw.Draw(picture).ellipse(box, fill=(250, 40 * index, 60))
        picture.save(folder / f"{index:02}.png")
        (folder / f"{index:02}.txt").write_text(f"a ball on a gradient, number {index}", encoding="utf-8")
    return folder


def measure(base: Path, work: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """Both loops in turn; medians, peaks and losses."""
    shared = ["--base", str(base), "--work", str(work), "--resolution", str(chosen.resolution)]
    shared += ["--rate", str(chosen.rate)]
    pictures = str(write_pictures(work / "pictures", chosen.resolution))
    total = WARM_UP_STEPS + chosen.steps
    extra = ["--precision", chosen.precision, *(["--plain-convolutions"] if chosen.plain_convolutions else [])]
    ours = Contender(
        "benchmarks.our_loop", [*shared, "--pictures", pictures, "--steps", str(total), *extra], chosen.threads
    )
    with started(ours):
        ready = ours.ask()
        tiny = ["--tiny"] if chosen.tiny else []
        reference = Contender("benchmarks.reference_loop", [*shared, *tiny], chosen.threads)
        with started(reference):
            reference.ask()
            rows = [(reference.ask(step=index), ours.ask(step=index)) for index in range(total)]
            peaks = (reference.end(), ours.end())
    timed = rows[WARM_UP_STEPS:]
    found: dict[str, Any] = {}
    for place, name in enumerate(("reference", "ours")):
        for unit in ("seconds", "processor_seconds"):
            found[f"{name}_{unit}"] = statistics.median(row[place][unit] for row in timed)
        found[f"{name}_peak_bytes"] = peaks[place]
        found[f"{name}_losses"] = [row[place]["loss"] for row in rows]
    pairs = zip(found["reference_losses"], found["ours_losses"], strict=True)
    found["largest_relative_loss_difference"] = max(abs(ours / reference - 1) for reference, ours in pairs)
    found["ratio"] = found["reference_seconds"] / found["ours_seconds"]
    found["processor_ratio"] = found["reference_processor_seconds"] / found["ours_processor_seconds"]
    return {**found, **{key: value for key, value in ready.items() if key != "ready"}}


def report(found: dict[str, Any], chosen: argparse.Namespace) -> str:
    """The figures as a person reads them."""
    import torch

    cpu = next((line for line in _lines("/proc/cpuinfo") if line.startswith("model name")), platform.processor())
    rows = [
        f"{datetime.now(UTC):%Y-%m-%d}, {cpu.partition(':')[2].strip() or cpu}, {chosen.threads} threads, "
        f"torch {torch.__version__}, load {os.getloadavg()[0]:.1f}",
        f"{chosen.resolution} x {chosen.resolution}, batch 1, LoRA rank 16 on the U-Net, {chosen.steps} steps after "
        f"warm-up, ours in {found['precision']} with {found['packed']} convolutions packed",
        f"{'':12}{'s/step':>9}{'CPU s/step':>12}{'peak GiB':>10}",
    ]
    for name in ("reference", "ours"):
        rows.append(
            f"{name:12}{found[f'{name}_seconds']:9.3f}{found[f'{name}_processor_seconds']:12.3f}"
            f"{found[f'{name}_peak_bytes'] / 2**30:10.2f}"
        )
    rows.append(f"ratio {found['ratio']:.2f} (by CPU time {found['processor_ratio']:.2f})")
    rows.append(
        f"our peak by phase: {found['encoded_bytes'] / 2**30:.2f} GiB after encoding, "
        f"{found['loaded_bytes'] / 2**30:.2f} after loading and attaching, "
        f"{found['packed_bytes'] / 2**30:.2f} after packing"
    )
    first = abs(found["ours_losses"][0] / found["reference_losses"][0] - 1)
    rows.append(f"first losses, from equal weights, differ by {100 * first:.3f} %")
    rows.append(f"losses differ by at most {100 * found['largest_relative_loss_difference']:.3f} %:")
    for name in ("reference", "ours"):
        rows.append(f"  {name:10} " + " ".join(f"{loss:.6f}" for loss in found[f"{name}_losses"]))
    return "\n".join(rows)


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines() if Path(path).exists() else []


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rate", type=float, default=1e-4, help="1e-12 compares losses at equal weights")
    parser.add_argument("--base", type=Path)
    parser.add_argument("--json", type=Path, help="also write every figure here")
    parser.add_argument("--plain-convolutions", action="store_true", help="ours without packed convolutions")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"), help="of ours")
    parser.add_argument("--tiny", action="store_true", help="a base of tiny sizes: checks the loops, not their speed")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = chosen.base
        if base is None:
            from benchmarks.random_sd15 import write_random_sd15

            base = write_random_sd15(Path(folder) / "sd15_random.safetensors", tiny=chosen.tiny)
        found = measure(base, Path(folder), chosen)
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(report(found, chosen))  # noqa: T201 - a script's answer


if __name__ == "__main__":
    main()
