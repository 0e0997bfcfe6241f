"""sd-scripts' command line as a recipe for replay: what is honoured, what cannot matter, and what is refused by name.

Defaults and meanings are those of sd-scripts 0.10's train_network.py, networks/lora.py and library/train_util.py.
"""

from __future__ import annotations

import ast
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunesmith.errors import ExchangeError

Flags = Mapping[str, tuple[str, ...]]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


HONOURED = _words(
    """
    network_module network_dim network_alpha network_args network_train_unet_only network_train_text_encoder_only
    learning_rate unet_lr text_encoder_lr optimizer_type optimizer_args use_8bit_adam use_lion_optimizer
    lr_scheduler lr_scheduler_num_cycles lr_warmup_steps max_train_steps max_train_epochs
    gradient_accumulation_steps max_grad_norm clip_skip max_token_length min_snr_gamma v_parameterization
    noise_offset noise_offset_random_strength adaptive_noise_scale multires_noise_iterations multires_noise_discount
    prior_loss_weight reg_data_dir mixed_precision
    """
)

# They decide what was drawn, and that is recorded; or where files are, what is shown, how fast it goes.
HARMLESS = _words(
    """
    pretrained_model_name_or_path train_data_dir in_json dataset_config dataset_class output_dir output_name logging_dir
    log_prefix log_with log_tracker_name log_tracker_config log_config wandb_run_name wandb_api_key
    save_every_n_epochs save_every_n_steps save_n_epoch_ratio save_last_n_epochs save_last_n_epochs_state
    save_last_n_steps save_last_n_steps_state save_state save_state_on_train_end save_state_to_huggingface
    save_precision save_model_as no_metadata training_comment huggingface_repo_id huggingface_repo_type
    huggingface_path_in_repo huggingface_token huggingface_repo_visibility async_upload
    metadata_title metadata_author metadata_description metadata_license metadata_tags
    sample_every_n_steps sample_at_first sample_every_n_epochs sample_prompts sample_sampler console_log_level
    console_log_file console_log_simple seed tokenizer_cache_dir max_data_loader_n_workers
    persistent_data_loader_workers vae vae_batch_size no_half_vae train_batch_size resolution enable_bucket
    min_bucket_reso max_bucket_reso bucket_reso_steps bucket_no_upscale resize_interpolation caption_extension
    caption_extention caption_separator caption_prefix caption_suffix shuffle_caption keep_tokens
    keep_tokens_separator secondary_separator enable_wildcard caption_dropout_rate caption_dropout_every_n_epochs
    caption_tag_dropout_rate token_warmup_min token_warmup_step color_aug flip_aug random_crop face_crop_aug_range
    debug_dataset dataset_repeats cache_info cache_latents cache_latents_to_disk skip_cache_check
    cache_text_encoder_outputs cache_text_encoder_outputs_to_disk gradient_checkpointing cpu_offload_checkpointing
    sdpa xformers mem_eff_attn split_attn lowram highvram ddp_timeout ddp_gradient_as_bucket_view ddp_static_graph
    dynamo_backend torch_compile min_timestep max_timestep network_weights dim_from_weights
    validation_seed validation_split validate_every_n_steps validate_every_n_epochs max_validation_steps
    disable_mmap_load_safetensors initial_epoch lr_scheduler_power lr_scheduler_min_lr_ratio
    huber_schedule huber_c huber_scale output_config no_token_padding
    """
)

# Refused unless they are left at a value that does nothing.
NEUTRAL: Mapping[str, frozenset[str]] = {
    "network_dropout": frozenset({"0", "0.0", "None"}),
    "scale_weight_norms": frozenset({"0", "0.0", "None"}),
    "ip_noise_gamma": frozenset({"0", "0.0", "None"}),
    "loss_type": frozenset({"l2"}),
    "lr_scheduler_type": frozenset({""}),
    "lr_decay_steps": frozenset({"0"}),
    "lr_scheduler_timescale": frozenset({"", "None"}),
    "initial_step": frozenset({"0"}),
}
_SCHEDULES = {
    "constant": "constant",
    "constant_with_warmup": "constant",
    "linear": "linear",
    "cosine": "cosine",
    "cosine_with_restarts": "cosine_restarts",
    "inverse_sqrt": "inverse",
}
_NOISE_FLAGS = ("adaptive_noise_scale", "multires_noise_iterations")


@dataclass(frozen=True)
class RecordedSettings:
    """What a run's flags mean for its replay. `document` is a recipe, but for base and device.

    `free_noise` says that flags explain any noise, `steps` is None where the flags give epochs; `prior_unknown` that
    regularisation pictures were weighted in a way only recorded weights can tell.
    """

    document: Mapping[str, Any]
    accumulation: int
    steps: int | None
    warmup: float
    free_noise: bool = False
    prior_unknown: bool = False
    notes: tuple[str, ...] = field(default=())


