"""What a recipe will cost: bytes and operations per phase, from sizes alone. No torch.

The constants below were fitted to the peak memory (VmHWM) of real processes on a CPU; docs/engines.md has the figures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tunesmith.engines.protocol import Base, Estimate, Machine, PhaseCost
from tunesmith.engines.stable_diffusion.architecture import ROLES
from tunesmith.engines.stable_diffusion.choices import downscale, knobs, text_is_live, trained
from tunesmith.engines.stable_diffusion.layouts import ADAPTED, adapter_layers
from tunesmith.engines.stable_diffusion.operations import autoencoder_work, denoiser_work, text_work
from tunesmith.engines.stable_diffusion.shapes import parameter_count, tensor_shapes
from tunesmith.numeric.work import Work
from tunesmith.recipe.schema import MethodSection, Recipe

DTYPE_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
PROCESS_BYTES = 425 << 20  # Python, torch, diffusers, transformers and peft, loaded
STEPPING_BYTES = 95 << 20  # what autograd, the optimiser and the kernels keep for themselves once steps run
# Numbers kept for the backward pass per number that a layer passes on, and temporary memory in copies of the largest
# layer output: by how the stage trains.
KEPT = {"adapter": 3.1, "full": 2.0, "autoencoder": 2.9, "checkpointed": 0.6}
SCRATCH_COPIES = {"adapter": 6.0, "full": 6.0, "autoencoder": 6.0, "checkpointed": 16.0}
ENCODER_COPIES = 5.1
DECODER_COPIES = 5.1
# Frozen convolutions with at least this many weights per tap are kept in two layouts for bf16 on a CPU.
PACKED_CHANNEL_PRODUCT = 300_000
OPTIMISER_NUMBERS = {"adamw": 2.0, "adamw8bit": 0.5, "adafactor": 0.05, "lion": 1.0, "prodigy": 4.0}
PREVIEW_STEPS = 25


def estimate(base: Base, recipe: Recipe, shapes: Mapping[str, int], machine: Machine) -> Estimate:
    """Bytes and operations per phase; the largest shape sets the peaks, the mean over views the operations."""
    trainable = trainable_parameters(base, recipe)
    total = sum(parameter_count(role, base.architecture[role]) for role in ROLES)
    dtype = working_dtype(recipe, machine)
    kept = _optimiser_bytes(recipe, trainable)
    loaded = _loaded_bytes(base, recipe, dtype, machine)
    own = 4 * trainable if recipe.method.name in ("lora", "dora") else 0
    stepping = loaded + kept + STEPPING_BYTES
    phases = (
        _encode_phase(base, recipe, shapes),
        PhaseCost("load", loaded + own + 4 * _largest_tensor(base), {}, 1, dtype),
        *_train_phases(base, recipe, shapes, dtype, stepping),
        *_preview_phase(base, recipe, dtype, stepping),
        PhaseCost("save", stepping + _checkpoint_bytes(recipe, trainable), {}, 1),
    )
    return Estimate(
        phases=phases,
        total_parameters=total,
        trainable_parameters=trainable,
        state_bytes=int(trainable * 4 * (1 + OPTIMISER_NUMBERS[recipe.optimiser.name] + _averages(recipe))),
        checkpoint_bytes=_checkpoint_bytes(recipe, trainable),
        cache_bytes=sum(count * _cached_bytes(base, recipe, shape) for shape, count in shapes.items()),
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
        return sum(parameter_count(role, base.architecture[role]) for role in trained(recipe))
    return sum(_adapter_parameters(base, role, method) for role in trained(recipe) if role in ADAPTED)


def _adapter_parameters(base: Base, component: str, method: MethodSection) -> int:
    sizes = base.architecture[component]
    shapes = tensor_shapes(component, sizes)
    total = 0
    for layer, kind in adapter_layers(component, sizes, convolutions=method.conv_rank is not None).items():
        high, *rest = shapes[f"{layer}.weight"]
        rank = (method.conv_rank or method.rank) if kind == "conv" else method.rank
        total += rank * (math.prod(rest) + high) + (high if method.name == "dora" else 0)
    return total


def _averages(recipe: Recipe) -> int:
    return 1 if recipe.optimiser.ema_decay is not None else 0


def _optimiser_bytes(recipe: Recipe, trainable: int) -> int:
    """Gradients, moments and averages; an adapter's own weights too."""
    own = 1 if recipe.method.name in ("lora", "dora") else 0
    return int(trainable * 4 * (own + 1 + OPTIMISER_NUMBERS[recipe.optimiser.name] + _averages(recipe)))


