"""What a recipe will cost: bytes and operations per phase, from sizes alone. No torch.

The constants of the process are those measured with pictures; those of this architecture's activations are estimates
that no run at full size has confirmed yet.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from tunesmith.engines.protocol import Base, Estimate, Machine, PhaseCost
from tunesmith.engines.stable_audio.architecture import ROLES
from tunesmith.engines.stable_audio.choices import (
    TILE_SECONDS,
    frame_seconds,
    knobs,
    text_is_live,
    trained,
    window_frames,
)
from tunesmith.engines.stable_audio.layouts import ADAPTED, adapter_layers
from tunesmith.engines.stable_audio.open import TOKENIZER
from tunesmith.engines.stable_audio.operations import autoencoder_work, denoiser_work, text_work
from tunesmith.engines.stable_audio.shapes import parameter_count, tensor_shapes
from tunesmith.numeric.work import Work
from tunesmith.recipe.schema import Recipe

DTYPE_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
PROCESS_BYTES = 425 << 20  # Python, torch, diffusers, transformers and peft, loaded
STEPPING_BYTES = 95 << 20  # what autograd, the optimiser and the kernels keep for themselves once steps run
# Numbers kept for the backward pass per number that a layer passes on, and temporary memory in copies of the largest
# layer output: by how the stage trains.
KEPT = {"adapter": 2.2, "full": 2.0, "autoencoder": 4.0, "checkpointed": 0.3}
SCRATCH_COPIES = {"adapter": 6.0, "full": 6.0, "autoencoder": 6.0, "checkpointed": 12.0}
ENCODER_COPIES = 5.0
DECODER_COPIES = 5.0
OPTIMISER_NUMBERS = {"adamw": 2.0, "adamw8bit": 0.5, "adafactor": 0.05, "lion": 1.0, "prodigy": 4.0}
PREVIEW_STEPS = 100


def estimate(base: Base, recipe: Recipe, shapes: Mapping[str, int], machine: Machine) -> Estimate:
    """Bytes and operations per phase; every view has the window's length."""
    trainable = trainable_parameters(base, recipe)
    dtype = working_dtype(recipe, machine)
    loaded = _loaded_bytes(base, recipe, dtype)
    own = 4 * trainable if recipe.method.name in ("lora", "dora") else 0
    stepping = loaded + _optimiser_bytes(recipe, trainable) + STEPPING_BYTES
    views = sum(shapes.values())
    checkpoint = trainable * DTYPE_BYTES[recipe.output.dtype]
    phases = (
        _encode_phase(base, recipe, views),
        PhaseCost("load", loaded + own + 4 * _largest_tensor(base), {}, 1, dtype),
        *_train_phases(base, recipe, views, dtype, stepping),
        *_preview_phase(base, recipe, dtype, stepping),
        PhaseCost("save", stepping + checkpoint, {}, 1),
    )
    averages = 1 if recipe.optimiser.ema_decay is not None else 0
    return Estimate(
        phases=phases,
        total_parameters=sum(parameter_count(role, base.architecture[role]) for role in ROLES),
        trainable_parameters=trainable,
        state_bytes=int(trainable * 4 * (1 + OPTIMISER_NUMBERS[recipe.optimiser.name] + averages)),
        checkpoint_bytes=checkpoint,
        cache_bytes=views * _cached_bytes(base, recipe),
    )


def working_dtype(recipe: Recipe, machine: Machine) -> str:
    """The precision of the frozen base: bf16 where the machine has it, unless the recipe says."""
    if recipe.resources.precision != "auto":
        return recipe.resources.precision
    return "bf16" if machine.bf16 else "fp32"


def trainable_parameters(base: Base, recipe: Recipe) -> int:
    """How many numbers train."""
    method = recipe.method
    if method.name in ("full", "scratch"):
        total = sum(parameter_count(role, base.architecture[role]) for role in trained(recipe))
        # The frequencies of the time features are fixed.
        fixed = base.architecture["denoiser"]["time_proj_dim"] // 2 if "denoiser" in trained(recipe) else 0
        return total - int(fixed)
    total = 0
    for role in set(trained(recipe)) & set(ADAPTED):
        shapes = tensor_shapes(role, base.architecture[role])
        for layer in adapter_layers(base.architecture[role]):
            high, low = shapes[f"{layer}.weight"]
            total += method.rank * (low + high) + (high if method.name == "dora" else 0)
    return total


def _optimiser_bytes(recipe: Recipe, trainable: int) -> int:
    """Gradients, moments and averages; an adapter's own weights too."""
    own = 1 if recipe.method.name in ("lora", "dora") else 0
    averages = 1 if recipe.optimiser.ema_decay is not None else 0
    return int(trainable * 4 * (own + 1 + OPTIMISER_NUMBERS[recipe.optimiser.name] + averages))


def _whole(recipe: Recipe) -> bool:
    return recipe.method.name in ("full", "scratch")


def _loaded_bytes(base: Base, recipe: Recipe, dtype: str) -> int:
    """The process with what the training loads: weights, and bf16 copies of those that train for the arithmetic."""
    roles = ["autoencoder"]
    if recipe.method.stage == "denoiser":
        roles = ["denoiser", "projection", *(["text_encoder"] if text_is_live(recipe) else [])]
    total = PROCESS_BYTES
    for role in roles:
        parameters = parameter_count(role, base.architecture[role])
        if _whole(recipe) and role in trained(recipe):
            total += parameters * (4 + (DTYPE_BYTES[dtype] if dtype != "fp32" else 0))
        else:
            total += parameters * DTYPE_BYTES[dtype]
    return total


