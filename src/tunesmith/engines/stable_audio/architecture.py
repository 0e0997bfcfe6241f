"""The sizes of Stable Audio Open's parts: named ones, a JSON file of sizes, and a foreign model_config.json. No torch.

An architecture is a mapping by role (denoiser, projection, autoencoder, text_encoder, scheduler, tokenizer) of what
that part's config.json would say, with diffusers' and transformers' keys.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunesmith.engines.stable_audio.recognise import foreign_config
from tunesmith.errors import WeightsError
from tunesmith.weights.architectures import Sizes, sizes_named

ROLES = ("denoiser", "projection", "autoencoder", "text_encoder")

DEFAULTS: Mapping[str, Sizes] = {
    "denoiser": {
        "sample_size": 1024,
        "in_channels": 64,
        "out_channels": 64,
        "num_layers": 24,
        "attention_head_dim": 64,
        "num_attention_heads": 24,
        "num_key_value_attention_heads": 12,
        "cross_attention_dim": 768,
        "cross_attention_input_dim": 768,
        "global_states_input_dim": 1536,
        "time_proj_dim": 256,
    },
    "projection": {"text_encoder_dim": 768, "conditioning_dim": 768, "min_value": 0, "max_value": 512},
    "autoencoder": {
        "encoder_hidden_size": 128,
        "downsampling_ratios": [2, 4, 4, 8, 8],
        "channel_multiples": [1, 2, 4, 8, 16],
        "decoder_channels": 128,
        "decoder_input_channels": 64,
        "audio_channels": 2,
        "sampling_rate": 44100,
    },
    "text_encoder": {
        "vocab_size": 32128,
        "d_model": 768,
        "d_kv": 64,
        "d_ff": 3072,
        "num_layers": 12,
        "num_heads": 12,
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
        "feed_forward_proj": "relu",
        "layer_norm_epsilon": 1e-6,
    },
    "scheduler": {
        "sigma_min": 0.3,
        "sigma_max": 500,
        "sigma_data": 1.0,
        "sigma_schedule": "exponential",
        "solver_order": 2,
        "prediction_type": "v_prediction",
    },
    "tokenizer": {"max_tokens": 128},
}


def _named() -> dict[str, dict[str, Sizes]]:
    schedule, numbers = dict(DEFAULTS["scheduler"]), {"min_value": 0, "max_value": 512}
    return {
        "stable_audio_open_1": {role: dict(sizes) for role, sizes in DEFAULTS.items()},
        # Two seconds at 22,050 Hz, one latent frame in 11.6 ms: small enough to train on two CPU cores.
        "small_voices": {
            "denoiser": {
                **DEFAULTS["denoiser"],
                "sample_size": 173,
                "in_channels": 24,
                "out_channels": 24,
                "num_layers": 5,
                "attention_head_dim": 32,
                "num_attention_heads": 8,
                "num_key_value_attention_heads": 4,
                "cross_attention_dim": 128,
                "cross_attention_input_dim": 128,
                "global_states_input_dim": 256,
            },
            "projection": {**numbers, "text_encoder_dim": 128, "conditioning_dim": 128},
            "autoencoder": {
                **DEFAULTS["autoencoder"],
                "encoder_hidden_size": 48,  # twice the latents' channels: means and deviations
                "downsampling_ratios": [4, 4, 4, 4],
                "channel_multiples": [1, 2, 4, 8],
                "decoder_channels": 32,
                "decoder_input_channels": 24,
                "sampling_rate": 22050,
            },
            "text_encoder": {
                **DEFAULTS["text_encoder"],
                "vocab_size": 640,
                "d_model": 128,
                "d_kv": 32,
                "d_ff": 512,
                "num_layers": 2,
                "num_heads": 4,
            },
            "scheduler": schedule,
            "tokenizer": {"max_tokens": 32},
        },
    }


NAMED = tuple(_named())


def named_architecture(name: str) -> dict[str, Sizes]:
    """A named architecture, or a JSON file of sizes by role laid over those of `like`. Raises WeightsError."""
    return sizes_named(name, _named())


def sizes_from_model_config(path: Path) -> dict[str, Sizes]:
    """The sizes a stable-audio-tools `model_config.json` states. Raises WeightsError where it is of another model."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if problem := foreign_config(document):
            raise WeightsError(
                f"{path} is of {problem}", expected="that of a Stable Audio Open base", do="choose such a base"
            )
        return _from_model_config(document)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read: {error}", expected="JSON") from error
    except (KeyError, TypeError, StopIteration, ZeroDivisionError) as error:
        raise WeightsError(
            f"{path} is not the model_config.json of a Stable Audio Open model: it lacks {error}",
            expected="model_type diffusion_cond with a DiT, an Oobleck pretransform and prompt, seconds_* conditions",
        ) from error


def _from_model_config(document: Mapping[str, Any]) -> dict[str, Sizes]:
    model = document["model"]
    transform, diffusion, conditioning = model["pretransform"]["config"], model["diffusion"], model["conditioning"]
    transformer = diffusion["config"]
    if document["model_type"] != "diffusion_cond" or diffusion["type"] != "dit":
        raise KeyError("a diffusion transformer (model_type diffusion_cond, type dit)")
    if diffusion.get("diffusion_objective", "v") != "v":
        raise KeyError("the v objective (diffusion_objective is another)")
    by_name = {entry["id"]: entry["config"] for entry in conditioning["configs"]}
    encoder, decoder = transform["encoder"]["config"], transform["decoder"]["config"]
    head = transformer["embed_dim"] // transformer["num_heads"]
    prompt, seconds = by_name["prompt"], by_name["seconds_total"]
    return {
        "denoiser": {
            **DEFAULTS["denoiser"],
            "sample_size": int(document["sample_size"]) // int(transform["downsampling_ratio"]),
            "in_channels": transformer["io_channels"],
            "out_channels": transformer["io_channels"],
            "num_layers": transformer["depth"],
            "attention_head_dim": head,
            "num_attention_heads": transformer["num_heads"],
            "num_key_value_attention_heads": transformer["cond_token_dim"] // head,
            "cross_attention_dim": transformer["cond_token_dim"],
            "cross_attention_input_dim": transformer["cond_token_dim"],
            "global_states_input_dim": transformer["global_cond_dim"],
        },
        "projection": {
            "text_encoder_dim": DEFAULTS["text_encoder"]["d_model"],
            "conditioning_dim": conditioning["cond_dim"],
            "min_value": seconds["min_val"],
            "max_value": seconds["max_val"],
        },
        "autoencoder": {
            "encoder_hidden_size": encoder["channels"],
            "downsampling_ratios": list(encoder["strides"]),
            "channel_multiples": list(encoder["c_mults"]),
            "decoder_channels": decoder["channels"],
            "decoder_input_channels": decoder["latent_dim"],
            "audio_channels": transform["io_channels"],
            "sampling_rate": document["sample_rate"],
        },
        "text_encoder": dict(DEFAULTS["text_encoder"]),
        "scheduler": dict(DEFAULTS["scheduler"]),
        "tokenizer": {"max_tokens": prompt["max_length"]},
    }
