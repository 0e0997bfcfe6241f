"""Adapter files in each layout, to and from the canonical form.

- kohya: one file, `lora_unet_..._to_q.lora_down.weight`, `.lora_up.weight`, `.alpha` (0-d): what the web UIs read.
  One alpha for all layers and one for spatial convolutions, since diffusers misreads others (see `evened`).
- diffusers: one file, `unet....to_q.lora_A.weight`, `.lora_B.weight`. It has no place for alpha that every reader
  looks at, so alpha / rank is multiplied into `lora_B`, and readers that assume 1 are right.
- comfy: one file under the base's original names, `....to_qkv.lora_A.weight`, `.lora_B.weight`, `.alpha`: what ComfyUI
  reads for bases whose layers it keeps fused.
- peft: folders, see `peft_folder`.
- layouts of other trainers that an engine names beside these are only read.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from tunesmith.adapters import peft_folder
from tunesmith.adapters.adapter import Adapter, Layer, Pair, check_whole, usual_rank_and_alpha
from tunesmith.adapters.fused import join_pairs, split_pair
from tunesmith.adapters.keys import recognised, refuse_leftovers
from tunesmith.adapters.peft_folder import rounded
from tunesmith.adapters.seams import Names
from tunesmith.errors import AdapterError
from tunesmith.weights.files import TensorFile, edit_metadata, open_tensors, write_safetensors
from tunesmith.weights.hashes import sshs_legacy_hash, tensor_hash

DTYPES: Mapping[str, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
DIFFUSERS_KEY = "lora_adapter_metadata"
TRAINER_KEY = "lora_config"  # Stable Audio 3's own trainer: {"rank": 16, "alpha": 16, "adapter_type": "dora-rows", ...}
_TRAINER_KINDS = ("lora", "dora", "dora-rows")
LAYOUTS = ("kohya", "diffusers", "comfy", "peft")


def read_adapter(path: Path, layouts: Names, base: Any, layout: str | None = None) -> Adapter:
    """An adapter from a file or a PEFT folder, tensors as stored; the layout is recognised from its keys.

    Raises AdapterError for keys that are left over, layers that `base` does not have, factors that disagree, NaN or
    Inf; WeightsError for a damaged file.
    """
    path = Path(path)
    if path.is_dir():
        return peft_folder.read(path, layouts, base)
    if not path.exists():
        raise AdapterError(f"{path} does not exist", expected="a LoRA file or a PEFT folder", do="check the path")
    with open_tensors(path) as file:
        found = layout or recognised(path, file.names, layouts.prefixes)
        if found == "peft":
            if peft_folder.CONFIG in {entry.name for entry in path.parent.iterdir()}:
                return peft_folder.read(path.parent, layouts, base)
            raise AdapterError(
                f"{path} is the tensor file of a PEFT folder",
                expected=f"{peft_folder.CONFIG} beside it",
                do="keep both",
            )
        slots, leftover = peft_folder.gather(file)
        leftover += [name for name in file.names if name.endswith(".dora_scale") and not _by_row(found, file, name)]
        if leftover:
            refuse_leftovers(path, leftover)
        stated = _stated(path, file)
        layers: dict[Layer, Pair] = {}
        unknown: list[str] = []
        for stem, values in slots.items():
            members = layouts.adapter_layers(found, stem, base)
            if not members:
                unknown.append(stem)
                continue
            pair = _pair(path, stem, values, _stated_alpha(stem, stated))
            pairs = (pair,) if len(members) == 1 else split_pair(stem, pair, len(members))
            if set(members) & set(layers):
                raise AdapterError(f"{path} names a layer twice, in two spellings", do="this file is damaged")
            layers.update(zip(members, pairs, strict=True))
        if unknown:
            raise foreign(path, unknown, len(slots))
        return Adapter(layers, dict(file.metadata))


def _by_row(layout: str, file: TensorFile, name: str) -> bool:
    """Whether a DoRA scale is one number an output row, which only ComfyUI's files say by their shape [out, 1]."""
    shape = file.info(name).shape
    return layout == "comfy" and len(shape) == 2 and shape[1] == 1


def foreign(path: Path, unknown: list[str], total: int) -> AdapterError:
    """The error for layers that the base does not have."""
    return AdapterError(
        f"{len(unknown)} of {total} layers in {path} are not in this base, such as {unknown[0]!r}",
        expected="a LoRA for this engine and base",
        do="choose the base that the LoRA was trained on",
    )


def _stated(path: Path, file: TensorFile) -> Mapping[str, Any]:
    """What a writer says of its adapter: diffusers' `unet.lora_alpha`, `unet.alpha_pattern` and so on, or `alpha`."""
    if any(".parametrizations.weight.0." in name for name in file.names):
        return _stated_by_trainer(path, file.metadata)
    stated = _object(path, file.metadata, DIFFUSERS_KEY)
    odd = next((key for key, value in stated.items() if key.endswith((".use_rslora", ".lora_bias")) and value), None)
    if odd:
        raise AdapterError(f"{path} asks for {odd}", expected="plain LoRA or DoRA factors")
    return stated