def _checkpoint_bytes(recipe: Recipe, trainable: int) -> int:
    return trainable * DTYPE_BYTES[recipe.output.dtype]


def _whole(recipe: Recipe) -> bool:
    return recipe.method.name in ("full", "scratch")


def _roles(recipe: Recipe) -> tuple[str, ...]:
    if recipe.method.stage == "autoencoder":
        return ("autoencoder",)
    return ("denoiser", "text_encoder") if text_is_live(recipe) else ("denoiser",)


def _loaded_bytes(base: Base, recipe: Recipe, dtype: str, machine: Machine) -> int:
    """The process with what the training loads: weights, their bf16 copies for the arithmetic, packed layouts."""
    total = PROCESS_BYTES
    for role in _roles(recipe):
        parameters = parameter_count(role, base.architecture[role])
        if _whole(recipe) and role in trained(recipe):
            total += parameters * (4 + (DTYPE_BYTES[dtype] if dtype != "fp32" else 0))
            continue
        total += parameters * DTYPE_BYTES[dtype]
        if dtype == "bf16" and machine.device == "cpu" and machine.bf16:
            total += 2 * _packed_weights(role, base.architecture[role])
    return total


def _packed_weights(role: str, sizes: Mapping[str, Any]) -> int:
    """Weights of the convolutions that training packs: spatial ones of stride 1 above a size."""
    return sum(
        math.prod(shape)
        for name, shape in tensor_shapes(role, sizes).items()
        if len(shape) == 4
        and shape[2:] != (1, 1)
        and shape[0] * shape[1] >= PACKED_CHANNEL_PRODUCT
        and "downsamplers" not in name
    )


def _largest_tensor(base: Base) -> int:
    return max(max(map(math.prod, tensor_shapes(role, base.architecture[role]).values())) for role in ROLES)


def _latent_sides(base: Base, shape: str) -> tuple[int, int]:
    width, height = (int(side) for side in shape.split("x"))
    return height // downscale(base), width // downscale(base)


def _pass(base: Base, recipe: Recipe, shape: str) -> Work:
    """One forward pass of the training over one item."""
    width, height = (int(side) for side in shape.split("x"))
    if recipe.method.stage == "autoencoder":
        sizes = base.architecture["autoencoder"]
        return autoencoder_work(sizes, height, width, "encoder") + autoencoder_work(sizes, height, width, "decoder")
    chunks = knobs(recipe).tokens // 75
    work = denoiser_work(base.architecture["denoiser"], *_latent_sides(base, shape), 75 * chunks + 2)
    if text_is_live(recipe):
        work = work + text_work(base.architecture["text_encoder"], chunks)
    return work


def _mean(works: Mapping[str, Work], shapes: Mapping[str, int]) -> Work:
    views = sum(shapes.values()) or 1
    return Work(
        matrix=sum(works[shape].matrix * count for shape, count in shapes.items()) / views,
        convolution=sum(works[shape].convolution * count for shape, count in shapes.items()) / views,
    )


def _largest(works: Mapping[str, Work]) -> Work:
    return max(works.values(), key=lambda work: work.activations, default=Work())


def _steps(recipe: Recipe, shapes: Mapping[str, int]) -> int:
    length = recipe.length
    if length.steps is not None:
        return length.steps
    batches = sum(math.ceil(count / length.batch_items) for count in shapes.values())
    return math.ceil((length.epochs or 1) * batches / length.accumulation)


