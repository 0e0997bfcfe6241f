"""PEFT folders: `adapter_config.json` + `adapter_model.safetensors`, a subfolder each where components are several.

Names inside are our frozen ones. Where the running library has the same names, stock `PeftModel.from_pretrained`
loads a folder as it is. Our reader also takes folders that peft itself wrote under the library's names.
"""

from __future__ import annotations

import json
import re
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tunesmith.adapters.adapter import Adapter, Layer, Pair, check_whole, usual_rank_and_alpha
from tunesmith.adapters.keys import PEFT_PREFIX, refuse_leftovers, split_key
from tunesmith.adapters.seams import Names
from tunesmith.errors import AdapterError
from tunesmith.weights.atomic import replace_folder, write_json
from tunesmith.weights.files import TensorFile, open_tensors, write_safetensors

CONFIG = "adapter_config.json"
TENSORS = "adapter_model.safetensors"
_PLAIN = re.compile(r"[\w.-]+")
COMPONENT_KEY = "tunesmith.component"


def gather(file: TensorFile) -> tuple[dict[str, dict[str, torch.Tensor]], list[str]]:
    """Copies of the tensors by stem and slot (down, up, alpha, magnitude), and the keys that are left over."""
    slots: dict[str, dict[str, torch.Tensor]] = {}
    leftover = []
    for name in file.names:
        split = split_key(name)
        if split is None or split[1] in slots.get(split[0], {}):
            leftover.append(name)
        else:
            slots.setdefault(split[0], {})[split[1]] = file.read(name).clone()
    return slots, leftover


def shaped(pair: Pair) -> torch.Tensor:
    """The magnitude in peft's shape: [out] for a linear layer, [1, out, 1, ...] for a convolution."""
    assert pair.magnitude is not None
    if pair.down.dim() == 2:
        return pair.magnitude
    return pair.magnitude.reshape(1, -1, *[1] * (pair.down.dim() - 2))


