"""What the keys of adapter files mean, in every layout we read. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from tunesmith.errors import AdapterError

PEFT_PREFIX = "base_model.model."

# Ending of a key -> what the tensor is. The first of each kind is the one we write.
SLOTS: Mapping[str, str] = {
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".alpha": "alpha",
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_magnitude_vector": "magnitude",
    ".lora_magnitude_vector.weight": "magnitude",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    ".dora_scale": "magnitude",
    "/lora_down.weight": "down",
    "/lora_up.weight": "up",
    "/dora_mag.weight": "magnitude",
    ".parametrizations.weight.0.lora_A": "down",
    ".parametrizations.weight.0.lora_B": "up",
    ".parametrizations.weight.0.magnitude": "magnitude",
}

# Part of a key -> what kind of file that makes it, for those that are not LoRA.
OTHER_KINDS: Mapping[str, str] = {
    ".hada_": "a LoHa (Hadamard product) file",
    ".lokr_": "a LoKr (Kronecker product) file",
    ".lora_mid.": "a LoCon file with Tucker decomposition",
    ".dora_scale": "a DoRA file in LyCORIS form, whose readers disagree on the axis of the scale",
    ".oft_": "an OFT file",
    ".diff": "a file of full weight differences",
    ".ia3_": "an IA3 file",
    ".glora_": "a GLoRA file",
    "lora_te2_": "a LoRA for SDXL, which has two text encoders",
    "emb_params": "a textual inversion embedding",
    "string_to_param": "a textual inversion embedding",
}


def split_key(key: str) -> tuple[str, str] | None:
    """(stem, slot) of a tensor's name, slot being down, up, alpha or magnitude; None for a key of no LoRA."""
    for ending, slot in SLOTS.items():
        if key.endswith(ending) and len(key) > len(ending):
            return key.removesuffix(ending), slot
    return None


def recognised(path: Path, names: Iterable[str], prefixes: Mapping[str, tuple[str, ...]]) -> str:
    """The layout that a file's keys speak of, by how its stems begin. Raises AdapterError naming the first other."""
    names = list(names)
    stems = [split[0] for name in names if (split := split_key(name)) is not None]
    if not stems:
        refuse_leftovers(path, names)
    for layout, starts in prefixes.items():
        if all(stem.startswith(starts) for stem in stems):
            return layout
    if all("." not in stem for stem in stems):
        return "kohya"
    known = tuple(start for starts in prefixes.values() for start in starts)
    odd = next((stem for stem in stems if not stem.startswith(known)), stems[0])
    ways = ", ".join(f"{layout} ({' or '.join(starts)})" for layout, starts in prefixes.items())
    raise AdapterError(
        f"{path} names its layers in a way no layout explains: {odd!r}",
        expected=f"names of kohya (lora_unet_...), {ways}",
        do="check that this LoRA is for this engine",
    )


def refuse_leftovers(path: Path, keys: Iterable[str]) -> None:
    """Raise AdapterError naming the first of `keys` and their number, and what the file is where that shows."""
    left = sorted(keys)
    if not left:
        raise AdapterError(f"{path} holds no tensors", expected="a LoRA file")
    kind = next((what for part, what in OTHER_KINDS.items() for key in left if part in key), "")
    example = next((key for part in OTHER_KINDS for key in left if part in key), left[0])
    raise AdapterError(
        f"{path} holds {len(left)} tensors that no LoRA has, such as {example[:120]!r}"
        + (f": it is {kind}" if kind else ""),
        expected="only lora_down/lora_up/alpha or lora_A/lora_B",
        do="only LoRA and PEFT's DoRA are read; merge this one with the tool that made it",
    )
