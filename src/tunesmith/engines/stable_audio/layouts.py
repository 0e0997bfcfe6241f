"""Adapter layers and their names in every file layout. No torch.

Layer counts of Stable Audio Open 1.0: 24 blocks of 8 attention and 2 feed-forward layers, 240 in all. Sources of the
names: peft and diffusers' state dicts (peft, diffusers), ComfyUI's lora.py (comfy, kohya), LoRAW and Stable Audio 3's
own trainers (loraw, stable_audio_3), which are only read.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from tunesmith.engines.protocol import Base
from tunesmith.engines.stable_audio.names import original_layer
from tunesmith.errors import AdapterError

ADAPTED = ("denoiser",)
FOLDERS = {
    "denoiser": "transformer",
    "projection": "projection_model",
    "autoencoder": "vae",
    "text_encoder": "text_encoder",
}
_INNER = (
    "attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0",
    "attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0",
    "ff.net.0.proj", "ff.net.2",
)  # fmt: skip
_DIFFUSERS, _PEFT = "transformer.", "base_model.model."
# What stands before an original layer name in each of the layouts that use those.
_ORIGINAL = {"comfy": "diffusion_model.", "kohya": "lora_unet_", "loraw": "model/model/", "stable_audio_3": "model."}


def adapter_layers(sizes: Mapping[str, Any]) -> tuple[str, ...]:
    """Canonical layers an adapter goes on, in the module's order."""
    return tuple(f"transformer_blocks.{index}.{inner}" for index in range(sizes["num_layers"]) for inner in _INNER)


def _original_stem(layout: str, name: str) -> str:
    if layout == "kohya":
        return _ORIGINAL[layout] + name.replace(".", "_")
    if layout == "loraw":
        return _ORIGINAL[layout] + name.replace(".", "/")
    return _ORIGINAL[layout] + name


@lru_cache(maxsize=16)
def _table(layout: str, layers: int) -> Mapping[str, tuple[str, ...]]:
    """Stem -> canonical layers: several where the file's layer is fused, in the order of its rows."""
    table: dict[str, list[str]] = {}
    for layer in adapter_layers({"num_layers": layers}):
        table.setdefault(_stem(layout, layer), []).append(layer)
    return {stem: tuple(members) for stem, members in table.items()}


def _stem(layout: str, layer: str) -> str:
    if layout == "diffusers":
        return _DIFFUSERS + layer
    if layout == "peft":
        return _PEFT + layer
    if layout in _ORIGINAL:
        return _original_stem(layout, original_layer(layer).name)
    raise AdapterError(
        f"no adapter layout is called {layout!r}", expected=", ".join(StableAudioLayouts.adapter_layouts)
    )


class StableAudioLayouts:
    """The Layouts of Stable Audio Open."""

    folders: Mapping[str, str] = FOLDERS
    adapter_layouts: tuple[str, ...] = ("comfy", "kohya", "diffusers", "peft")
    weight_layouts: tuple[str, ...] = ("diffusers", "original")
    prefixes: Mapping[str, tuple[str, ...]] = {
        "peft": (_PEFT,),
        "diffusers": (_DIFFUSERS,),
        **{layout: (start,) for layout, start in _ORIGINAL.items() if layout != "kohya"},
    }

    def adapter_stem(self, layout: str, component: str, canonical: str) -> str:
        """The layer's name in an adapter file, without the `.lora_down.weight` part; fused layers share one."""
        if component not in ADAPTED:
            raise AdapterError(f"stable_audio has no adapter on {component!r}", expected=" or ".join(ADAPTED))
        return _stem(layout, canonical)

    def adapter_layers(self, layout: str, stem: str, base: Base) -> tuple[tuple[str, str], ...]:
        """The (component, canonical) layers whose outputs a file's layer stacks, in order; () for none of `base`."""
        table = _table(layout, int(base.architecture["denoiser"]["num_layers"]))
        return tuple(("denoiser", layer) for layer in table.get(stem, ()))

    def live_name(self, component: str, canonical: str) -> str:
        """The layer's name in the running module."""
        del component
        return canonical

    def metadata(self, layout: str, base: Base) -> Mapping[str, str]:
        """What readers look for in the header."""
        del layout, base
        return {"format": "pt", "modelspec.architecture": "stable-audio-open-1.0/lora"}
