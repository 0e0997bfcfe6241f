"""A complete base on disk: one file in the original layout, or a diffusers folder."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from tunesmith.engines.protocol import Base
from tunesmith.engines.stable_diffusion.architecture import ROLES
from tunesmith.engines.stable_diffusion.load import read_part
from tunesmith.engines.stable_diffusion.names import original_name
from tunesmith.engines.stable_diffusion.open import ABSENT_KEY, ARCHITECTURE_KEY, FOLDERS, TOKENIZER
from tunesmith.engines.stable_diffusion.shapes import tensor_shapes
from tunesmith.engines.stable_diffusion.tokenizer import write_tokenizer
from tunesmith.errors import WeightsError
from tunesmith.weights.atomic import replace_folder
from tunesmith.weights.files import write_safetensors

Replaced = Mapping[str, Mapping[str, torch.Tensor]]
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
_FILES = {
    "denoiser": "diffusion_pytorch_model.safetensors",
    "autoencoder": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}
_CLASSES = {
    "denoiser": ("diffusers", "UNet2DConditionModel"),
    "autoencoder": ("diffusers", "AutoencoderKL"),
    "text_encoder": ("transformers", "CLIPTextModel"),
}


def write_base(base: Base, replaced: Replaced, path: Path, layout: str, dtype: str) -> Path:
    """Write parts in `replaced` as given and all others copied from `base`; written aside, then renamed.

    Parts that have no weights anywhere (stages trained one after the other) are left out and declared as absent.
    """
    if dtype not in DTYPES:
        raise WeightsError(f"dtype is {dtype!r}", expected=f"one of {', '.join(DTYPES)}")
    if layout == "single_file":
        return _write_single(base, replaced, path, DTYPES[dtype])
    if layout == "diffusers":
        return _write_folder(base, replaced, path, DTYPES[dtype])
    raise WeightsError(f"no layout of a base is called {layout!r}", expected="single_file or diffusers")


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
    present = [role for role in ROLES if role in replaced or base.parts[role].path is not None]
    if unknown := set(replaced) - set(ROLES):
        raise WeightsError(f"a base has no part {sorted(unknown)[0]!r}", expected=f"{', '.join(ROLES)}")
    return present


def _write_single(base: Base, replaced: Replaced, path: Path, dtype: torch.dtype) -> Path:
    if path.suffix != ".safetensors":
        path = path.with_name(path.name + ".safetensors")
    if TOKENIZER in base.parts:
        raise WeightsError(
            f"{base.source} has a tokenizer of its own, which one file has no room for",
            expected="layout diffusers",
            do="write a folder",
        )
    present = _present(base, replaced)

    def tensors() -> Iterator[tuple[str, torch.Tensor]]:
        for role in present:
            sizes = base.architecture[role]
            for name, tensor in _part(base, replaced, role, dtype):
                original = original_name(role, name, sizes)
                # The original autoencoder's attention is made of 1x1 convolutions.
                convolution = role == "autoencoder" and ".attn_1." in original and tensor.dim() == 2
                yield original, tensor[:, :, None, None] if convolution else tensor

    metadata = {"format": "pt", ARCHITECTURE_KEY: json.dumps(_declared(base), sort_keys=True)}
    write_safetensors(path, tensors(), metadata)
    return path


def _declared(base: Base) -> dict[str, Any]:
    return {role: dict(base.architecture[role]) for role in (*ROLES, "scheduler")}


def _write_folder(base: Base, replaced: Replaced, path: Path, dtype: torch.dtype) -> Path:
    present = _present(base, replaced)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
    try:
        for role in ROLES:
            folder = aside / FOLDERS[role]
            folder.mkdir()
            _write_json(folder / "config.json", {"_class_name": _CLASSES[role][1], **_config(base, role)})
            if role in present:
                write_safetensors(folder / _FILES[role], _part(base, replaced, role, dtype), {"format": "pt"})
        _write_scheduler(base, aside / "scheduler")
        tokenizer = base.parts.get("tokenizer")
        write_tokenizer(aside / "tokenizer", tokenizer.path if tokenizer else None)
        _write_json(aside / "model_index.json", _index([role for role in ROLES if role not in present]))
        replace_folder(aside, path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return path


def _config(base: Base, role: str) -> dict[str, Any]:
    sizes = dict(base.architecture[role])
    if role == "text_encoder":
        return {"architectures": ["CLIPTextModel"], "model_type": "clip_text_model", **sizes}
    return sizes


def _write_scheduler(base: Base, folder: Path) -> None:
    folder.mkdir()
    fixed = {"_class_name": "PNDMScheduler", "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1}
    _write_json(folder / "scheduler_config.json", {**fixed, **base.architecture["scheduler"]})


def _index(absent: list[str]) -> dict[str, Any]:
    parts = {FOLDERS[role]: list(names) for role, names in _CLASSES.items()}
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.42.0",
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        **parts,
    }
    return {**index, ABSENT_KEY: absent} if absent else index


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