def _encode_phase(base: Base, recipe: Recipe, shapes: Mapping[str, int]) -> PhaseCost:
    """Encoders run one after the other in float32; the autoencoder is the one that takes memory."""
    views = sum(shapes.values())
    if recipe.method.stage == "autoencoder":
        return PhaseCost("encode", PROCESS_BYTES, {}, views)
    sizes = base.architecture["autoencoder"]
    works = {}
    for shape in shapes:
        width, height = (int(side) for side in shape.split("x"))
        works[shape] = autoencoder_work(sizes, height, width, "encoder")
    half = parameter_count("autoencoder", sizes)
    text = 0 if text_is_live(recipe) else parameter_count("text_encoder", base.architecture["text_encoder"])
    peak = PROCESS_BYTES + max(4 * half + int(4 * ENCODER_COPIES * _largest(works).widest), 4 * text)
    times = 2.0 if knobs(recipe).flip else 1.0
    work = _mean(works, shapes)
    if text:
        work = work + text_work(base.architecture["text_encoder"], knobs(recipe).tokens // 75)
    return PhaseCost("encode", peak, work.as_operations(times), views)


def _how(recipe: Recipe) -> str:
    if recipe.method.gradient_checkpointing:
        return "checkpointed"
    if recipe.method.stage == "autoencoder":
        return "autoencoder"
    return "full" if _whole(recipe) else "adapter"


def _train_phases(
    base: Base, recipe: Recipe, shapes: Mapping[str, int], dtype: str, resident: int
) -> tuple[PhaseCost, PhaseCost]:
    length, method, how = recipe.length, recipe.method, _how(recipe)
    works = {shape: _pass(base, recipe, shape) for shape in shapes}
    element = DTYPE_BYTES[dtype]
    largest = _largest(works)
    held = int(length.batch_items * element * (KEPT[how] * largest.activations + SCRATCH_COPIES[how] * largest.widest))
    mean = _mean(works, shapes)
    # Backward: gradients of inputs, and of weights where they train; recomputing adds a forward pass.
    passes = (3.0 if _whole(recipe) else 2.0) + (1.0 if method.gradient_checkpointing else 0.0)
    steps = _steps(recipe, shapes)
    train = PhaseCost(
        "train",
        resident + held,
        mean.as_operations(passes * length.batch_items * length.accumulation),
        steps,
        dtype,
    )
    scratch = int(length.batch_items * element * SCRATCH_COPIES["adapter"] * largest.widest)
    views = math.ceil(sum(shapes.values()) * recipe.data.holdout_fraction)
    every = recipe.output.validate_every_steps or max(1, steps // 10)
    validate = PhaseCost(
        "validate", resident + scratch, mean.as_operations(1.0), views * math.ceil(steps / every), dtype
    )
    return train, validate


def _preview_phase(base: Base, recipe: Recipe, dtype: str, resident: int) -> tuple[PhaseCost, ...]:
    output = recipe.output
    if output.preview_every_steps is None or not output.preview_prompts or recipe.method.stage == "autoencoder":
        return ()
    side = int(base.architecture["denoiser"]["sample_size"])
    denoise = denoiser_work(base.architecture["denoiser"], side, side)
    decode = autoencoder_work(
        base.architecture["autoencoder"], side * downscale(base), side * downscale(base), "decoder"
    )
    extra = 4 * parameter_count("autoencoder", base.architecture["autoencoder"])
    if not text_is_live(recipe):
        extra += DTYPE_BYTES[dtype] * parameter_count("text_encoder", base.architecture["text_encoder"])
    peak = resident + extra + int(4 * DECODER_COPIES * decode.widest)
    work = Work(2 * PREVIEW_STEPS * denoise.matrix, 2 * PREVIEW_STEPS * denoise.convolution) + decode
    times = (recipe.length.steps or 1) // output.preview_every_steps * len(output.preview_prompts)
    return (PhaseCost("preview", peak, work.as_operations(1.0), times, dtype),)


def _cached_bytes(base: Base, recipe: Recipe, shape: str) -> int:
    """Bytes that one item takes in the cache."""
    width, height = (int(side) for side in shape.split("x"))
    if recipe.method.stage == "autoencoder":
        return 3 * width * height
    places = width * height // downscale(base) ** 2
    latents = 8 * places * int(base.architecture["autoencoder"]["latent_channels"]) * (2 if knobs(recipe).flip else 1)
    text = 0
    if not text_is_live(recipe):
        text = 4 * (knobs(recipe).tokens + 2) * int(base.architecture["text_encoder"]["hidden_size"])
    return latents + text + (4 * places if knobs(recipe).mask != "none" else 0)
