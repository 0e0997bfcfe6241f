"""Adapter layers of SD 1.5 and their names in every layout, without allocating a weight."""

from __future__ import annotations

import pytest
import torch

from tunesmith.engines.protocol import Base
from tunesmith.engines.stable_diffusion import engine
from tunesmith.engines.stable_diffusion.architecture import named_architecture
from tunesmith.engines.stable_diffusion.layouts import ADAPTED, adapter_layers
from tunesmith.engines.stable_diffusion.load import build_module
from tunesmith.engines.stable_diffusion.names import frozen_table
from tunesmith.engines.stable_diffusion.shapes import tensor_shapes
from tunesmith.errors import AdapterError
from tunesmith.recipe.schema import BaseSection

SD15 = named_architecture("sd15")


@pytest.fixture(scope="module")
def base() -> Base:
    return engine.open(BaseSection(architecture="sd15"))


@pytest.mark.parametrize(("convolutions", "denoiser", "tensors"), [(False, 192, 792), (True, 278, 1050)])
def test_counts_are_those_of_sd_scripts(convolutions: bool, denoiser: int, tensors: int) -> None:
    layers = {role: adapter_layers(role, SD15[role], convolutions=convolutions) for role in ADAPTED}
    assert {role: len(found) for role, found in layers.items()} == {"denoiser": denoiser, "text_encoder": 72}
    assert 3 * sum(map(len, layers.values())) == tensors  # down, up and alpha


def test_weights_per_rank_are_those_of_sd_scripts() -> None:
    counts = {}
    for role in ADAPTED:
        shapes = tensor_shapes(role, SD15[role])
        layers = adapter_layers(role, SD15[role], convolutions=False)
        counts[role] = sum(sum(shapes[f"{layer}.weight"][:2]) for layer in layers)
    assert counts == {"denoiser": 423_936, "text_encoder": 165_888}


@pytest.mark.parametrize("convolutions", [False, True])
def test_layers_are_those_a_walk_over_the_modules_finds(convolutions: bool) -> None:
    """kohya's rule, applied to diffusers' module tree: every Linear and convolution inside certain block classes."""
    with torch.device("meta"):
        unet = build_module("denoiser", SD15["denoiser"])
    classes = {"Transformer2DModel"} | ({"ResnetBlock2D", "Downsample2D", "Upsample2D"} if convolutions else set())
    found = set()
    for name, module in unet.named_modules():
        if type(module).__name__ in classes:
            for inner, layer in module.named_modules():
                if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
                    found.add(f"{name}.{inner}")
    assert set(adapter_layers("denoiser", SD15["denoiser"], convolutions=convolutions)) == found


@pytest.mark.parametrize("layout", ["kohya", "diffusers", "peft"])
def test_stems_invert(layout: str, base: Base) -> None:
    stems = set()
    for role in ADAPTED:
        for layer in adapter_layers(role, SD15[role], convolutions=True):
            stem = engine.layouts.adapter_stem(layout, role, layer)
            stems.add(stem)
            assert engine.layouts.adapter_layers(layout, stem, base) == ((role, layer),)
    assert len(stems) == 350


@pytest.mark.parametrize(
    ("layout", "stem", "expected"),
    [
        (
            "kohya",
            "lora_te_text_model_encoder_layers_11_self_attn_out_proj",
            ("text_encoder", "text_model.encoder.layers.11.self_attn.out_proj"),
        ),
        (
            "kohya",
            "lora_te1_text_model_encoder_layers_0_mlp_fc1",
            ("text_encoder", "text_model.encoder.layers.0.mlp.fc1"),
        ),
        ("kohya", "lora_te_encoder_layers_0_mlp_fc1", ("text_encoder", "text_model.encoder.layers.0.mlp.fc1")),
        (
            "kohya",
            "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
            ("denoiser", "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"),
        ),
        (
            "kohya",
            "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q",
            ("denoiser", "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"),
        ),
        (
            "diffusers",
            "text_encoder.encoder.layers.3.mlp.fc2",
            ("text_encoder", "text_model.encoder.layers.3.mlp.fc2"),
        ),
        ("peft", "base_model.model.encoder.layers.3.mlp.fc2", ("text_encoder", "text_model.encoder.layers.3.mlp.fc2")),
        ("kohya", "lora_unet_time_embedding_linear_1", None),
        ("kohya", "lora_te_text_model_encoder_layers_12_mlp_fc1", None),
        ("kohya", "lora_te2_text_model_encoder_layers_0_mlp_fc1", None),
    ],
)
def test_foreign_spellings(layout: str, stem: str, expected: tuple[str, str] | None, base: Base) -> None:
    assert engine.layouts.adapter_layers(layout, stem, base) == ((expected,) if expected else ())


def test_every_layer_has_an_original_name() -> None:
    """A1111 and ComfyUI map kohya's keys onto original names, so each adapted layer must have one."""
    originals = set()
    for role in ADAPTED:
        for layer in adapter_layers(role, SD15[role], convolutions=True):
            originals.add(frozen_table()[role][layer])
    assert len(originals) == 350


def test_metadata_marks_the_version(base: Base) -> None:
    metadata = engine.layouts.metadata("kohya", base)
    assert (metadata["ss_base_model_version"], metadata["ss_v2"]) == ("sd_v1", "False")
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1/lora"


@pytest.mark.parametrize(("layout", "component"), [("civitai", "denoiser"), ("kohya", "autoencoder")])
def test_unknown_layouts_and_components_are_refused(layout: str, component: str) -> None:
    with pytest.raises(AdapterError):
        engine.layouts.adapter_stem(layout, component, "conv_in")
