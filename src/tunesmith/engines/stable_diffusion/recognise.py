"""What a weights file is when it is not SD 1.x, in plain words. No torch."""

from __future__ import annotations

from collections.abc import Mapping

Shape = tuple[int, ...]

_STARTS = (
    ("conditioner.embedders.", "an SDXL base"),
    ("model.diffusion_model.joint_blocks.", "an SD 3 base"),
    ("model.diffusion_model.double_blocks.", "a Flux base"),
    ("double_blocks.", "a Flux base"),
    ("cond_stage_model.model.", "an SD 2.x base"),
    ("control_model.", "a ControlNet"),
    ("controlnet_cond_embedding.", "a ControlNet"),
    ("base_model.model.", "a LoRA in PEFT layout, not a base"),
    ("lora_unet_", "a LoRA, not a base"),
    ("lora_te", "a LoRA, not a base"),
    ("unet.", "a LoRA or a folder's tensors in one file, not a base"),
)
_PIPELINES = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionControlNetPipeline", "")
_TEXT_INPUT = "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"


def foreign_architecture(shapes: Mapping[str, Shape]) -> str | None:
    """What a file's tensor names and shapes say it is, or None where nothing speaks against SD 1.x."""
    for start, what in _STARTS:
        if any(name.startswith(start) for name in shapes):
            return what
    for prefix in ("model.diffusion_model.", ""):
        text = shapes.get(prefix + _TEXT_INPUT)
        if text and len(text) == 2 and text[1] == 1024:
            return "an SD 2.x base"
        if prefix + "label_emb.0.0.weight" in shapes:
            return "an SDXL base"
    for name in ("model.diffusion_model.input_blocks.0.0.weight", "input_blocks.0.0.weight", "conv_in.weight"):
        first = shapes.get(name)
        if first and len(first) == 4 and first[1] == 9:
            return "an inpainting base (9 input channels)"
        if first and len(first) == 4 and first[1] == 8:
            return "an editing base (8 input channels)"
    return None


def pipeline_problem(class_name: str) -> str | None:
    """What a model_index.json's pipeline is when it is not SD 1.x text to image."""
    return None if class_name in _PIPELINES else f"a folder of {class_name}"