def _stated_by_trainer(path: Path, metadata: Mapping[str, str]) -> Mapping[str, Any]:
    """One alpha for all layers. Other kinds' magnitudes, by input, would pass for ours by output on square layers."""
    config = _object(path, metadata, TRAINER_KEY)
    kind = config.get("adapter_type", _TRAINER_KINDS[0])
    if kind not in _TRAINER_KINDS:
        raise AdapterError(
            f"{path} is an adapter of the kind {kind!r}",
            expected=f"one of {', '.join(_TRAINER_KINDS)}",
            do="merge it with the tool that made it",
        )
    return {"alpha": config["alpha"]} if "alpha" in config else {}


def _object(path: Path, metadata: Mapping[str, str], key: str) -> dict[str, Any]:
    """The JSON object under a key of the header; empty where there is none."""
    try:
        stated = json.loads(metadata.get(key, "{}"))
    except (ValueError, RecursionError):
        stated = None
    if not isinstance(stated, dict):
        raise AdapterError(f"{path} has {key} that is not JSON", do="this file is damaged; get it again")
    return stated


def _stated_alpha(stem: str, stated: Mapping[str, Any]) -> float | None:
    if "alpha" in stated:
        return peft_folder.alpha_of(stem, {}, stated["alpha"])
    folder, _, name = stem.partition(".")
    if f"{folder}.lora_alpha" not in stated:
        return None
    pattern = stated.get(f"{folder}.alpha_pattern") or {}
    if not isinstance(pattern, dict):
        raise AdapterError(f"{folder}.alpha_pattern is no map", do="this file is damaged; get it again")
    return peft_folder.alpha_of(name, pattern, stated[f"{folder}.lora_alpha"])


def _pair(path: Path, stem: str, values: Mapping[str, torch.Tensor], stated: float | None) -> Pair:
    if "down" not in values or "up" not in values:
        missing = "lora_up" if "down" in values else "lora_down"
        raise AdapterError(f"{path} lacks the {missing} of {stem!r}", do="this file is damaged; get it again")
    down, magnitude = values["down"], values.get("magnitude")
    # Files without an alpha mean alpha = rank.
    alpha = _alpha(path, stem, values["alpha"]) if "alpha" in values else stated or float(down.shape[0])
    pair = Pair(down, values["up"], alpha, None if magnitude is None else magnitude.flatten())
    check_whole(stem, pair)
    return pair


def _alpha(path: Path, stem: str, value: torch.Tensor) -> float:
    alpha = float(value) if value.numel() == 1 else math.nan
    if not math.isfinite(alpha):
        raise AdapterError(
            f"{path} has {value.tolist()} for the alpha of {stem!r}",
            expected="one finite number",
            do="this file is damaged; get it again",
        )
    return alpha


def write_adapter(
    path: Path,
    adapter: Adapter,
    layouts: Names,
    base: Any,
    layout: str,
    dtype: str,
    metadata: Mapping[str, str],
) -> None:
    """Write an adapter in one layout, whole or not at all; `metadata` wins over what the engine and we add.

    Raises AdapterError for a layout or dtype we do not write, for DoRA in a layout whose readers would get it wrong,
    and for numbers that overflow in `dtype`.
    """
    if layout not in LAYOUTS or dtype not in DTYPES:
        raise AdapterError(
            f"no adapter is written as {layout} in {dtype}", expected=f"{', '.join(LAYOUTS)} in {', '.join(DTYPES)}"
        )
    if not adapter.layers:
        raise AdapterError("the adapter has no layers", do="nothing was written")
    if layout == "kohya" and any(pair.magnitude is not None for pair in adapter.layers.values()):
        raise AdapterError(
            "kohya files have no DoRA that every reader understands the same way",
            expected="layout diffusers or peft",
            do="export to one of those, or merge the adapter into a full checkpoint",
        )
    path = Path(path)
    text = {**layouts.metadata(layout, base), **{key: str(value) for key, value in metadata.items()}}
    if layout == "peft":
        peft_folder.write(path, adapter, layouts, DTYPES[dtype], text)
    elif layout == "comfy":
        tensors = dict(_comfy(adapter, layouts, DTYPES[dtype], base))
        write_safetensors(path, tensors, {"format": "pt", **text})
    elif layout == "diffusers":
        tensors = dict(_diffusers(adapter, layouts, DTYPES[dtype]))
        write_safetensors(path, tensors, {"format": "pt", **text})
    else:
        even = evened(adapter)
        tensors = dict(_kohya(even, layouts, DTYPES[dtype], base))
        _write_kohya(path, tensors, {**_network(even), **text})