def _largest_tensor(base: Base) -> int:
    return max(max(map(math.prod, tensor_shapes(role, base.architecture[role]).values())) for role in ROLES)


def _tokens(base: Base) -> int:
    return int(base.architecture[TOKENIZER]["max_tokens"])


def _pass(base: Base, recipe: Recipe) -> Work:
    """One forward pass of the training over one item."""
    frames = window_frames(base, knobs(recipe).window_seconds)
    if recipe.method.stage == "autoencoder":
        sizes = base.architecture["autoencoder"]
        return autoencoder_work(sizes, frames, "encoder") + autoencoder_work(sizes, frames, "decoder")
    work = denoiser_work(base.architecture["denoiser"], frames, _tokens(base))
    return work + text_work(base.architecture["text_encoder"], _tokens(base)) if text_is_live(recipe) else work


def _encode_phase(base: Base, recipe: Recipe, views: int) -> PhaseCost:
    """Encoders run one after the other in float32; long sounds go through in tiles."""
    if recipe.method.stage == "autoencoder":
        return PhaseCost("encode", PROCESS_BYTES, {}, views)
    sizes = base.architecture["autoencoder"]
    frames = window_frames(base, knobs(recipe).window_seconds)
    tile = min(frames, math.ceil(TILE_SECONDS / frame_seconds(base)))
    widest = autoencoder_work(sizes, tile, "encoder").widest
    text = 0 if text_is_live(recipe) else parameter_count("text_encoder", base.architecture["text_encoder"])
    own = 4 * parameter_count("autoencoder", sizes) + int(4 * ENCODER_COPIES * widest)
    work = autoencoder_work(sizes, frames, "encoder")
    times = 2.0 if knobs(recipe).polarity_flip else 1.0
    if text:
        work = work + text_work(base.architecture["text_encoder"], _tokens(base))
    return PhaseCost("encode", PROCESS_BYTES + max(own, 4 * text), work.as_operations(times), views)


def _how(recipe: Recipe) -> str:
    if recipe.method.stage == "autoencoder":
        return "autoencoder"
    if recipe.method.gradient_checkpointing:
        return "checkpointed"
    return "full" if _whole(recipe) else "adapter"


def _steps(recipe: Recipe, views: int) -> int:
    length = recipe.length
    if length.steps is not None:
        return length.steps
    return math.ceil((length.epochs or 1) * math.ceil(views / length.batch_items) / length.accumulation)


def _train_phases(base: Base, recipe: Recipe, views: int, dtype: str, resident: int) -> tuple[PhaseCost, PhaseCost]:
    length, how, work = recipe.length, _how(recipe), _pass(base, recipe)
    element = DTYPE_BYTES[dtype]
    held = int(length.batch_items * element * (KEPT[how] * work.activations + SCRATCH_COPIES[how] * work.widest))
    # Backward: gradients of inputs, and of weights where they train; recomputing adds a forward pass.
    passes = (3.0 if _whole(recipe) else 2.0) + (1.0 if recipe.method.gradient_checkpointing else 0.0)
    steps = _steps(recipe, views)
    operations = work.as_operations(passes * length.batch_items * length.accumulation)
    scratch = int(length.batch_items * element * SCRATCH_COPIES["adapter"] * work.widest)
    held_out = math.ceil(views * recipe.data.holdout_fraction)
    every = recipe.output.validate_every_steps or max(1, steps // 10)
    rounds = held_out * math.ceil(steps / every)
    return (
        PhaseCost("train", resident + held, operations, steps, dtype),
        PhaseCost("validate", resident + scratch, work.as_operations(1.0), rounds, dtype),
    )


def _preview_phase(base: Base, recipe: Recipe, dtype: str, resident: int) -> tuple[PhaseCost, ...]:
    output = recipe.output
    if output.preview_every_steps is None or not output.preview_prompts or recipe.method.stage == "autoencoder":
        return ()
    frames = window_frames(base, knobs(recipe).window_seconds)
    once = denoiser_work(base.architecture["denoiser"], frames, _tokens(base))
    decode = autoencoder_work(base.architecture["autoencoder"], frames, "decoder")
    extra = 4 * parameter_count("autoencoder", base.architecture["autoencoder"])
    if not text_is_live(recipe):
        extra += DTYPE_BYTES[dtype] * parameter_count("text_encoder", base.architecture["text_encoder"])
    peak = resident + extra + int(4 * DECODER_COPIES * decode.widest)
    work = Work(2 * PREVIEW_STEPS * once.matrix, 2 * PREVIEW_STEPS * once.convolution) + decode
    times = (recipe.length.steps or 1) // output.preview_every_steps * len(output.preview_prompts)
    return (PhaseCost("preview", peak, work.as_operations(1.0), times, dtype),)


def _cached_bytes(base: Base, recipe: Recipe) -> int:
    """Bytes that one item of the window's length takes in the cache."""
    sizes = base.architecture["autoencoder"]
    frames = window_frames(base, knobs(recipe).window_seconds)
    if recipe.method.stage == "autoencoder":
        return int(2 * sizes["audio_channels"] * (knobs(recipe).window_seconds or 0.0) * sizes["sampling_rate"])
    latents = 4 * frames * (2 * int(sizes["decoder_input_channels"]) + 1) * (2 if knobs(recipe).polarity_flip else 1)
    text = 0 if text_is_live(recipe) else 4 * _tokens(base) * int(base.architecture["text_encoder"]["d_model"])
    return latents + text
