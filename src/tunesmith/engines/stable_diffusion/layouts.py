"""Adapter layers and their names in every file layout. No torch.

Layer counts of SD 1.5: 192 in the U-Net and 72 in the text encoder, 86 more in the U-Net's convolution blocks.
Sources of the names: kohya's lora.py (kohya), diffusers' and peft's state dicts (diffusers, peft).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from tunesmith.engines.protocol import Base
from tunesmith.engines.stable_diffusion.names import live_layer, original_layer
from tunesmith.engines.stable_diffusion.shapes import Shape, tensor_shapes
from tunesmith.errors import AdapterError

ADAPTED = ("denoiser", "text_encoder")
FOLDERS = {"denoiser": "unet", "text_encoder": "text_encoder", "autoencoder": "vae"}
_KOHYA = {"denoiser": "lora_unet_", "text_encoder": "lora_te_"}
# Some writers number the only text encoder; others name its layers as transformers 5.6 runs them.
_KOHYA_ALIASES = {"lora_te1_": "lora_te_", "lora_te_encoder_": "lora_te_text_model_encoder_"}
_DIFFUSERS = {"denoiser": "unet.", "text_encoder": "text_encoder."}
_PEFT = "base_model.model."
_ATTENTION = re.compile(r"attentions\.\d+\.(proj_in|proj_out|transformer_blocks\.\d+\.(attn\d\.to_.*|ff\.net\..*))$")
_CONVOLUTION = re.compile(r"(resnets\.\d+\.(conv1|conv2|time_emb_proj|conv_shortcut)|(down|up)samplers\.0\.conv)$")
_TEXT = re.compile(r"(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])$")


def _kind(shape: Shape) -> str:
    if len(shape) == 2:
        return "linear"
    return "conv1x1" if shape[2:] == (1, 1) else "conv"


def adapter_layers(component: str, sizes: Mapping[str, Any], *, convolutions: bool) -> dict[str, str]:
    """Canonical layer -> kind, in the module's order, of the layers an adapter goes on.

    With `convolutions` the U-Net's residual, down- and upsampling blocks too, as kohya's conv_dim does.
    """
    found = {}
    for name, shape in tensor_shapes(component, sizes).items():
        layer, _, end = name.rpartition(".")
        if end != "weight" or len(shape) < 2:
            continue
        wanted = _TEXT.search(layer) if component == "text_encoder" else _ATTENTION.search(layer)
        if wanted or (convolutions and component == "denoiser" and _CONVOLUTION.search(layer)):
            found[layer] = _kind(shape)
    return found


@lru_cache(maxsize=16)
def _inverse(layout: str, architecture: str) -> dict[str, tuple[str, str]]:
    """Stem -> (component, canonical layer); `architecture` is JSON so that it can be a cache key."""
    sizes = json.loads(architecture)
    table = {}
    for component in ADAPTED:
        for layer in adapter_layers(component, sizes[component], convolutions=True):
            table[_stem(layout, component, layer)] = (component, layer)
            if layout == "kohya":  # ComfyUI also takes original names; A1111 files may carry them
                original = original_layer(component, layer, sizes[component])
                table.setdefault(_KOHYA[component] + original.replace(".", "_"), (component, layer))
    return table


def _stem(layout: str, component: str, layer: str) -> str:
    if component not in ADAPTED:
        raise AdapterError(f"stable_diffusion has no adapter on {component!r}", expected=" or ".join(ADAPTED))
    if layout == "kohya":
        return _KOHYA[component] + layer.replace(".", "_")
    if layout == "diffusers":
        return _DIFFUSERS[component] + layer
    if layout == "peft":
        return _PEFT + layer
    raise AdapterError(f"no adapter layout is called {layout!r}", expected="kohya, diffusers or peft")


class StableDiffusionLayouts:
    """The Layouts of SD 1.x."""

    folders: Mapping[str, str] = FOLDERS
    adapter_layouts: tuple[str, ...] = ("kohya", "diffusers", "peft")
    weight_layouts: tuple[str, ...] = ("single_file", "diffusers")
    prefixes: Mapping[str, tuple[str, ...]] = {"peft": (_PEFT,), "diffusers": tuple(_DIFFUSERS.values())}

    def adapter_stem(self, layout: str, component: str, canonical: str) -> str:
        """The layer's name in an adapter file, without the `.lora_down.weight` part."""
        return _stem(layout, component, canonical)

    def adapter_layers(self, layout: str, stem: str, base: Base) -> tuple[tuple[str, str], ...]:
        """The one (component, canonical layer) of a stem, or () where it names no layer of `base`."""
        for alias, plain in _KOHYA_ALIASES.items():
            if layout == "kohya" and stem.startswith(alias):
                stem = plain + stem[len(alias) :]
        if layout != "kohya":  # files written from live modules of transformers 5.6 and later lack `text_model.`
            for start in (_DIFFUSERS["text_encoder"], _PEFT):
                if stem.startswith(f"{start}encoder.layers."):
                    stem = f"{start}text_model.{stem[len(start) :]}"
        sizes = {component: base.architecture[component] for component in ADAPTED}
        found = _inverse(layout, json.dumps(sizes, sort_keys=True)).get(stem)
        return (found,) if found else ()

    def live_name(self, component: str, canonical: str) -> str:
        """The layer's name in the running module."""
        return live_layer(component, canonical)

    def metadata(self, layout: str, base: Base) -> Mapping[str, str]:
        """What readers of kohya files look for in the header."""
        if layout != "kohya":
            return {"format": "pt"}
        velocity = base.architecture["scheduler"]["prediction_type"] == "v_prediction"
        return {
            "ss_base_model_version": "sd_v1",
            "ss_v2": "False",
            "ss_network_module": "networks.lora",
            "modelspec.sai_model_spec": "1.0.1",
            "modelspec.architecture": "stable-diffusion-v1/lora",
            "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
            "modelspec.prediction_type": "v" if velocity else "epsilon",
        }
