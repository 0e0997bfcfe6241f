"""The forecast against real parameter counts and real memory, at tiny size; full size is measured by a long test."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tunesmith.engines.protocol import Machine
from tunesmith.engines.stable_diffusion import engine
from tunesmith.engines.stable_diffusion.estimate import PROCESS_BYTES
from tunesmith.recipe.schema import (
    BaseSection,
    DataSection,
    LengthSection,
    MethodSection,
    OptimiserSection,
    OutputSection,
    Recipe,
    ResourceSection,
)

MACHINE = Machine("cpu", 24 << 30, 2, True, {"bf16": 9e11}, {"bf16": 8e11})


def _estimate(sections: dict[str, Any] | None = None, shapes: dict[str, int] | None = None, **knobs: Any) -> Any:
    recipe = Recipe(
        "stable_diffusion",
        engine.facts.section(**{"resolution": 256, **knobs}),
        **{"base": BaseSection(architecture="sd15"), "length": LengthSection(steps=100), **(sections or {})},
    )
    return engine.estimate(engine.open(recipe.base), recipe, shapes or {"256x256": 12}, MACHINE)


def _phase(estimate: Any, name: str) -> Any:
    return next(phase for phase in estimate.phases if phase.name == name)


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        (MethodSection(rank=16), 16 * 423_936),
        (MethodSection(rank=16, components=("denoiser", "text_encoder")), 16 * 589_824),
        (MethodSection(name="full"), 859_520_964),
        (MethodSection(name="full", stage="autoencoder"), 83_653_863),
    ],
)
def test_what_trains(method: MethodSection, parameters: int) -> None:
    estimate = _estimate({"method": method})
    assert estimate.trainable_parameters == parameters
    assert estimate.total_parameters == 1_066_235_307


def test_dora_adds_a_magnitude_per_output() -> None:
    from tunesmith.engines.stable_diffusion.architecture import named_architecture
    from tunesmith.engines.stable_diffusion.layouts import adapter_layers
    from tunesmith.engines.stable_diffusion.shapes import tensor_shapes

    sizes = named_architecture("sd15")["denoiser"]
    shapes = tensor_shapes("denoiser", sizes)
    outputs = sum(shapes[f"{layer}.weight"][0] for layer in adapter_layers("denoiser", sizes, convolutions=False))
    lora, dora = (_estimate({"method": MethodSection(name=name)}).trainable_parameters for name in ("lora", "dora"))
    assert dora - lora == outputs


def test_a_step_is_twice_a_forward_pass_for_an_adapter() -> None:
    train = _phase(_estimate(), "train")
    assert train.units == 100
    assert sum(train.operations.values()) == pytest.approx(0.36e12, rel=0.05)
    assert train.dtype == "bf16"
    full = _phase(_estimate({"method": MethodSection(name="full")}), "train")
    assert sum(full.operations.values()) == pytest.approx(0.54e12, rel=0.05)


@pytest.mark.parametrize(
    ("sections", "knobs", "shapes"),
    [
        ({"length": LengthSection(steps=100, batch_items=4)}, {}, None),
        ({}, {"resolution": 512}, {"512x512": 12}),
        ({"method": MethodSection(rank=128)}, {}, None),
        ({"method": MethodSection(components=("denoiser", "text_encoder"))}, {}, None),
        ({"resources": ResourceSection(precision="fp32")}, {}, None),
        ({"optimiser": OptimiserSection(name="prodigy")}, {}, None),
        ({"optimiser": OptimiserSection(ema_decay=0.99)}, {}, None),
        ({"method": MethodSection(name="full")}, {}, None),
    ],
)
def test_more_work_needs_more_memory(sections: dict[str, Any], knobs: dict[str, Any], shapes: Any) -> None:
    assert _phase(_estimate(sections, shapes, **knobs), "train").peak_bytes > _phase(_estimate(), "train").peak_bytes


def test_checkpointing_trades_memory_for_operations() -> None:
    plain = _phase(_estimate({"length": LengthSection(steps=1, batch_items=8)}), "train")
    sections = {
        "length": LengthSection(steps=1, batch_items=8),
        "method": MethodSection(gradient_checkpointing=True),
    }
    saved = _phase(_estimate(sections), "train")
    assert saved.peak_bytes < plain.peak_bytes
    assert sum(saved.operations.values()) > sum(plain.operations.values())


def test_epochs_become_steps_batch_by_batch() -> None:
    length = LengthSection(epochs=3, batch_items=4, accumulation=2)
    estimate = _estimate({"length": length}, {"256x256": 10, "320x192": 3})
    assert _phase(estimate, "train").units == 6  # ceil(3 * (3 + 1) / 2)


def test_previews_are_counted_when_asked_for() -> None:
    output = OutputSection(preview_every_steps=25, preview_prompts=("a", "b"))
    preview = _phase(_estimate({"output": output}), "preview")
    assert preview.units == 8
    assert preview.peak_bytes > _phase(_estimate(), "train").peak_bytes
    assert "preview" not in {phase.name for phase in _estimate().phases}


@pytest.mark.parametrize(
    ("knobs", "data", "size"),
    [
        ({}, DataSection(), 12 * (8 * 4 * 1024 + 4 * 77 * 768)),
        ({"flip": True}, DataSection(), 12 * (2 * 8 * 4 * 1024 + 4 * 77 * 768)),
        ({"tokens": 225}, DataSection(), 12 * (8 * 4 * 1024 + 4 * 227 * 768)),
        ({"mask": "alpha"}, DataSection(shuffle_tags=True), 12 * (8 * 4 * 1024 + 4 * 1024)),
    ],
)
def test_the_cache_is_what_the_encoders_return(knobs: dict[str, Any], data: DataSection, size: int) -> None:
    assert _estimate({"data": data}, **knobs).cache_bytes == size


def test_a_state_holds_weights_and_moments() -> None:
    assert _estimate().state_bytes == 12 * 16 * 423_936
    assert _estimate({"output": OutputSection(dtype="fp16")}).checkpoint_bytes == 2 * 16 * 423_936


def test_precision_follows_the_machine_and_the_recipe() -> None:
    recipe = Recipe("stable_diffusion", engine.facts.section(resolution=256), base=BaseSection(architecture="sd15"))
    old = Machine("cpu", 24 << 30, 2, False, {}, {})
    base = engine.open(recipe.base)
    slow = engine.estimate(base, recipe, {"256x256": 1}, old)
    fast = engine.estimate(base, recipe, {"256x256": 1}, MACHINE)
    assert (_phase(slow, "train").dtype, _phase(fast, "train").dtype) == ("fp32", "bf16")
    assert _phase(slow, "train").peak_bytes > _phase(fast, "train").peak_bytes + 10**9
    elsewhere = engine.estimate(base, recipe, {"256x256": 1}, dataclasses.replace(MACHINE, device="cuda"))
    # Packed convolutions: 37 layers of SD 1.5 in a second layout, on a CPU only.
    packed = _phase(fast, "load").peak_bytes - _phase(elsewhere, "load").peak_bytes
    assert packed == pytest.approx(972 << 20, rel=0.001)
    assert _phase(fast, "encode").peak_bytes > PROCESS_BYTES
