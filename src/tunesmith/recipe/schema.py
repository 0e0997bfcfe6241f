"""The sections of a recipe. Frozen; functions take the section they need, never the whole.

Allowed knob types: bool, int, float, str, tuple[str, ...], tuple[float, ...], dict[str, float], and `X | None`.
None always means "chosen for you" or "off", as the help says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith.recipe.knobs import knob


@dataclass(frozen=True)
class DataSection:
    """What is learned from."""

    paths: tuple[str, ...] = knob(help="folders of items, read in place", factory=tuple)
    layout: str = knob("auto", choices=("auto", "flat", "repeats", "metadata"), help="how the folders are organised")
    caption_extensions: tuple[str, ...] = knob((".txt", ".caption"), help="caption sidecars looked for, in this order")
    default_caption: str = knob("", help="caption of items that have none; {concept} and {trigger} are filled in")
    holdout_fraction: float = knob(0.1, low=0, high=0.9, help="share of the groups kept out of training to measure by")
    holdout_paths: tuple[str, ...] = knob(help="folders held out instead of a share of the items", factory=tuple)
    prior: str = knob(
        "none",
        choices=("none", "given", "generated"),
        help="prior preservation: items of the wider class mixed into every batch",
    )
    prior_paths: tuple[str, ...] = knob(help="folders of prior items, when `prior` is given", factory=tuple)
    prior_prompts: tuple[str, ...] = knob(help="prompts the base draws prior items from, if generated", factory=tuple)
    prior_items: int = knob(64, low=1, high=100_000, help="how many prior items the base generates")
    prior_fraction: float = knob(0.5, above=0, high=0.9, help="share of every batch that comes from the prior items")
    prior_weight: float = knob(1.0, low=0, high=10, help="weight of a prior item's loss")
    shuffle_tags: bool = knob(False, help="shuffle the comma-separated pieces of a caption at every visit")
    keep_tags: int = knob(1, low=0, high=1000, help="leading pieces that shuffling and dropout leave alone")
    tag_dropout: float = knob(0.0, low=0, high=1, help="chance to drop each piece that is not kept")
    caption_dropout: float = knob(0.0, low=0, high=1, help="chance to drop the whole caption at a visit")


@dataclass(frozen=True)
class BaseSection:
    """What a run starts from."""

    path: str | None = knob(None, help="a file, a folder, a hub id, or `starter`; not used by method scratch")
    parts: dict[str, str] = knob(help="replacements by role, such as {autoencoder: vae.safetensors}", factory=dict)
    init: str | None = knob(None, help="adapter or weights to start from: a checkpoint id or a file")
    architecture: str | None = knob(None, help="for method scratch: a named architecture or a JSON file of sizes")
    allow_download: bool = knob(False, help="let a hub id be downloaded; otherwise nothing touches the network")


@dataclass(frozen=True)
class MethodSection:
    """How it is taught."""

    name: str = knob("lora", choices=("lora", "dora", "full", "scratch"), help="what kind of training")
    stage: str = knob("denoiser", help="which stage of the engine trains")
    components: tuple[str, ...] = knob(help="which components train; empty: the stage's usual ones", factory=tuple)
    rank: int = knob(16, low=1, high=1024, help="rank of the adapter on linear and 1x1 layers")
    alpha: float | None = knob(None, above=0, high=4096, help="scale numerator of the adapter; None: the rank")
    conv_rank: int | None = knob(None, low=1, high=1024, help="rank on spatial convolutions; None: they are left out")
    conv_alpha: float | None = knob(None, above=0, high=4096, help="alpha on spatial convolutions; None: conv_rank")
    dropout: float = knob(0.0, low=0, high=0.95, help="dropout on the adapter's input")
    gradient_checkpointing: bool = knob(False, help="recompute activations in the backward pass: less memory, slower")


@dataclass(frozen=True)
class OptimiserSection:
    """How the weights move."""

    name: str = knob("adamw", choices=("adamw", "adamw8bit", "adafactor", "lion", "prodigy"), help="the update rule")
    rate: float = knob(1e-4, low=0, high=10, help="learning rate; prodigy wants 1.0")
    rates: dict[str, float] = knob(
        low=0, high=10, help="learning rates by component; 0 leaves a component out", factory=dict
    )
    betas: tuple[float, ...] = knob((0.9, 0.999), low=0, high=1, help="moment decays")
    eps: float = knob(1e-8, above=0, high=1, help="denominator floor")
    weight_decay: float = knob(0.01, low=0, high=10, help="decoupled weight decay")
    clip_norm: float | None = knob(1.0, above=0, help="gradient norm limit over all that trains; None: off")
    schedule: str = knob(
        "constant",
        choices=("constant", "linear", "cosine", "cosine_restarts", "inverse"),
        help="learning rate over the run",
    )
    warmup_steps: int = knob(0, low=0, unit="steps", help="linear warm-up at the start")
    restarts: int = knob(1, low=1, high=1000, help="cosine cycles, when the schedule is cosine_restarts")
    ema_decay: float | None = knob(None, above=0, high=0.999999, help="keep an exponential moving average; None: off")


@dataclass(frozen=True)
class LengthSection:
    """How long."""

    steps: int | None = knob(None, low=1, high=10_000_000, unit="steps", help="optimiser steps; beats epochs")
    epochs: int | None = knob(None, low=1, high=1_000_000, help="passes over the items, repeats counted")
    batch_items: int = knob(1, low=1, high=4096, unit="items", help="items in one forward pass")
    accumulation: int = knob(1, low=1, high=4096, help="forward passes per optimiser step")
    max_minutes: float | None = knob(None, above=0, unit="minutes", help="stop cleanly, state saved, after this time")
    seed: int = knob(0, low=0, high=2**63 - 1, help="all randomness is a function of this and the item's position")


@dataclass(frozen=True)
class OutputSection:
    """What comes out."""

    name: str = knob("untitled", help="name of the checkpoint, its files and its job")
    concepts: dict[str, str] = knob(help="what is taught: {concept: trigger word}", factory=dict)
    save_every_steps: int | None = knob(None, low=1, unit="steps", help="keep a checkpoint this often; None: the last")
    state_every_minutes: float = knob(5.0, above=0, unit="minutes", help="at most this much work is lost to a crash")
    state_every_steps: int | None = knob(None, low=1, unit="steps", help="also write the state this often")
    validate_every_steps: int | None = knob(None, low=1, unit="steps", help="measure held-out loss; None: ten times")
    preview_every_steps: int | None = knob(None, low=1, unit="steps", help="draw previews this often; None: never")
    preview_prompts: tuple[str, ...] = knob(help="prompts of the previews", factory=tuple)
    dtype: str = knob("fp16", choices=("fp16", "bf16", "fp32"), help="precision of exported files")
    exports: tuple[str, ...] = knob(help="layouts to export when done, such as kohya, diffusers", factory=tuple)
    folder: str | None = knob(None, help="where exports go; None: the job's folder")


@dataclass(frozen=True)
class ResourceSection:
    """What it may use."""

    device: str = knob("auto", help="auto, cpu, cuda, cuda:1, mps")
    precision: str = knob("auto", choices=("auto", "fp32", "bf16", "fp16"), help="precision of the frozen base")
    threads: int | None = knob(None, low=1, high=1024, help="CPU threads; part of the state, since it changes bits")
    memory_limit_bytes: int | None = knob(None, low=1, unit="bytes", help="refuse plans above this; None: what is free")
    disk_reserve_bytes: int = knob(1 << 30, low=0, unit="bytes", help="room that must stay free on the disk")
    cache_limit_bytes: int = knob(20 << 30, low=0, unit="bytes", help="size limit of the encoded cache")


@dataclass(frozen=True)
class Recipe:
    """Everything the user asked for. `engine` is the engine's name; `settings` an instance of its own knob section."""

    engine: str
    settings: (
        Any  # the engine's frozen knob section (facts.section); key `engine` in YAML, with `name` beside its knobs
    )
    data: DataSection = DataSection()
    base: BaseSection = BaseSection()
    method: MethodSection = MethodSection()
    optimiser: OptimiserSection = OptimiserSection()
    length: LengthSection = LengthSection()
    output: OutputSection = OutputSection()
    resources: ResourceSection = ResourceSection()


SECTIONS: Mapping[str, type] = {
    "data": DataSection,
    "base": BaseSection,
    "method": MethodSection,
    "optimiser": OptimiserSection,
    "length": LengthSection,
    "output": OutputSection,
    "resources": ResourceSection,
}