def evened(adapter: Adapter) -> Adapter:
    """The same changes with one alpha for spatial convolutions and one for all other layers, the usual ones.

    diffusers (0.42) misreads single layers' alphas of kohya files, so a layer with another alpha has the difference
    multiplied into `up`.
    """
    kinds: dict[bool, dict[str, Pair]] = {}
    for (component, name), pair in adapter.layers.items():
        kinds.setdefault(_spatial(pair), {})[f"{component}/{name}"] = pair
    usual = {spatial: usual_rank_and_alpha(pairs)[1] for spatial, pairs in kinds.items()}
    layers = {}
    for layer, pair in adapter.layers.items():
        alpha = usual[_spatial(pair)]
        up = pair.up if pair.alpha == alpha else pair.up.float() * (pair.alpha / alpha)
        layers[layer] = Pair(pair.down, up, alpha, pair.magnitude)
    return Adapter(layers, adapter.metadata)


def _spatial(pair: Pair) -> bool:
    return pair.down.dim() > 2 and pair.down.shape[2:].numel() > 1


def _by_stem(adapter: Adapter, layouts: Names, layout: str, base: Any) -> Iterator[tuple[str, Pair]]:
    """Every layer of a file with its pair; layers that the layout fuses come as one."""
    stems = {layer: layouts.adapter_stem(layout, *layer) for layer in adapter.layers}
    for stem in dict.fromkeys(stems.values()):
        own = [layer for layer, name in stems.items() if name == stem]
        members = layouts.adapter_layers(layout, stem, base) or tuple(own)
        pairs = [adapter.layers.get(layer) for layer in members]
        yield stem, adapter.layers[own[0]] if len(members) == 1 else join_pairs(stem, pairs)


def _kohya(adapter: Adapter, layouts: Names, dtype: torch.dtype, base: Any) -> Iterator[tuple[str, torch.Tensor]]:
    for stem, pair in _by_stem(adapter, layouts, "kohya", base):
        yield f"{stem}.lora_down.weight", rounded(stem, pair.down, dtype)
        yield f"{stem}.lora_up.weight", rounded(stem, pair.up, dtype)
        yield f"{stem}.alpha", rounded(stem, torch.tensor(pair.alpha), dtype)


def _comfy(adapter: Adapter, layouts: Names, dtype: torch.dtype, base: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Original names with lora_A and lora_B, alpha always there; DoRA's magnitudes by output row, [out, 1]."""
    for stem, pair in _by_stem(adapter, layouts, "comfy", base):
        yield f"{stem}.lora_A.weight", rounded(stem, pair.down, dtype)
        yield f"{stem}.lora_B.weight", rounded(stem, pair.up, dtype)
        yield f"{stem}.alpha", rounded(stem, torch.tensor(pair.alpha), dtype)
        if pair.magnitude is not None:
            yield f"{stem}.dora_scale", rounded(stem, pair.magnitude.reshape(-1, 1), dtype)


def _diffusers(adapter: Adapter, layouts: Names, dtype: torch.dtype) -> Iterator[tuple[str, torch.Tensor]]:
    for (component, canonical), pair in adapter.layers.items():
        stem = layouts.adapter_stem("diffusers", component, canonical)
        yield f"{stem}.lora_A.weight", rounded(stem, pair.down, dtype)
        yield f"{stem}.lora_B.weight", rounded(stem, pair.up.float() * pair.scale, dtype)
        if pair.magnitude is not None:
            yield f"{stem}.lora_magnitude_vector.weight", rounded(stem, peft_folder.shaped(pair), dtype)


def _network(adapter: Adapter) -> dict[str, str]:
    """The ss_network_* lines that follow from the factors themselves, as kohya's readers expect them."""
    plain = {f"{c}/{n}": pair for (c, n), pair in adapter.layers.items() if not _spatial(pair)}
    conv = {f"{c}/{n}": pair for (c, n), pair in adapter.layers.items() if _spatial(pair)}
    rank, alpha = usual_rank_and_alpha(plain or conv)
    lines = {"ss_network_module": "networks.lora", "ss_network_dim": str(rank), "ss_network_alpha": str(alpha)}
    if conv:
        conv_rank, conv_alpha = usual_rank_and_alpha(conv)
        lines["ss_network_args"] = json.dumps({"conv_dim": str(conv_rank), "conv_alpha": str(conv_alpha)})
    return lines


def _write_kohya(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """The file with the two hashes of its own tensors in its header, which need the tensors written first."""
    draft = path.with_name(f".{path.stem[:100]}.{uuid.uuid4().hex[:12]}.draft")
    try:
        write_safetensors(draft, tensors, {**metadata, "format": "pt"})
        hashes = {"sshs_model_hash": tensor_hash(draft), "sshs_legacy_hash": sshs_legacy_hash(draft)}
        edit_metadata(draft, {**metadata, **hashes, "format": "pt"}, final=path)
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