def parse_flags(settings: str) -> Flags:
    """Flag (without dashes) -> its values, from a JSON list of words or a command line.

    Raises ExchangeError for what is neither.
    """
    try:
        words = json.loads(settings)
    except ValueError:
        words = shlex.split(settings)
    if not isinstance(words, list) or not all(isinstance(word, str | int | float) for word in words):
        raise ExchangeError("the recorded settings are no list of flags", expected='["--network_dim", "4", ...]')
    flags: dict[str, tuple[str, ...]] = {}
    name = ""
    for word in map(str, words):
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            name = name.replace("-", "_")
            flags[name] = (value,) if equals else ()
        elif name:
            flags[name] = (*flags[name], word)
    return flags


def recorded_settings(flags: Flags) -> RecordedSettings:
    """The recipe that flags amount to. Raises ExchangeError naming every flag that replay cannot honour."""
    _refuse(flags)
    notes: list[str] = []
    components, rates = _components(flags)
    method = _method(flags, components)
    accumulation = int(_one(flags, "gradient_accumulation_steps", "1"))
    schedule, steps, warmup = _schedule(flags)
    optimiser = {**_optimiser(flags, warmup, notes), **schedule, "rate": max(rates.values()), "rates": rates}
    clip = _number(flags, "max_grad_norm", 1.0)
    optimiser["clip_norm"] = clip if clip > 0 else None
    precision = {"no": "fp32", "bf16": "bf16", "fp16": "fp16"}.get(_one(flags, "mixed_precision", "no"))
    if precision is None:
        raise ExchangeError(f"--mixed_precision {_one(flags, 'mixed_precision', '')}", expected="no, bf16 or fp16")
    if precision != "fp32":
        notes.append(f"recorded in {precision}: losses and weights agree within its rounding at best")
    gamma = _number(flags, "min_snr_gamma", 0.0)
    regularised = bool(flags.get("reg_data_dir")) and _number(flags, "prior_loss_weight", 1.0) != 1.0
    document = {
        "engine": {
            "name": "stable_diffusion",
            "clip_skip": int(_one(flags, "clip_skip", "1") or 1),
            "tokens": int(_one(flags, "max_token_length", "75") or 75),
            "prediction": "velocity" if "v_parameterization" in flags else "epsilon",
            "min_snr_gamma": gamma if gamma > 0 else None,
            # Offsets come out of the recording, their strength in them.
            "noise_offset": 1.0,
        },
        # A text encoder that does not train still runs, on the recorded token ids: `shuffle_tags` keeps it loaded.
        "data": {"shuffle_tags": "text_encoder" not in components},
        "method": method,
        "optimiser": optimiser,
        "length": {"accumulation": accumulation},
        "resources": {"precision": precision},
    }
    free = any(_number(flags, name, 0.0) != 0 for name in _NOISE_FLAGS)
    return RecordedSettings(document, accumulation, steps, warmup, free, regularised, tuple(notes))


def _refuse(flags: Flags) -> None:
    bad = []
    for name, values in flags.items():
        value = values[0] if values else ""
        if name in NEUTRAL and value in NEUTRAL[name]:
            continue
        if name not in HONOURED and name not in HARMLESS:
            bad.append(f"--{name} {value}".strip())
    module = _one(flags, "network_module", "networks.lora")
    if module != "networks.lora":
        bad.append(f"--network_module {module}")
    if bad:
        raise ExchangeError(
            f"the run was recorded with {', '.join(bad)}, which replay cannot honour",
            do="record a run without, or replay one of plain LoRA",
        )


def _components(flags: Flags) -> tuple[tuple[str, ...], dict[str, float]]:
    """What trains, and at which rates; sd-scripts leaves out a part of rate 0."""
    usual = _number(flags, "learning_rate", 2e-6)
    rates = {"denoiser": _number(flags, "unet_lr", usual), "text_encoder": _number(flags, "text_encoder_lr", usual)}
    if len(set(flags.get("text_encoder_lr", ()))) > 1:
        raise ExchangeError("--text_encoder_lr has several rates", expected="one, as SD 1.x has one text encoder")
    if "network_train_unet_only" in flags:
        del rates["text_encoder"]
    if "network_train_text_encoder_only" in flags:
        del rates["denoiser"]
    trained = {name: rate for name, rate in rates.items() if rate > 0}
    if not trained:
        raise ExchangeError("the flags leave nothing to train", expected="a rate above 0")
    return tuple(trained), trained