def write(path: Path, adapter: Adapter, layouts: Names, dtype: torch.dtype, metadata: Mapping[str, str]) -> None:
    """Write a PEFT folder at `path`, whole or not at all."""
    draft = path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex[:12]}.draft")
    several = len(adapter.components) > 1
    try:
        for component in adapter.components:
            folder = draft / layouts.folders[component] if several else draft
            pairs = {
                _inner(layouts, component, name): pair
                for (owner, name), pair in adapter.layers.items()
                if owner == component
            }
            text = {"format": "pt", COMPONENT_KEY: component, **metadata}
            write_safetensors(folder / TENSORS, _tensors(pairs, dtype), text)
            write_json(folder / CONFIG, config_of(pairs))
        replace_folder(draft, path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _tensors(pairs: Mapping[str, Pair], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for name, pair in pairs.items():
        stem = f"{PEFT_PREFIX}{name}"
        tensors[f"{stem}.lora_A.weight"] = rounded(stem, pair.down, dtype)
        tensors[f"{stem}.lora_B.weight"] = rounded(stem, pair.up, dtype)
        if pair.magnitude is not None:
            tensors[f"{stem}.lora_magnitude_vector"] = rounded(stem, shaped(pair), dtype)
    return tensors


def rounded(stem: str, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The tensor in the dtype of the file. Raises AdapterError where a number becomes Inf, or was not finite."""
    cast = tensor.to(dtype)
    if not bool(torch.isfinite(cast).all()):
        finite = bool(torch.isfinite(tensor).all())
        raise AdapterError(
            f"{stem} holds {'numbers too large for ' + str(dtype) if finite else 'NaN or Inf'}",
            do="export in fp32 or bf16" if finite else "use an earlier checkpoint",
        )
    return cast


def config_of(pairs: Mapping[str, Pair]) -> dict[str, Any]:
    """The fields of peft's LoraConfig that matter; it fills in the rest."""
    rank, alpha = usual_rank_and_alpha(pairs)
    dora = {pair.magnitude is not None for pair in pairs.values()}
    if len(dora) > 1:
        raise AdapterError("some layers are DoRA and some are not", do="peft folders have one kind; use diffusers")
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "bias": "none",
        "fan_in_fan_out": False,
        "lora_dropout": 0.0,
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {name: pair.rank for name, pair in pairs.items() if pair.rank != rank},
        "alpha_pattern": {name: pair.alpha for name, pair in pairs.items() if pair.alpha != alpha},
        "target_modules": sorted(pairs),
        "use_dora": dora == {True},
        "use_rslora": False,
    }


def read(path: Path, layouts: Names, base: Any) -> Adapter:
    """Read a PEFT folder, or one with a PEFT folder per component. Raises AdapterError."""
    layers: dict[Layer, Pair] = {}
    metadata: dict[str, str] = {}
    folders = {path: ""} if (path / CONFIG).is_file() else {}
    if not folders:
        folders = {path / name: name for name in layouts.folders.values() if (path / name / CONFIG).is_file()}
    if not folders:
        raise AdapterError(
            f"{path} holds no {CONFIG}, nor do its subfolders {', '.join(sorted(layouts.folders.values()))}",
            expected="a PEFT folder",
            do="name the LoRA file itself where it is one",
        )
    for folder, name in folders.items():
        config = _config(folder / CONFIG)
        with open_tensors(folder / TENSORS) as file:
            slots, leftover = gather(file)
            if leftover:
                refuse_leftovers(folder / TENSORS, leftover)
            owner = {there: component for component, there in layouts.folders.items()}.get(name)
            hint = owner or file.metadata.get(COMPONENT_KEY)
            found = {
                _layer(folder, stem.removeprefix(PEFT_PREFIX), hint, layouts, base): _pair(stem, values, config)
                for stem, values in slots.items()
            }
            layers.update(found)
            metadata.update({key: text for key, text in file.metadata.items() if key != COMPONENT_KEY})
    return Adapter(layers, metadata)


def _inner(layouts: Names, component: str, canonical: str) -> str:
    """The name inside the folder: the engine's stem without peft's own start or the folder's name."""
    stem = layouts.adapter_stem("peft", component, canonical)
    return stem.removeprefix(PEFT_PREFIX).removeprefix(f"{layouts.folders[component]}.")


def _layer(folder: Path, name: str, component: str | None, layouts: Names, base: Any) -> Layer:
    """The layer that a name inside a PEFT folder means. Raises AdapterError where it means none, or two."""
    owners = [component] if component in layouts.folders else list(layouts.folders)
    stems = [f"{PEFT_PREFIX}{name}", *(f"{layouts.folders[owner]}.{name}" for owner in owners if owner is not None)]
    found = {layer for stem in stems for layer in layouts.adapter_layers("peft", stem, base)}
    hits = [hit for hit in found if hit[0] in owners]
    if len(hits) != 1:
        raise AdapterError(
            f"{name!r} in {folder} names {'no layer' if not hits else 'layers of several components'} of this base",
            expected="a LoRA for this engine and base",
            do="choose the base that the LoRA was trained on",
        )
    return hits[0]


def _config(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > 10 << 20:
            raise AdapterError(f"{path} is larger than a PEFT configuration is")
        config = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"{path} is not JSON ({error})", do="this folder is damaged; get it again") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else type(config).__name__
        raise AdapterError(f"{path} describes {kind!r}", expected="peft_type LORA")
    if not isinstance(config.get("alpha_pattern") or {}, dict):
        raise AdapterError(f"{path} has an alpha_pattern that is no map", do="this folder is damaged; get it again")
    odd = [key for key in ("use_rslora", "fan_in_fan_out", "lora_bias", "modules_to_save") if config.get(key)]
    if odd or config.get("bias", "none") != "none":
        raise AdapterError(f"{path} asks for {(odd or ['bias'])[0]}", expected="plain LoRA or DoRA factors")
    return config


def alpha_of(name: str, pattern: Mapping[str, Any], default: Any) -> float:
    """A layer's alpha by peft's rule for `alpha_pattern`: the first key that the name ends with, or equals after `^`.

    Keys of an outside file are expressions to peft; only names are taken here, since an expression could run forever.
    """
    alpha = default
    for key, value in pattern.items():
        plain = key.removeprefix("^").removesuffix("$").replace("\\.", ".").replace("\\-", "-")
        if not _PLAIN.fullmatch(plain):
            raise AdapterError(f"the alpha pattern {key[:80]!r} is an expression", expected="names of layers")
        if name == plain or (not key.startswith("^") and name.endswith(f".{plain}")):
            alpha = value
            break
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not 0 < alpha < float("inf"):
        raise AdapterError(f"the alpha of {name} is {alpha!r}", expected="a positive number")
    return float(alpha)


def _pair(stem: str, values: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> Pair:
    if "down" not in values or "up" not in values or "alpha" in values:
        raise AdapterError(f"{stem} has no whole pair of lora_A and lora_B", do="this folder is damaged; get it again")
    name = stem.removeprefix(PEFT_PREFIX)
    alpha = alpha_of(name, config.get("alpha_pattern") or {}, config.get("lora_alpha", 8))
    magnitude = values.get("magnitude")
    if (magnitude is not None) != bool(config.get("use_dora")):
        raise AdapterError(f"{stem} and the configuration disagree on DoRA", do="this folder is damaged; get it again")
    pair = Pair(values["down"], values["up"], float(alpha), None if magnitude is None else magnitude.flatten())
    check_whole(stem, pair)
    return pair
