"""The main job at full size, by the commands a user types: plan, train, export, merge, generate; then diffusers.

The base has random weights of SD 1.5's exact layout; twelve photographs at 256 px; what is checked is what random
weights can show: memory, seconds, names, files, equality.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tiny_sd import SD15, diffusers_pipeline, single_file_shapes, write_configs
from tunesmith.weights.files import edit_metadata
from tunesmith.weights.hashes import tensor_hash

pytestmark = pytest.mark.long

STEPS = 20
MEMORY_TOLERANCE = 0.15
PROBE_TOLERANCE = 0.30
OUTPUT_TOLERANCE = 1e-5
IDS = torch.tensor([[49406, 320, 1125, 539, 320, 2368, *[49407] * 71]])


def tunesmith(home: Path, *words: object) -> Any:
    """The command's JSON answer; fails with what it printed."""
    command = [sys.executable, "-m", "tunesmith", "--home", str(home), *map(str, words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-1000:]
    return json.loads(done.stdout)


@dataclass(frozen=True)
class Run:
    """A finished full-size job."""

    home: Path
    plan: Any
    probe: Any
    result: Any
    events: list[dict[str, Any]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, full_size_base: Path, photographs: Path) -> Run:
    """Plan, probe, then train both components at rank 16, batch 1, 256 px."""
    home = tmp_path_factory.mktemp("full_size_home")
    recipe = home / "recipe.yaml"
    recipe.write_text(
        f"engine: {{name: stable_diffusion, resolution: 256}}\n"
        f"base: {{path: {full_size_base}}}\ndata: {{paths: [{photographs}], holdout_fraction: 0.1}}\n"
        f"method: {{name: lora, rank: 16, components: [denoiser, text_encoder]}}\n"
        f"length: {{steps: {STEPS}}}\noutput: {{name: photos, validate_every_steps: {STEPS}}}\n"
    )
    tunesmith(home, "doctor")
    plan = tunesmith(home, "plan", recipe)
    probe = tunesmith(home, "plan", recipe, "--probe")
    result = tunesmith(home, "train", recipe)
    lines = next((home / "jobs").glob("*/events.jsonl")).read_text().splitlines()
    return Run(home, plan, probe, result, [json.loads(line) for line in lines])


def test_the_plan_knew_the_memory_of_every_phase(run: Run) -> None:
    planned = {phase["name"]: phase["peak_bytes"] for phase in run.plan["phases"]}
    measured = {event["name"]: event["peak_bytes"] for event in run.events if event["kind"] == "phase_ended"}
    rows = {name: (planned[name] / 1e9, measured[name] / 1e9) for name in planned if name in measured}
    print(json.dumps({"memory_gb_planned_measured": rows}))
    assert {"encode", "train"} <= set(rows)
    for name, (expected, got) in rows.items():
        assert abs(expected / got - 1) <= MEMORY_TOLERANCE, (name, rows)
    assert abs(max(planned.values()) / max(measured.values()) - 1) <= MEMORY_TOLERANCE, rows


def test_the_probe_knew_the_seconds_of_a_step(run: Run) -> None:
    seconds = sorted(event["seconds"] for event in run.events if event["kind"] == "step")
    median = seconds[len(seconds) // 2]
    probed = run.probe["probe"]["seconds_per_step"]
    print(json.dumps({"seconds_per_step": median, "probed": probed}))
    assert abs(probed / median - 1) <= PROBE_TOLERANCE, (probed, median)


@pytest.fixture(scope="module")
def exported(run: Run) -> Path:
    """The adapter as a kohya file."""
    path = run.home / "photos.safetensors"
    tunesmith(run.home, "checkpoints", "export", "photos", "--layout", "kohya", "--dtype", "fp32", "--out", path)
    return path


def original_stems() -> set[str]:
    """Every layer of the original layout as the web UI spells it: dots and the model's prefix become underscores."""
    return {name.rpartition(".")[0] for name in single_file_shapes(SD15)}


def test_the_exported_file_has_every_layer_under_a_known_name(exported: Path) -> None:
    with safe_open(exported, "pt") as file:
        keys = list(file.keys())
    modules = {key.split(".")[0] for key in keys}
    assert (len(modules), len(keys)) == (264, 792)
    assert sum(name.startswith("lora_unet_") for name in modules) == 192
    text = re.compile(r"lora_te_text_model_encoder_layers_\d+_(self_attn_[kqv]_proj|self_attn_out_proj|mlp_fc[12])")
    assert sum(bool(text.fullmatch(name)) for name in modules) == 72


def test_a_metadata_edit_leaves_the_tensor_hash(exported: Path) -> None:
    before = tensor_hash(exported)
    edit_metadata(exported, {"ss_training_comment": "edited"})
    assert tensor_hash(exported) == before


@torch.no_grad()
def outputs(pipe: Any) -> torch.Tensor:
    """The noise prediction on fixed input, text encoder included."""
    states = pipe.text_encoder(IDS).last_hidden_state
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    return pipe.unet(latents, torch.tensor([400]), encoder_hidden_states=states).sample


def merge_by_hand(pipe: Any, file: Path) -> None:
    """Add alpha/rank * up @ down to the live weights, found by kohya's rule: dots become underscores."""
    tensors = load_file(file)
    unet = {f"lora_unet_{name.replace('.', '_')}": module for name, module in pipe.unet.named_modules()}
    text = {
        f"lora_te_text_model_{name.replace('.', '_')}": module for name, module in pipe.text_encoder.named_modules()
    }
    layers = {**unet, **text}
    for stem in {key.split(".")[0] for key in tensors}:
        down, up = tensors[f"{stem}.lora_down.weight"].float(), tensors[f"{stem}.lora_up.weight"].float()
        change = up.flatten(1) @ down.flatten(1) * (float(tensors[f"{stem}.alpha"]) / down.shape[0])
        weight = layers[stem].weight.data
        weight += change.reshape(weight.shape)


def test_diffusers_loads_it_twice_as_merged_by_hand(exported: Path, full_size_base: Path, tmp_path: Path) -> None:
    configs = write_configs(tmp_path / "configs", SD15)
    pipe = diffusers_pipeline(full_size_base, configs, SD15)
    plain = outputs(pipe)
    loaded = []
    for _ in range(2):
        pipe.load_lora_weights(str(exported.parent), weight_name=exported.name)
        loaded.append(outputs(pipe))
        pipe.unload_lora_weights()
    assert torch.equal(outputs(pipe), plain)
    merge_by_hand(pipe, exported)
    reference = outputs(pipe)
    assert (reference - plain).abs().max() > 10 * OUTPUT_TOLERANCE, "the adapter does nothing"
    for got in loaded:
        difference = float((got - reference).abs().max())
        print(json.dumps({"diffusers_against_hand_merge": difference}))
        assert difference <= OUTPUT_TOLERANCE


def test_the_merged_checkpoint_is_base_plus_adapter(run: Run, exported: Path, full_size_base: Path) -> None:
    from tunesmith.engines.stable_diffusion.names import original_name

    merged = run.home / "merged.safetensors"
    tunesmith(run.home, "checkpoints", "merge", "photos", "--base", full_size_base, "--out", merged, "--dtype", "fp32")
    adapter = load_file(exported)
    from tunesmith.engines.stable_diffusion import engine
    from tunesmith.recipe.schema import BaseSection

    base = engine.open(BaseSection(path=str(full_size_base)))
    changed = {}
    for stem in {key.split(".")[0] for key in adapter}:
        (layer,) = engine.layouts.adapter_layers("kohya", stem, base)
        changed[original_name(layer[0], f"{layer[1]}.weight", base.architecture[layer[0]])] = stem
    assert len(changed) == 264
    with safe_open(full_size_base, "pt") as before, safe_open(merged, "pt") as after:
        assert set(after.keys()) <= set(before.keys()) | set(changed)
        for name in after.keys():  # noqa: SIM118 - the library's object is no mapping
            weight = before.get_tensor(name).float()
            if name in changed:
                stem = changed[name]
                down, up = adapter[f"{stem}.lora_down.weight"], adapter[f"{stem}.lora_up.weight"]
                change = up.flatten(1) @ down.flatten(1) * (float(adapter[f"{stem}.alpha"]) / down.shape[0])
                weight = weight + change.reshape(weight.shape)
                torch.testing.assert_close(after.get_tensor(name).float(), weight, rtol=1e-6, atol=1e-7)
            else:
                assert torch.equal(after.get_tensor(name).float(), weight), name
    merged.unlink()


def test_one_picture_is_generated(run: Run, full_size_base: Path, tmp_path: Path) -> None:
    from PIL import Image

    out = tmp_path / "picture.png"
    tunesmith(
        run.home, "generate", "--base", full_size_base, "--checkpoint", "photos", "--prompt", "a cat, myphoto",
        "--steps", 2, "--width", 256, "--height", 256, "--seed", 1, "--out", out,
    )  # fmt: skip
    with Image.open(out) as picture:
        assert picture.size == (256, 256)
        assert "a cat, myphoto" in picture.info["parameters"]
