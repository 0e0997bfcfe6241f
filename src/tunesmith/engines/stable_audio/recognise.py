"""What a weights file or folder is when it is not Stable Audio Open, in plain words. No torch."""

from __future__ import annotations

from collections.abc import Mapping

Shape = tuple[int, ...]

_STARTS = (
    ("lora_unet_", "a LoRA, not a base"),
    ("base_model.model.", "a LoRA in PEFT layout, not a base"),
    ("transformer.transformer_blocks.0.attn1.to_q.lora", "a LoRA, not a base"),
    ("model.diffusion_model.input_blocks.", "a Stable Diffusion base"),
    ("cond_stage_model.", "a Stable Diffusion base"),
    ("conditioner.embedders.", "an SDXL base"),
    ("double_blocks.", "a Flux base"),
)
_PIPELINES = ("StableAudioPipeline", "")


def foreign_architecture(shapes: Mapping[str, Shape]) -> str | None:
    """What a file's tensor names say it is, or None where nothing speaks against Stable Audio Open."""
    for start, what in _STARTS:
        if any(name.startswith(start) for name in shapes):
            return what
    return None


def pipeline_problem(class_name: str) -> str | None:
    """What a model_index.json's pipeline is when it is not Stable Audio Open."""
    return None if class_name in _PIPELINES else f"a folder of {class_name}"
