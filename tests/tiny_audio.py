"""A tiny Stable Audio Open for tests: the true classes, two layers, few channels, weights filled by formula.

    folder = write_folder(tmp_path / "tiny")            # as diffusers keeps it (written by diffusers itself)
    folder = write_original(tmp_path / "original")      # model.safetensors + model_config.json, T5 beside

The names of the original are spelled out here from stable-audio-tools' modules, on purpose without our own tables.
"""

from __future__ import annotations

import json
import warnings
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

RATE = 1000
DENOISER = {
    "sample_size": 128,
    "in_channels": 8,
    "out_channels": 8,
    "num_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 4,
    "num_key_value_attention_heads": 2,
    "cross_attention_dim": 32,
    "cross_attention_input_dim": 32,
    "global_states_input_dim": 64,
    "time_proj_dim": 16,
}
AUTOENCODER = {
    "encoder_hidden_size": 16,
    "downsampling_ratios": [2, 4],
    "channel_multiples": [1, 2],
    "decoder_channels": 8,
    "decoder_input_channels": 8,
    "audio_channels": 2,
    "sampling_rate": RATE,
}
TEXT = {"vocab_size": 300, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0}
TOKENS = 12


def fill(module: nn.Module, seed: int = 0) -> nn.Module:
    """Weights by formula: a function of their names, of about the usual sizes."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            draw = torch.Generator().manual_seed(zlib.crc32(f"{name}/{seed}".encode()))
            noise = torch.randn(parameter.shape, generator=draw)
            if parameter.dim() == 1 or name.endswith((".alpha", ".beta", "weight_g")):
                parameter.copy_((0.0 if "alpha" in name or "beta" in name else 0.5) + 0.1 * noise)
            else:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
    return module.eval()


def modules(seed: int = 0) -> dict[str, Any]:
    """The four modules by diffusers' folder names."""
    import diffusers
    from diffusers.pipelines.stable_audio.modeling_stable_audio import StableAudioProjectionModel
    from transformers import T5Config, T5EncoderModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        autoencoder = diffusers.AutoencoderOobleck(**AUTOENCODER)
    return {
        "transformer": fill(diffusers.StableAudioDiTModel(**DENOISER), seed),
        "vae": fill(autoencoder, seed),
        "projection_model": fill(StableAudioProjectionModel(32, 32, 0, 512), seed),
        "text_encoder": fill(T5EncoderModel(T5Config(**TEXT)), seed),
    }


def tokenizer() -> Any:
    """A unigram tokenizer of letters and a few words, in transformers' own class."""
    from transformers import T5Tokenizer

    words = ["▁", "▁a", "▁sound", "▁number", "▁creature", "▁growl", "▁ghoul", "screech", ",", "."]
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)] + [str(digit) for digit in range(10)]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(piece, -2.0 - 0.01 * at) for at, piece in enumerate([*words, *letters])]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=TOKENS)


def pipeline(seed: int = 0) -> Any:
    """diffusers' own pipeline of it."""
    import diffusers

    parts = modules(seed)
    scheduler = diffusers.CosineDPMSolverMultistepScheduler(
        sigma_min=0.3, sigma_max=500, sigma_data=1.0, prediction_type="v_prediction", solver_order=2
    )
    return diffusers.StableAudioPipeline(tokenizer=tokenizer(), scheduler=scheduler, **parts)


def write_folder(path: Path, seed: int = 0) -> Path:
    """The base as a diffusers folder, written by diffusers."""
    pipeline(seed).save_pretrained(str(path))
    return path


def original_tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    """The base as stable-audio-tools names it."""
    parts = modules(seed)
    return {
        **_original_denoiser(dict(parts["transformer"].named_parameters())),
        **_original_autoencoder(dict(parts["vae"].named_parameters())),
        **_original_numbers(dict(parts["projection_model"].named_parameters())),
    }