def _method(flags: Flags, components: tuple[str, ...]) -> dict[str, Any]:
    arguments = _pairs(flags, "network_args")
    known = {"conv_dim", "conv_alpha"}
    silent = {"dropout", "rank_dropout", "module_dropout", "train_norm", "verbose"}
    bad = [f"{name}={value}" for name, value in arguments.items() if name not in known | silent]
    bad += [f"{name}={arguments[name]}" for name in silent & set(arguments) if not _nothing(arguments[name])]
    if bad:
        raise ExchangeError(f"--network_args {' '.join(bad)} cannot be honoured", expected="conv_dim, conv_alpha")
    rank = int(_number(flags, "network_dim", 4))
    found: dict[str, Any] = {
        "name": "lora",
        "components": list(components),
        "rank": rank,
        "alpha": _number(flags, "network_alpha", 1.0) or float(rank),  # 0 stands for the rank
    }
    if "conv_dim" in arguments and not _nothing(arguments["conv_dim"]):
        found["conv_rank"] = int(arguments["conv_dim"])
        alpha = arguments.get("conv_alpha", "1")
        found["conv_alpha"] = (1.0 if alpha == "None" else float(alpha)) or float(found["conv_rank"])
    return found


def _schedule(flags: Flags) -> tuple[dict[str, Any], int | None, float]:
    """(knobs, steps or None, warm-up: steps, or a fraction below 1)."""
    name = _one(flags, "lr_scheduler", "constant")
    if name not in _SCHEDULES:
        raise ExchangeError(f"--lr_scheduler {name} cannot be honoured", expected=f"one of {', '.join(_SCHEDULES)}")
    cycles = int(_number(flags, "lr_scheduler_num_cycles", 1))
    if name == "cosine" and cycles != 1:
        raise ExchangeError(
            f"--lr_scheduler cosine with --lr_scheduler_num_cycles {cycles} goes down and up again",
            expected="1 cycle, or cosine_with_restarts",
        )
    text = _one(flags, "lr_warmup_steps", "0") or "0"
    warmup = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    warmup = float(int(warmup)) if warmup >= 1 else warmup
    if name == "constant" and warmup:
        raise ExchangeError("--lr_scheduler constant has no warm-up", expected="constant_with_warmup")
    known = "max_train_epochs" not in flags
    steps = int(_number(flags, "max_train_steps", 1600)) if known else None
    knobs: dict[str, Any] = {"schedule": _SCHEDULES[name]}
    if name == "cosine_with_restarts":
        knobs["restarts"] = max(1, cycles)
    return knobs, steps, warmup


def _optimiser(flags: Flags, warmup: float, notes: list[str]) -> dict[str, Any]:
    name = _one(flags, "optimizer_type", "AdamW") or "AdamW"
    name = "AdamW8bit" if "use_8bit_adam" in flags else "Lion" if "use_lion_optimizer" in flags else name
    arguments = {key: ast_value(value) for key, value in _pairs(flags, "optimizer_args").items()}
    match name.lower():
        case "adamw":
            found: dict[str, Any] = {"name": "adamw", "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}
        case "adamw8bit":
            found = {"name": "adamw8bit", "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}
            notes.append("8-bit AdamW: states are quantised, so weights agree loosely")
        case "lion":
            found = {"name": "lion", "betas": (0.9, 0.99), "weight_decay": 0.0}
            notes.append("Lion is pytorch_optimizer's here and lion_pytorch's in sd-scripts: the same rule")
        case "prodigy":
            found = {"name": "prodigy", "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}
            notes.append("Prodigy is pytorch_optimizer's here and prodigyopt's in sd-scripts: the same rule")
            guarded = bool(arguments.pop("safeguard_warmup", False))
            if guarded != bool(warmup):
                raise ExchangeError(
                    f"Prodigy with safeguard_warmup={guarded} and a warm-up of {warmup:g} cannot be honoured",
                    expected="the safeguard exactly where there is a warm-up",
                )
        case "adafactor":
            raise ExchangeError(
                "--optimizer_type AdaFactor is transformers' in sd-scripts and torch's here, which move differently",
                expected="AdamW, AdamW8bit, Lion or Prodigy",
            )
        case _:
            raise ExchangeError(
                f"--optimizer_type {name} cannot be honoured", expected="AdamW, AdamW8bit, Lion or Prodigy"
            )
    for key, value in arguments.items():
        if key not in found or key == "name":
            raise ExchangeError(f"--optimizer_args {key}={value} cannot be honoured", expected=", ".join(found))
        found[key] = value
    return found


def ast_value(text: str) -> Any:
    """A Python literal, as sd-scripts reads the values of --optimizer_args."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        raise ExchangeError(f"--optimizer_args has {text!r}", expected="a number, a list, True or False") from error


def _pairs(flags: Flags, name: str) -> dict[str, str]:
    found = {}
    for word in flags.get(name, ()):
        key, equals, value = word.partition("=")
        if not equals:
            raise ExchangeError(f"--{name} {word}", expected="name=value")
        found[key] = value
    return found


def _nothing(value: str) -> bool:
    return value.strip().lower() in ("", "none", "false", "0", "0.0")


def _one(flags: Flags, name: str, default: str) -> str:
    values: Sequence[str] = flags.get(name, ())
    return values[0] if values and values[0] != "None" else default


def _number(flags: Flags, name: str, default: float) -> float:
    text = _one(flags, name, "")
    try:
        return float(text) if text else default
    except ValueError as error:
        raise ExchangeError(f"--{name} {text}", expected="a number") from error
