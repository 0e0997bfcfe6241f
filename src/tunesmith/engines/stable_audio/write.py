"""A complete base on disk: a diffusers folder, or an original checkpoint with its config and text encoder beside."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from tunesmith.engines.protocol import Base
from tunesmith.engines.stable_audio.architecture import ROLES
from tunesmith.engines.stable_audio.load import read_part
from tunesmith.engines.stable_audio.names import PREFIXES, original_name
from tunesmith.engines.stable_audio.open import ABSENT_KEY, CLASSES, FOLDERS, MODEL_CONFIG, TOKENIZER
from tunesmith.engines.stable_audio.shapes import hop_length, tensor_shapes
from tunesmith.engines.stable_audio.tokenizer import class_of, write_config
from tunesmith.errors import WeightsError
from tunesmith.weights.atomic import replace_folder
from tunesmith.weights.files import write_safetensors

Replaced = Mapping[str, Mapping[str, torch.Tensor]]
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
_TEXT_FILE, _PART_FILE = "model.safetensors", "diffusion_pytorch_model.safetensors"
_ORIGINAL_ROLES = ("denoiser", "projection", "autoencoder")


def write_base(base: Base, replaced: Replaced, path: Path, layout: str, dtype: str) -> Path:
    """Write parts in `replaced` as given and all others copied from `base`; written aside, then renamed.

    Parts that have no weights anywhere (stages trained one after the other) are left out and declared as absent.
    """
    if dtype not in DTYPES:
        raise WeightsError(f"dtype is {dtype!r}", expected=f"one of {', '.join(DTYPES)}")
    if layout not in ("diffusers", "original"):
        raise WeightsError(f"no layout of a base is called {layout!r}", expected="diffusers or original")
    if unknown := set(replaced) - set(ROLES):
        raise WeightsError(f"a base has no part {sorted(unknown)[0]!r}", expected=f"{', '.join(ROLES)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
    try:
        if layout == "diffusers":
            _write_folder(base, replaced, aside, DTYPES[dtype])
        else:
            _write_original(base, replaced, aside, DTYPES[dtype])
        replace_folder(aside, path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return path


def _part(base: Base, replaced: Replaced, role: str, dtype: torch.dtype) -> Iterator[tuple[str, torch.Tensor]]:
    """Canonical name and tensor of a part, complete and of the right shapes, one at a time."""
    shapes = tensor_shapes(role, base.architecture[role])
    given = replaced.get(role)
    if given is None:
        for name, tensor in read_part(base.parts[role], base.architecture[role]):
            yield name, tensor.to(dtype).contiguous()
        return
    if problem := set(given) ^ set(shapes):
        raise WeightsError(
            f"the {role} to write does not have its tensors: {sorted(problem)[0]}", expected="all of them"
        )
    for name, shape in shapes.items():
        yield name, given[name].detach().to(device="cpu", dtype=dtype).reshape(shape).contiguous()


def _present(base: Base, replaced: Replaced) -> list[str]:
    return [role for role in ROLES if role in replaced or base.parts[role].path is not None]


# ---------------------------------------------------------------- diffusers folders


def _write_folder(base: Base, replaced: Replaced, folder: Path, dtype: torch.dtype) -> None:
    present = _present(base, replaced)
    for role in ROLES:
        place = folder / FOLDERS[role]
        place.mkdir()
        _write_json(place / "config.json", _config(base, role))
        if role in present:
            file = _TEXT_FILE if role == "text_encoder" else _PART_FILE
            write_safetensors(place / file, _part(base, replaced, role, dtype), {"format": "pt"})
    schedule = {"_class_name": "CosineDPMSolverMultistepScheduler", **base.architecture["scheduler"]}
    (folder / "scheduler").mkdir()
    _write_json(folder / "scheduler" / "scheduler_config.json", schedule)
    _write_tokenizer(base, folder / TOKENIZER)
    index = _index([role for role in ROLES if role not in present])
    if (folder / TOKENIZER).is_dir():
        index["tokenizer"] = ["transformers", class_of(folder / TOKENIZER)]
    _write_json(folder / "model_index.json", index)


def _config(base: Base, role: str) -> dict[str, Any]:
    sizes = dict(base.architecture[role])
    if role == "text_encoder":
        return {"architectures": ["T5EncoderModel"], "model_type": "t5", "pad_token_id": 0, "eos_token_id": 1, **sizes}
    return {"_class_name": CLASSES[role][1], **sizes}


def _write_tokenizer(base: Base, folder: Path) -> None:
    part = base.parts.get(TOKENIZER)
    if part is None or part.path is None:
        return
    folder.mkdir(parents=True)
    for entry in sorted(part.path.iterdir()):
        if entry.is_file() and entry.suffix in (".json", ".model", ".txt") and entry.name != "config.json":
            shutil.copyfile(entry, folder / entry.name)
    if not (folder / "tokenizer_config.json").is_file():
        write_config(folder, int(base.architecture[TOKENIZER]["max_tokens"]))


def _index(absent: list[str]) -> dict[str, Any]:
    index = {
        "_class_name": "StableAudioPipeline",
        "_diffusers_version": "0.42.0",
        "scheduler": ["diffusers", "CosineDPMSolverMultistepScheduler"],
        **{FOLDERS[role]: list(names) for role, names in CLASSES.items()},
    }
    return {**index, ABSENT_KEY: absent} if absent else index


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


# ---------------------------------------------------------------- original checkpoints


def _write_original(base: Base, replaced: Replaced, folder: Path, dtype: torch.dtype) -> None:
    """model.safetensors with model_config.json, and the T5 folder and tokenizer that the original leaves out."""
    missing = [role for role in ROLES if role not in _present(base, replaced)]
    if missing:
        raise WeightsError(
            f"the {missing[0]} has no weights yet", expected="a complete base", do="write layout diffusers until then"
        )

    def tensors() -> Iterator[tuple[str, torch.Tensor]]:
        for role in _ORIGINAL_ROLES:
            yield from _original_tensors(base, role, _part(base, replaced, role, dtype))

    write_safetensors(folder / "model.safetensors", tensors(), {"format": "pt"})
    _write_json(folder / MODEL_CONFIG, _model_config(base))
    text = folder / FOLDERS["text_encoder"]
    text.mkdir()
    _write_json(text / "config.json", _config(base, "text_encoder"))
    write_safetensors(text / _TEXT_FILE, _part(base, replaced, "text_encoder", dtype), {"format": "pt"})
    _write_tokenizer(base, folder / TOKENIZER)


def _original_tensors(
    base: Base, role: str, tensors: Iterator[tuple[str, torch.Tensor]]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors under their original names and shapes; the parts of a fused matrix are gathered and stacked."""
    waiting: dict[str, dict[int, torch.Tensor]] = {}
    for canonical, tensor in tensors:
        at = original_name(role, canonical, base.architecture[role])
        name = PREFIXES[role] + at.name
        if at.parts == 1:
            yield name, _as_original(role, canonical, tensor)
            continue
        parts = waiting.setdefault(name, {})
        parts[at.part] = tensor
        if len(parts) == at.parts:
            yield name, torch.cat([parts[index] for index in range(at.parts)])
            del waiting[name]