def _original_denoiser(given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    root, found = "model.model.", {}
    found[f"{root}timestep_features.weight"] = given["time_proj.weight"][:, None]
    for ours, theirs in (("timestep_proj", "timestep"), ("global_proj", "global"), ("cross_attention_proj", "cond")):
        for layer in (0, 2):
            for end in ("weight", "bias"):
                if f"{ours}.{layer}.{end}" in given:
                    found[f"{root}to_{theirs}_embed.{layer}.{end}"] = given[f"{ours}.{layer}.{end}"]
    for name in ("preprocess_conv", "postprocess_conv"):
        found[f"{root}{name}.weight"] = given[f"{name}.weight"]
    found[f"{root}transformer.project_in.weight"] = given["proj_in.weight"]
    found[f"{root}transformer.project_out.weight"] = given["proj_out.weight"]
    found[f"{root}transformer.rotary_pos_emb.inv_freq"] = torch.ones(4)
    for at in range(DENOISER["num_layers"]):
        block, layer = f"transformer_blocks.{at}", f"{root}transformer.layers.{at}"
        for norm, name in (("norm1", "pre_norm"), ("norm2", "cross_attend_norm"), ("norm3", "ff_norm")):
            found[f"{layer}.{name}.gamma"] = given[f"{block}.{norm}.weight"]
            found[f"{layer}.{name}.beta"] = given[f"{block}.{norm}.bias"]
        qkv = [given[f"{block}.attn1.to_{letter}.weight"] for letter in "qkv"]
        found[f"{layer}.self_attn.to_qkv.weight"] = torch.cat(qkv)
        found[f"{layer}.self_attn.to_out.weight"] = given[f"{block}.attn1.to_out.0.weight"]
        found[f"{layer}.cross_attn.to_q.weight"] = given[f"{block}.attn2.to_q.weight"]
        kv = [given[f"{block}.attn2.to_{letter}.weight"] for letter in "kv"]
        found[f"{layer}.cross_attn.to_kv.weight"] = torch.cat(kv)
        found[f"{layer}.cross_attn.to_out.weight"] = given[f"{block}.attn2.to_out.0.weight"]
        for end in ("weight", "bias"):
            found[f"{layer}.ff.ff.0.proj.{end}"] = given[f"{block}.ff.net.0.proj.{end}"]
            found[f"{layer}.ff.ff.2.{end}"] = given[f"{block}.ff.net.2.{end}"]
    return found


def _original_autoencoder(given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Sequential modules: first convolution, one per block, a snake, the last convolution."""
    root, blocks = "pretransform.model.", len(AUTOENCODER["downsampling_ratios"])
    unit = {"snake1": "layers.0", "conv1": "layers.1", "snake2": "layers.2", "conv2": "layers.3"}
    found = {}
    for name, tensor in given.items():
        words = name.split(".")
        value = tensor.reshape(-1) if words[-1] in ("alpha", "beta") else tensor
        if words[1] != "block":
            at = {"conv1": 0, "snake1": blocks + 1, "conv2": blocks + 2}[words[1]]
            found[f"{root}{words[0]}.layers.{at}.{words[-1]}"] = value
            continue
        place = f"{root}{words[0]}.layers.{int(words[2]) + 1}.layers"
        first = 0 if words[0] == "encoder" else 2
        if words[3].startswith("res_unit"):
            found[f"{place}.{first + int(words[3][-1]) - 1}.{unit[words[4]]}.{words[-1]}"] = value
        else:
            at = {"encoder": {"snake1": 3, "conv1": 4}, "decoder": {"snake1": 0, "conv_t1": 1}}[words[0]][words[3]]
            found[f"{place}.{at}.{words[-1]}"] = value
    return found


def _original_numbers(given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    found = {}
    for name, tensor in given.items():
        theirs = name.replace("start_number_conditioner", "seconds_start").replace(
            "end_number_conditioner", "seconds_total"
        )
        theirs = theirs.replace("time_positional_embedding", "embedder.embedding")
        found[f"conditioner.conditioners.{theirs}"] = tensor
    return found


def model_config() -> dict[str, Any]:
    """What stable-audio-tools' model_config.json says, in the form of Stable Audio Open 1.0's."""
    strides = AUTOENCODER["downsampling_ratios"]
    seconds = {"min_val": 0, "max_val": 512}
    half = {"c_mults": AUTOENCODER["channel_multiples"], "strides": strides, "use_snake": True}
    hop = 8
    return {
        "model_type": "diffusion_cond",
        "sample_size": DENOISER["sample_size"] * hop,
        "sample_rate": RATE,
        "audio_channels": 2,
        "model": {
            "pretransform": {
                "type": "autoencoder",
                "config": {
                    "encoder": {"type": "oobleck", "config": {**half, "channels": 16, "latent_dim": 16}},
                    "decoder": {"type": "oobleck", "config": {**half, "channels": 8, "latent_dim": 8}},
                    "bottleneck": {"type": "vae"},
                    "latent_dim": 8,
                    "downsampling_ratio": hop,
                    "io_channels": 2,
                },
            },
            "conditioning": {
                "configs": [
                    {"id": "prompt", "type": "t5", "config": {"t5_model_name": "t5-base", "max_length": TOKENS}},
                    {"id": "seconds_start", "type": "number", "config": seconds},
                    {"id": "seconds_total", "type": "number", "config": seconds},
                ],
                "cond_dim": 32,
            },
            "diffusion": {
                "type": "dit",
                "cross_attention_cond_ids": ["prompt", "seconds_start", "seconds_total"],
                "global_cond_ids": ["seconds_start", "seconds_total"],
                "config": {
                    "io_channels": 8,
                    "embed_dim": 64,
                    "depth": DENOISER["num_layers"],
                    "num_heads": 4,
                    "cond_token_dim": 32,
                    "global_cond_dim": 64,
                    "project_cond_tokens": False,
                    "transformer_type": "continuous_transformer",
                },
            },
            "io_channels": 8,
        },
        "training": {"use_ema": True},
    }


def write_original(path: Path, seed: int = 0) -> Path:
    """The base as stable-audio-tools keeps it, with a T5 folder and its tokenizer beside."""
    path.mkdir(parents=True)
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in original_tensors(seed).items()}
    save_file(tensors, path / "model.safetensors")
    (path / "model_config.json").write_text(json.dumps(model_config()))
    modules(seed)["text_encoder"].save_pretrained(str(path / "t5-base"))
    tokenizer().save_pretrained(str(path / "t5-base"))
    return path
