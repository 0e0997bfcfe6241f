"""Name rules against the recorded names of SD 1.5, diffusers' own conversion and the running modules."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_sd
from tunesmith.engines.stable_diffusion.architecture import NAMED, ROLES, infer_sizes, named_architecture
from tunesmith.engines.stable_diffusion.load import build_module
from tunesmith.engines.stable_diffusion.names import (
    PREFIXES,
    canonical_from_diffusers,
    frozen_table,
    live_layer,
    original_table,
    stored_names,
)
from tunesmith.engines.stable_diffusion.shapes import tensor_shapes

RECORDED = json.loads(
    (Path(__file__).parents[2] / "fixtures" / "sd15_single_file_shapes.json").read_text(encoding="utf-8")
)
SD15 = named_architecture("sd15")


def test_every_recorded_name_maps_both_ways() -> None:
    found = {}
    for role in ROLES:
        for canonical, original in original_table(role, SD15[role]).items():
            assert original not in found
            found[original] = tensor_shapes(role, SD15[role])[canonical]
    assert len(found) == 1130
    assert found.keys() == RECORDED.keys()
    for name, shape in found.items():
        recorded = tuple(RECORDED[name])
        assert recorded in (shape, (*shape, 1, 1)), name  # the original autoencoder attends by 1x1 convolutions
    for role in ROLES:
        back = stored_names(role, "original", PREFIXES[role], RECORDED, SD15[role])
        assert back == original_table(role, SD15[role])


def test_the_test_base_spells_the_same_names() -> None:
    assert tiny_sd.single_file_shapes(tiny_sd.SD15) == {name: tuple(shape) for name, shape in RECORDED.items()}


@pytest.mark.parametrize("role", ROLES)
def test_the_frozen_table_is_what_the_rules_say(role: str) -> None:
    layers = {
        canonical.rpartition(".")[0]: original.rpartition(".")[0]
        for canonical, original in original_table(role, SD15[role]).items()
    }
    assert frozen_table()[role] == layers


def _convert(role: str, checkpoint: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    from diffusers.loaders import single_file_utils

    if role == "text_encoder":
        return single_file_utils.convert_ldm_clip_checkpoint(checkpoint)
    converters: dict[str, Callable[..., Any]] = {
        "denoiser": single_file_utils.convert_ldm_unet_checkpoint,
        "autoencoder": single_file_utils.convert_ldm_vae_checkpoint,
    }
    return converters[role](checkpoint, {**SD15[role], "class_embed_type": None})


@pytest.mark.parametrize("role", ROLES)
def test_the_frozen_table_is_what_diffusers_converts(role: str) -> None:
    """Each tensor carries its own number, so diffusers' conversion shows which name became which."""
    names = list(RECORDED)
    numbered = {
        name: torch.full((1,) * len(RECORDED[name]), float(index), dtype=torch.float64)
        for index, name in enumerate(names)
    }
    table = {}
    for canonical, tensor in _convert(role, numbered).items():
        original = names[int(tensor.reshape(-1)[0])]
        table[canonical.rpartition(".")[0]] = original.rpartition(".")[0]
    assert frozen_table()[role] == table


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("architecture", NAMED)
def test_shapes_are_those_of_the_running_modules(architecture: str, role: str) -> None:
    sizes = named_architecture(architecture)[role]
    with torch.device("meta"):
        module = build_module(role, sizes)
    live = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    ours = {}
    for canonical, shape in tensor_shapes(role, sizes).items():
        layer, _, end = canonical.rpartition(".")
        ours[f"{live_layer(role, layer)}.{end}"] = shape
    assert ours == live


@pytest.mark.parametrize("layout", ["original", "diffusers"])
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("architecture", NAMED)
def test_sizes_are_read_from_shapes(architecture: str, role: str, layout: str) -> None:
    sizes = named_architecture(architecture)[role]
    shapes = tensor_shapes(role, sizes)
    if layout == "original":
        prefix = PREFIXES[role]
        shapes = {name[len(prefix) :]: shapes[key] for key, name in original_table(role, sizes).items()}
    inferred = infer_sizes(role, shapes, layout)
    assert tensor_shapes(role, inferred) == tensor_shapes(role, sizes)
    unseen = {"sample_size", "scaling_factor", "norm_num_groups"}  # leave no trace in shapes
    assert {k: v for k, v in inferred.items() if k not in unseen} == {k: v for k, v in sizes.items() if k not in unseen}


@pytest.mark.parametrize(
    ("role", "name", "expected"),
    [
        ("text_encoder", "encoder.layers.0.mlp.fc1.weight", "text_model.encoder.layers.0.mlp.fc1.weight"),
        ("text_encoder", "text_model.final_layer_norm.bias", "text_model.final_layer_norm.bias"),
        ("autoencoder", "encoder.mid_block.attentions.0.query.weight", "encoder.mid_block.attentions.0.to_q.weight"),
        (
            "autoencoder",
            "decoder.mid_block.attentions.0.proj_attn.bias",
            "decoder.mid_block.attentions.0.to_out.0.bias",
        ),
        ("autoencoder", "quant_conv.weight", "quant_conv.weight"),
        ("denoiser", "conv_in.weight", "conv_in.weight"),
    ],
)
def test_older_files_are_read(role: str, name: str, expected: str) -> None:
    assert canonical_from_diffusers(role, name) == expected
