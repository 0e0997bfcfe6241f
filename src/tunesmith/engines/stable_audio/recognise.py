"""What a weights file or folder is when it is not Stable Audio Open, in plain words. No torch."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

Shape = tuple[int, ...]

STABLE_AUDIO_3 = "a Stable Audio 3 base, whose denoiser, autoencoder and text encoder are other ones"
_STARTS = (
    ("lora_unet_", "a LoRA, not a base"),
    ("base_model.model.", "a LoRA in PEFT layout, not a base"),
    ("transformer.transformer_blocks.0.attn1.to_q.lora", "a LoRA, not a base"),
    ("model.diffusion_model.input_blocks.", "a Stable Diffusion base"),
    ("cond_stage_model.", "a Stable Diffusion base"),
    ("conditioner.embedders.", "an SDXL base"),
    ("double_blocks.", "a Flux base"),
    ("pretransform.model.bottleneck.", STABLE_AUDIO_3),
    ("conditioner.conditioners.prompt.padding_embedding", STABLE_AUDIO_3),
)
_PIPELINES = ("StableAudioPipeline", "")


def foreign_architecture(shapes: Mapping[str, Shape]) -> str | None:
    """What a file's tensor names say it is, or None where nothing speaks against Stable Audio Open."""
    for start, what in _STARTS:
        if any(name.startswith(start) for name in shapes):
            return what
    return None


def foreign_folder(class_name: str, inside: Collection[str]) -> str | None:
    """What a diffusers folder is, by its model_index.json's class and what lies inside, or None as above."""
    if class_name.startswith("StableAudio3") or "duration_embedder" in inside:
        return STABLE_AUDIO_3
    return None if class_name in _PIPELINES else f"a folder of {class_name}"


def foreign_config(document: Any) -> str | None:
    """What a model_config.json belongs to, or None as above."""
    return STABLE_AUDIO_3 if "t5gemma" in json.dumps(document) else None  # its text encoder, which no other has
