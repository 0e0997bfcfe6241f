"""A tiny Stable Diffusion 1.x for tests: true layout, two blocks, few channels, weights filled by formula.

    path = write_single_file(tmp_path / "tiny.safetensors")     # as CompVis and A1111 keep it
    path = write_checkpoint(tmp_path / "tiny.ckpt")              # the same, pickled under `state_dict`
    folder = write_folder(tmp_path / "tiny")                     # as diffusers keeps it (written by diffusers itself)

The names and shapes are spelled out here from the original layout, on purpose without our own tables, so that they
can be checked against them. Latents are half the picture's side; pictures of 32 x 32 are enough.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from safetensors.torch import save_file

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Sizes:
    """Widths of the three parts. `attention` says which U-Net blocks attend to the text."""

    channels: tuple[int, ...] = (32, 64)
    attention: tuple[bool, ...] = (True, False)
    layers: int = 1
    text_width: int = 32
    text_layers: int = 2
    text_heads: int = 1
    vae_channels: tuple[int, ...] = (32, 64)
    vae_layers: int = 1
    vocabulary: int = 49408
    sample_size: int = 16


TINY = Sizes()
SD15 = Sizes(
    channels=(320, 640, 1280, 1280),
    attention=(True, True, True, False),
    layers=2,
    text_width=768,
    text_layers=12,
    text_heads=12,
    vae_channels=(128, 256, 512, 512),
    vae_layers=2,
    sample_size=64,
)


def _pair(name: str, *shape: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", (shape[0],)


def _unet_resnet(name: str, low: int, high: int, time: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _pair(f"{name}.in_layers.0", low)
    yield from _pair(f"{name}.in_layers.2", high, low, 3, 3)
    yield from _pair(f"{name}.emb_layers.1", high, time)
    yield from _pair(f"{name}.out_layers.0", high)
    yield from _pair(f"{name}.out_layers.3", high, high, 3, 3)
    if low != high:
        yield from _pair(f"{name}.skip_connection", high, low, 1, 1)


def _unet_attention(name: str, width: int, text: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _pair(f"{name}.norm", width)
    yield from _pair(f"{name}.proj_in", width, width, 1, 1)
    block = f"{name}.transformer_blocks.0"
    for attention, source in (("attn1", width), ("attn2", text)):
        yield f"{block}.{attention}.to_q.weight", (width, width)
        yield f"{block}.{attention}.to_k.weight", (width, source)
        yield f"{block}.{attention}.to_v.weight", (width, source)
        yield from _pair(f"{block}.{attention}.to_out.0", width, width)
    yield from _pair(f"{block}.ff.net.0.proj", width * 8, width)
    yield from _pair(f"{block}.ff.net.2", width, width * 4)
    for norm in ("norm1", "norm2", "norm3"):
        yield from _pair(f"{block}.{norm}", width)
    yield from _pair(f"{name}.proj_out", width, width, 1, 1)


def _unet(sizes: Sizes) -> Iterator[tuple[str, tuple[int, ...]]]:
    root, first, time = "model.diffusion_model", sizes.channels[0], sizes.channels[0] * 4
    yield from _pair(f"{root}.time_embed.0", time, first)
    yield from _pair(f"{root}.time_embed.2", time, time)
    yield from _pair(f"{root}.input_blocks.0.0", first, 4, 3, 3)
    skips, width, index = [first], first, 0
    for level, channels in enumerate(sizes.channels):
        for _ in range(sizes.layers):
            index += 1
            yield from _unet_resnet(f"{root}.input_blocks.{index}.0", width, channels, time)
            if sizes.attention[level]:
                yield from _unet_attention(f"{root}.input_blocks.{index}.1", channels, sizes.text_width)
            width = channels
            skips.append(width)
        if level < len(sizes.channels) - 1:
            index += 1
            yield from _pair(f"{root}.input_blocks.{index}.0.op", width, width, 3, 3)
            skips.append(width)
    yield from _unet_resnet(f"{root}.middle_block.0", width, width, time)
    yield from _unet_attention(f"{root}.middle_block.1", width, sizes.text_width)
    yield from _unet_resnet(f"{root}.middle_block.2", width, width, time)
    index = 0
    for level in reversed(range(len(sizes.channels))):
        for layer in range(sizes.layers + 1):
            channels = sizes.channels[level]
            yield from _unet_resnet(f"{root}.output_blocks.{index}.0", width + skips.pop(), channels, time)
            width = channels
            if sizes.attention[level]:
                yield from _unet_attention(f"{root}.output_blocks.{index}.1", width, sizes.text_width)
            if level and layer == sizes.layers:
                place = 2 if sizes.attention[level] else 1
                yield from _pair(f"{root}.output_blocks.{index}.{place}.conv", width, width, 3, 3)
            index += 1
    yield from _pair(f"{root}.out.0", width)
    yield from _pair(f"{root}.out.2", 4, width, 3, 3)


def _vae_resnet(name: str, low: int, high: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _pair(f"{name}.norm1", low)
    yield from _pair(f"{name}.conv1", high, low, 3, 3)
    yield from _pair(f"{name}.norm2", high)
    yield from _pair(f"{name}.conv2", high, high, 3, 3)
    if low != high:
        yield from _pair(f"{name}.nin_shortcut", high, low, 1, 1)


def _vae_middle(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _vae_resnet(f"{name}.block_1", width, width)
    yield from _pair(f"{name}.attn_1.norm", width)
    for part in ("q", "k", "v", "proj_out"):
        yield from _pair(f"{name}.attn_1.{part}", width, width, 1, 1)
    yield from _vae_resnet(f"{name}.block_2", width, width)


def _vae(sizes: Sizes) -> Iterator[tuple[str, tuple[int, ...]]]:
    root, channels = "first_stage_model", sizes.vae_channels
    yield from _pair(f"{root}.encoder.conv_in", channels[0], 3, 3, 3)
    width = channels[0]
    for level, high in enumerate(channels):
        for layer in range(sizes.vae_layers):
            yield from _vae_resnet(f"{root}.encoder.down.{level}.block.{layer}", width, high)
            width = high
        if level < len(channels) - 1:
            yield from _pair(f"{root}.encoder.down.{level}.downsample.conv", width, width, 3, 3)
    yield from _vae_middle(f"{root}.encoder.mid", width)
    yield from _pair(f"{root}.encoder.norm_out", width)
    yield from _pair(f"{root}.encoder.conv_out", 8, width, 3, 3)
    yield from _pair(f"{root}.quant_conv", 8, 8, 1, 1)
    yield from _pair(f"{root}.post_quant_conv", 4, 4, 1, 1)
    yield from _pair(f"{root}.decoder.conv_in", width, 4, 3, 3)
    yield from _vae_middle(f"{root}.decoder.mid", width)
    for level in reversed(range(len(channels))):
        for layer in range(sizes.vae_layers + 1):
            yield from _vae_resnet(f"{root}.decoder.up.{level}.block.{layer}", width, channels[level])
            width = channels[level]
        if level:
            yield from _pair(f"{root}.decoder.up.{level}.upsample.conv", width, width, 3, 3)
    yield from _pair(f"{root}.decoder.norm_out", width)
    yield from _pair(f"{root}.decoder.conv_out", 3, width, 3, 3)


def _text(sizes: Sizes) -> Iterator[tuple[str, tuple[int, ...]]]:
    root, width = "cond_stage_model.transformer.text_model", sizes.text_width
    yield f"{root}.embeddings.token_embedding.weight", (sizes.vocabulary, width)
    yield f"{root}.embeddings.position_embedding.weight", (77, width)
    for layer in range(sizes.text_layers):
        name = f"{root}.encoder.layers.{layer}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _pair(f"{name}.self_attn.{part}", width, width)
        yield from _pair(f"{name}.layer_norm1", width)
        yield from _pair(f"{name}.layer_norm2", width)
        yield from _pair(f"{name}.mlp.fc1", width * 4, width)
        yield from _pair(f"{name}.mlp.fc2", width, width * 4)
    yield from _pair(f"{root}.final_layer_norm", width)


def single_file_shapes(sizes: Sizes = TINY) -> Shapes:
    """Every tensor of a single file in the original layout."""
    return dict([*_unet(sizes), *_vae(sizes), *_text(sizes)])


def fill(name: str, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """The formula of the recorded runs: biases 0, other vectors 1, matrices normal with a key from the name.

    Another `seed` than 0 gives other matrices.
    """
    if name.endswith(".bias"):
        return torch.zeros(shape)
    if len(shape) == 1:
        return torch.ones(shape)
    random = numpy.random.Generator(numpy.random.Philox(key=zlib.crc32(name.encode()) + (seed << 32)))
    values = torch.from_numpy(random.standard_normal(int(numpy.prod(shape)), dtype=numpy.float32)).reshape(shape)
    embedding = "embedding" in name and "time" not in name
    return values * (0.02 if embedding else 0.8 / float(numpy.prod(shape[1:])) ** 0.5)


def single_file_tensors(
    sizes: Sizes = TINY, dtype: torch.dtype = torch.float32, seed: int = 0
) -> dict[str, torch.Tensor]:
    """The tiny base in memory, original names."""
    return {name: fill(name, shape, seed).to(dtype) for name, shape in single_file_shapes(sizes).items()}


def write_single_file(path: Path, sizes: Sizes = TINY, dtype: torch.dtype = torch.float32, seed: int = 0) -> Path:
    """The tiny base as one .safetensors."""
    save_file(single_file_tensors(sizes, dtype, seed), str(path))
    return path


def write_checkpoint(path: Path, sizes: Sizes = TINY, dtype: torch.dtype = torch.float32) -> Path:
    """The tiny base as one .ckpt, wrapped as the original trainer wrote it."""
    torch.save({"state_dict": single_file_tensors(sizes, dtype), "global_step": 840000}, path)
    return path


def write_configs(folder: Path, sizes: Sizes = TINY) -> Path:
    """The small JSON files and the tokenizer of a diffusers folder, without weights."""
    down = ["CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in sizes.attention]
    up = ["CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(sizes.attention)]
    blocks = len(sizes.vae_channels)
    documents = {
        "model_index.json": {
            "_class_name": "StableDiffusionPipeline",
            "_diffusers_version": "0.40.0",
            "feature_extractor": [None, None],
            "image_encoder": [None, None],
            "requires_safety_checker": False,
            "safety_checker": [None, None],
            "scheduler": ["diffusers", "PNDMScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
        "unet/config.json": {
            "_class_name": "UNet2DConditionModel",
            "sample_size": sizes.sample_size,
            "in_channels": 4,
            "out_channels": 4,
            "block_out_channels": sizes.channels,
            "layers_per_block": sizes.layers,
            "cross_attention_dim": sizes.text_width,
            "attention_head_dim": 8,
            "down_block_types": down,
            "up_block_types": up,
        },
        "vae/config.json": {
            "_class_name": "AutoencoderKL",
            "block_out_channels": sizes.vae_channels,
            "layers_per_block": sizes.vae_layers,
            "latent_channels": 4,
            "down_block_types": ["DownEncoderBlock2D"] * blocks,
            "up_block_types": ["UpDecoderBlock2D"] * blocks,
            "scaling_factor": 0.18215,
            "sample_size": sizes.sample_size * 2 ** (blocks - 1),
        },
        "text_encoder/config.json": {
            "architectures": ["CLIPTextModel"],
            "model_type": "clip_text_model",
            "vocab_size": sizes.vocabulary,
            "hidden_size": sizes.text_width,
            "intermediate_size": sizes.text_width * 4,
            "num_hidden_layers": sizes.text_layers,
            "num_attention_heads": sizes.text_heads,
            "max_position_embeddings": 77,
            "hidden_act": "quick_gelu",
            "layer_norm_eps": 1e-5,
            "projection_dim": sizes.text_width,
            "bos_token_id": 0,
            "eos_token_id": 2,
            "pad_token_id": 1,
        },
        "scheduler/scheduler_config.json": {
            "_class_name": "PNDMScheduler",
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "num_train_timesteps": 1000,
            "set_alpha_to_one": False,
            "skip_prk_steps": True,
            "steps_offset": 1,
        },
    }
    for name, document in documents.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(document), encoding="utf-8")
    from tunesmith.engines.stable_diffusion.tokenizer import write_tokenizer

    write_tokenizer(folder / "tokenizer")
    return folder


def diffusers_pipeline(path: Path, configs: Path, sizes: Sizes = TINY) -> object:
    """diffusers' own reading of a single file: the reference for our names and our loading. Nothing is downloaded."""
    from diffusers import StableDiffusionPipeline

    write_configs(configs, sizes)
    return StableDiffusionPipeline.from_single_file(str(path), config=str(configs), local_files_only=True)


def write_folder(folder: Path, sizes: Sizes = TINY) -> Path:
    """The tiny base as a diffusers folder, converted and written by diffusers itself."""
    folder.mkdir(parents=True, exist_ok=True)
    single = write_single_file(folder.parent / f"{folder.name}.single.safetensors", sizes)
    pipeline = diffusers_pipeline(single, folder.parent / f"{folder.name}.configs", sizes)
    pipeline.save_pretrained(str(folder))  # type: ignore[attr-defined]
    single.unlink()
    return folder