def _as_original(role: str, canonical: str, tensor: torch.Tensor) -> torch.Tensor:
    """Snakes without their axes of size 1, and the time features with one."""
    if role == "autoencoder" and canonical.endswith((".alpha", ".beta")):
        return tensor.flatten()
    return tensor.unsqueeze(1) if canonical == "time_proj.weight" else tensor


def _model_config(base: Base) -> dict[str, Any]:
    """What stable-audio-tools needs to build the model: as its own configs say it, for these sizes."""
    denoiser, sound = base.architecture["denoiser"], base.architecture["autoencoder"]
    numbers, hop = base.architecture["projection"], hop_length(sound)
    seconds = {"min_val": numbers["min_value"], "max_val": numbers["max_value"]}
    half = {"c_mults": sound["channel_multiples"], "strides": sound["downsampling_ratios"], "use_snake": True}
    encoder = {"in_channels": sound["audio_channels"], "channels": sound["encoder_hidden_size"], **half}
    decoder = {"out_channels": sound["audio_channels"], "channels": sound["decoder_channels"], **half}
    latent = sound["decoder_input_channels"]
    conditioning = [
        {
            "id": "prompt",
            "type": "t5",
            "config": {"t5_model_name": "t5-base", "max_length": base.architecture[TOKENIZER]["max_tokens"]},
        },
        {"id": "seconds_start", "type": "number", "config": seconds},
        {"id": "seconds_total", "type": "number", "config": seconds},
    ]
    return {
        "model_type": "diffusion_cond",
        "sample_size": denoiser["sample_size"] * hop,
        "sample_rate": sound["sampling_rate"],
        "audio_channels": sound["audio_channels"],
        "model": {
            "pretransform": {
                "type": "autoencoder",
                "iterate_batch": True,
                "config": {
                    "encoder": {"type": "oobleck", "config": {**encoder, "latent_dim": 2 * latent}},
                    "decoder": {"type": "oobleck", "config": {**decoder, "latent_dim": latent, "final_tanh": False}},
                    "bottleneck": {"type": "vae"},
                    "latent_dim": latent,
                    "downsampling_ratio": hop,
                    "io_channels": sound["audio_channels"],
                },
            },
            "conditioning": {"configs": conditioning, "cond_dim": numbers["conditioning_dim"]},
            "diffusion": {
                "type": "dit",
                "cross_attention_cond_ids": ["prompt", "seconds_start", "seconds_total"],
                "global_cond_ids": ["seconds_start", "seconds_total"],
                "config": {
                    "io_channels": denoiser["in_channels"],
                    "embed_dim": denoiser["num_attention_heads"] * denoiser["attention_head_dim"],
                    "depth": denoiser["num_layers"],
                    "num_heads": denoiser["num_attention_heads"],
                    "cond_token_dim": denoiser["cross_attention_input_dim"],
                    "global_cond_dim": denoiser["global_states_input_dim"],
                    "project_cond_tokens": False,
                    "transformer_type": "continuous_transformer",
                },
            },
            "io_channels": latent,
        },
    }
