"""What an exported adapter says about its training: the flat text that web UIs and model sites look for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunesmith.catalog.card import Card
from tunesmith.engines.protocol import Base
from tunesmith.weights.hashes import HashCache, kohya_legacy_hash

_VERSIONS = (("sdxl_", "SDXL"), ("sd_v2", "SD2"), ("sd_v1", "SD1"))


def training_metadata(card: Card, base: Base, *, hashes: HashCache) -> dict[str, str]:
    """The `ss_` and `modelspec.` lines that follow from a card, values as str() of Python's, None left out."""
    recipe = card.recipe
    section = {name: _section(recipe, name) for name in ("engine", "optimiser", "length", "method", "resources")}
    rates = section["optimiser"].get("rates") or {}
    rate = section["optimiser"].get("rate")
    side = section["engine"].get("resolution")
    lines: dict[str, Any] = {
        "ss_output_name": card.name,
        "ss_steps": card.step or None,
        "ss_max_train_steps": section["length"].get("steps"),
        "ss_epoch": section["length"].get("epochs"),
        "ss_num_train_images": card.item_count or None,
        "ss_seed": section["length"].get("seed"),
        "ss_batch_size_per_device": section["length"].get("batch_items"),
        "ss_gradient_accumulation_steps": section["length"].get("accumulation"),
        "ss_learning_rate": rate,
        "ss_unet_lr": rates.get("denoiser", rate),
        "ss_text_encoder_lr": rates.get("text_encoder", rate),
        "ss_optimizer": section["optimiser"].get("name"),
        "ss_lr_scheduler": section["optimiser"].get("schedule"),
        "ss_lr_warmup_steps": section["optimiser"].get("warmup_steps"),
        "ss_resolution": f"({side}, {side})" if isinstance(side, int) else side,
        "ss_clip_skip": section["engine"].get("clip_skip"),
        "ss_min_snr_gamma": section["engine"].get("min_snr_gamma"),
        "ss_noise_offset": section["engine"].get("noise_offset"),
        "ss_network_dropout": section["method"].get("dropout") or None,
        "ss_tag_frequency": json.dumps({name: {_trigger(use): card.item_count} for name, use in card.concepts.items()}),
        "ss_dataset_dirs": json.dumps({name: {"img_count": card.item_count} for name in card.concepts}),
        **_base_lines(base, hashes),
        "modelspec.title": card.name,
        "modelspec.date": card.created_utc or None,
        "modelspec.resolution": f"{side}x{side}" if isinstance(side, int) else None,
        "modelspec.trigger_phrase": ", ".join(filter(None, map(_trigger, card.concepts.values()))) or None,
        "modelspec.license": ", ".join(card.licences) or None,
        "modelspec.tags": ", ".join(card.concepts) or None,
        "tunesmith.checkpoint": card.id or None,
        "tunesmith.dataset_hash": card.dataset_hash or None,
    }
    # kohya's readers expect the word None for a clip_skip that was not set.
    lines["ss_clip_skip"] = str(lines["ss_clip_skip"])
    return {key: str(value) for key, value in lines.items() if value is not None}


def _section(recipe: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = recipe.get(name)
    return found if isinstance(found, Mapping) else {}


def _trigger(use: Any) -> str:
    """A concept's trigger: the text itself, or under `trigger`."""
    if isinstance(use, Mapping):
        use = use.get("trigger", "")
    return use if isinstance(use, str) else ""


def _base_lines(base: Base, hashes: HashCache) -> dict[str, Any]:
    files = [file for file in base.files if file.is_file()]
    lines: dict[str, Any] = {"ss_sd_model_name": Path(base.source).name}
    if len(files) == 1:
        lines["ss_sd_model_hash"] = kohya_legacy_hash(files[0])
        lines["ss_new_sd_model_hash"] = hashes.get(files[0])
        hashes.save()
    return lines


def card_sidecar(card: Card, layout_metadata: Mapping[str, str]) -> dict[str, Any]:
    """The `<stem>.json` from which web UIs fill their card of a LoRA."""
    version = layout_metadata.get("ss_base_model_version", "")
    triggers = ", ".join(filter(None, map(_trigger, card.concepts.values())))
    strengths = [use.get("strength") for use in card.concepts.values() if isinstance(use, Mapping)]
    weight = next((value for value in strengths if isinstance(value, int | float)), 0)
    return {
        "description": f"{card.name}, trained with tunesmith",
        "sd version": next((name for start, name in _VERSIONS if version.startswith(start)), "Other"),
        "activation text": triggers,
        "preferred weight": weight,
        "notes": f"step {card.step}; {card.item_count} items",
    }
