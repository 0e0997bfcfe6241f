"""The Engine protocol: THE seam. Read this first.

An engine is the code for one model architecture. It is stateless: every method takes what it needs. Everything
above this line (training, generation, exchange, jobs, cli) speaks only this protocol and never names an engine;
everything below (one folder per engine) never imports another engine.

How a training runs, in the protocol's verbs:

    base    = engine.open(recipe.base)                       # headers only, no torch
    plan    = engine.estimate(base, recipe, shapes, machine) # no torch
    for spec in engine.encoders(base, recipe):               # no torch
        encoder = engine.open_encoder(base, recipe, spec.name, device, dtype)
        for item, want in ...engine.wants(item, recipe)...:  # cached under (input hash, spec.key, want.variant)
            tensors = engine.encode(encoder, want_input, want.variant)
    model   = engine.load_model(base, recipe, device, dtype)
    example = engine.draw(item, encoded, recipe, rng)        # what is random per visit
    batch   = engine.collate(examples)
    loss    = engine.loss(model, batch, recipe, rng)         # the objective lives inside

Torch-free methods (importing the engine's package must not import torch either): facts, open, estimate, wants,
shape, encoders, trained_at, layouts. The contract suite in tests/contracts runs every engine through all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tunesmith.data.item import Item, MediaFile
from tunesmith.events import Progress
from tunesmith.recipe.schema import BaseSection, MethodSection, Recipe

if TYPE_CHECKING:
    import torch

    from tunesmith.numeric.rng import BatchRng, ItemRng

# --- facts, without torch ---


@dataclass(frozen=True)
class Stage:
    """One thing that can be trained. `components` may train; `usual` train unless the recipe says otherwise.

    `adapted` are those that an adapter can go on, None where that is all of them.
    """

    name: str
    components: tuple[str, ...]
    usual: tuple[str, ...]
    methods: tuple[str, ...] = ("lora", "dora", "full", "scratch")
    adapted: tuple[str, ...] | None = None

    @property
    def adaptable(self) -> tuple[str, ...]:
        """The components that an adapter can go on."""
        return self.components if self.adapted is None else self.adapted


@dataclass(frozen=True)
class EngineFacts:
    """What an engine can do. What it cannot do is absent here, and the plan refuses it with the reason.

    `section` is the frozen dataclass of the engine's own knobs (recipe section `engine`), `request` the one of a
    generation request; both declared with `recipe.knobs.knob`.
    """

    name: str
    title: str
    media: tuple[str, ...]  # roles every item must have
    optional_media: tuple[str, ...]  # roles an item may have
    text: tuple[str, ...]  # text roles used
    stages: tuple[Stage, ...]  # the first is the usual one
    section: type
    request: type
    base_layouts: tuple[str, ...]
    minimum_items: int
    advised_items: tuple[int, int]
    licence: str  # of the usual weights
    architectures: tuple[str, ...]  # names understood by base.architecture (method scratch)
    presets: Mapping[str, Path] = field(default_factory=dict)  # preset name -> YAML file with measured results


# --- bases, without torch ---


@dataclass(frozen=True)
class Part:
    """One replaceable part of a base. `path` is None for a part that will be created (method scratch).

    `layout` names how the file is organised; `prefix` what its tensor names start with in a shared file.
    `parameters` is the count of numbers, `size_bytes` what they take on disk.
    """

    role: str
    path: Path | None
    layout: str
    prefix: str = ""
    parameters: int = 0
    size_bytes: int = 0


@dataclass(frozen=True)
class Base:
    """An opened base: read from headers only.

    `architecture` is JSON-ready, by role (what a config.json would say). `header_hash` is a SHA-256 over every
    tensor's name, shape and dtype; the bytes themselves are hashed by `weights.hashes` once and cached.
    """

    engine: str
    source: str
    architecture: Mapping[str, Any]
    parts: Mapping[str, Part]
    header_hash: str

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file or folder the base reads, without repeats."""
        return tuple(dict.fromkeys(part.path for part in self.parts.values() if part.path is not None))


@dataclass(frozen=True)
class Machine:
    """What a machine can do, as probed once and stored. Rates in operations per second by dtype name."""

    device: str
    memory_bytes: int
    threads: int
    bf16: bool
    matrix_rate: Mapping[str, float]
    convolution_rate: Mapping[str, float]
    disk_rate_bytes: float = 500e6


@dataclass(frozen=True)
class PhaseCost:
    """Cost of one phase. `operations` per unit of work, split by what runs them; `units` how often it happens."""

    name: str  # encode, load, train, validate, preview, save
    peak_bytes: int
    operations: Mapping[str, float]  # {"matrix": ..., "convolution": ...}, floating-point operations per unit
    units: int
    dtype: str = "fp32"


@dataclass(frozen=True)
class Estimate:
    """What `plan` stands on. Tested against a meta-device count and, at full size, against the real process."""

    phases: tuple[PhaseCost, ...]
    total_parameters: int
    trainable_parameters: int
    state_bytes: int
    checkpoint_bytes: int
    cache_bytes: int


# --- encoding ---


@dataclass(frozen=True)
class EncoderSpec:
    """A named encoder. `input` is the media or text role it reads; `key` changes whenever its output would."""

    name: str
    input: str
    key: str


@dataclass(frozen=True)
class Want:
    """One encoded thing an item needs. `label` is how `draw` finds it again (such as `image`, `image.flip`).

    For a text encoder `text` is what to encode (it may differ from the item's caption: the empty caption); for a
    media encoder it is None and `role` names the item's file.
    """

    label: str
    encoder: str
    role: str
    variant: str
    text: str | None = None


@dataclass(frozen=True)
class Encoder:
    """An opened encoder; `module` is the engine's own business."""

    spec: EncoderSpec
    module: Any
    settings: Any = None


# --- training ---


@dataclass(frozen=True)
class Model:
    """A loaded model. `components` may train and are torch modules by name; `frozen` are helpers that never train."""

    components: Mapping[str, torch.nn.Module]
    frozen: Mapping[str, torch.nn.Module]
    settings: Any = None  # schedules, tokenizers and the like: the engine's own frozen record


@dataclass(frozen=True)
class Example:
    """One visit of one item, ready to collate."""

    tensors: Mapping[str, Any]
    key: str
    concept: str
    weight: float


@dataclass(frozen=True)
class Batch:
    """Collated examples. `weights` has shape [batch]; `tensors` are the engine's own, on the CPU until `to`."""

    tensors: Mapping[str, Any]
    keys: tuple[str, ...]
    concepts: tuple[str, ...]
    weights: torch.Tensor


@dataclass(frozen=True)
class Loss:
    """`total` is a scalar to differentiate, `per_item` [batch] is detached and unweighted.

    total = mean(per_item * weights) (`numeric.losses.weighted_mean`): divided by the count of items, so that a weight
    counts where an item is alone in its batch too.
    """

    total: torch.Tensor
    per_item: torch.Tensor
    named: Mapping[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """One layer an adapter goes on. `canonical` is our frozen name, `live` the name in the running module.

    `kind` is linear, conv1x1 (both use `rank`) or conv (uses `conv_rank`).
    """

    component: str
    canonical: str
    live: str
    kind: str


class Layouts(Protocol):
    """The engine's frozen name tables: canonical names <-> every file layout. Pure data and rules, no torch."""

    folders: Mapping[str, str]  # component -> subfolder in a PEFT or diffusers tree, {"denoiser": "unet", ...}
    adapter_layouts: tuple[str, ...]  # such as ("kohya", "diffusers", "peft")
    weight_layouts: tuple[str, ...]  # such as ("single_file", "diffusers")
    prefixes: Mapping[str, tuple[str, ...]]  # layout -> what its stems begin with, for layouts told apart by that

    def adapter_stem(self, layout: str, component: str, canonical: str) -> str:
        """The layer's name in an adapter file of `layout` (without the `.lora_down.weight` part)."""
        ...

    def adapter_layers(self, layout: str, stem: str, base: Base) -> tuple[tuple[str, str], ...]:
        """Inverse of `adapter_stem`: the (component, canonical) layers that a stem stands for; () where it names none
        of `base`. Several where the layout fuses layers of one input: their outputs are stacked in this order."""
        ...

    def live_name(self, component: str, canonical: str) -> str:
        """The layer's name in the running module (libraries rename; files must not)."""
        ...

    def metadata(self, layout: str, base: Base) -> Mapping[str, str]:
        """Header metadata readers of `layout` look for, such as ss_base_model_version."""
        ...


# --- generation ---


@dataclass(frozen=True)
class Sampler:
    """A loaded base ready to generate. Adapters are attached to `components`."""

    components: Mapping[str, torch.nn.Module]
    frozen: Mapping[str, torch.nn.Module]
    settings: Any
    base: Base


@dataclass(frozen=True)
class Media:
    """A generated thing. `data` is a PIL image, an array [channels, samples] float32, or chart text, by `kind`."""

    kind: str
    data: Any
    parameters: Mapping[str, Any]


# --- the protocol ---


class Engine(Protocol):
    """One model architecture."""

    facts: EngineFacts
    layouts: Layouts

    def open(self, section: BaseSection) -> Base:
        """Headers only, torch-free. Raises WeightsError naming what was found and what this engine reads.

        With `section.path` None, parts come from `section.architecture` and `section.parts` (method scratch).
        """
        ...

    def estimate(self, base: Base, recipe: Recipe, shapes: Mapping[str, int], machine: Machine) -> Estimate:
        """Bytes and operations per phase; `shapes` counts the views of one epoch by shape. Torch-free."""
        ...

    def shape(self, item: Item, recipe: Recipe) -> str:
        """Which items can share a batch: equal strings can (such as `512x512`). Torch-free."""
        ...

    def wants(self, item: Item, recipe: Recipe) -> tuple[Want, ...]:
        """Everything to encode for this item. Torch-free."""
        ...

    def encoders(self, base: Base, recipe: Recipe) -> tuple[EncoderSpec, ...]:
        """The encoders this recipe needs, in the order to run them. Torch-free."""
        ...

    def trained_at(self, base: Base, recipe: Recipe) -> Mapping[str, Any]:
        """Knobs of a request that state the size or window trained at; {} where there is none. Torch-free."""
        ...

    def open_encoder(self, base: Base, recipe: Recipe, name: str, device: torch.device) -> Encoder:
        """Load one encoder. The caller drops it when its part of the cache is full."""
        ...

    def encode(self, encoder: Encoder, source: MediaFile | str, variant: str) -> Mapping[str, torch.Tensor]:
        """Deterministic: the same input, encoder and variant give the same bits on one machine. CPU tensors."""
        ...

    def load_model(self, base: Base, recipe: Recipe, device: torch.device, dtype: torch.dtype) -> Model:
        """Load what trains in `recipe.method.stage`. Parts without a path are created from the recipe's seed.

        Frozen weights come in `dtype`; components that train fully come in float32.
        """
        ...

    def targets(self, model: Model, method: MethodSection) -> tuple[Target, ...]:
        """The layers an adapter goes on, for the components that train."""
        ...

    def draw(
        self, item: Item, encoded: Callable[[str], Mapping[str, torch.Tensor]], recipe: Recipe, rng: ItemRng
    ) -> Example:
        """What is random per visit: crops, flips, caption shuffle and dropout. `encoded(label)` reads the cache."""
        ...

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Stack examples of one shape."""
        ...

    def loss(self, model: Model, batch: Batch, recipe: Recipe, rng: BatchRng) -> Loss:
        """The objective. Noise and timesteps come from `rng` (a function of each item's position) unless the batch
        carries recorded ones, which replay uses."""
        ...

    def tensors(self, base: Base, role: str) -> Iterator[tuple[str, torch.Tensor]]:
        """Every tensor of one part under canonical names, read one by one in the file's dtype."""
        ...

    def write_base(
        self, base: Base, replaced: Mapping[str, Mapping[str, torch.Tensor]], path: Path, layout: str, dtype: str
    ) -> Path:
        """A complete, self-contained base at `path`: parts in `replaced` (role -> canonical -> tensor) as given, all
        others copied from `base`. Written aside and renamed. Returns the path to open."""
        ...

    def trained_weights(self, model: Model) -> Mapping[str, Mapping[str, torch.Tensor]]:
        """role -> canonical name -> tensor of the model's components, as `write_base` takes them."""
        ...

    def load_sampler(self, base: Base, device: torch.device, dtype: torch.dtype, model: Model | None = None) -> Sampler:
        """A base ready to generate; with `model`, its live modules are shared instead of loaded again."""
        ...

    def sample(
        self, sampler: Sampler, request: Any, should_stop: Callable[[], bool] = lambda: False
    ) -> Iterator[Progress | Media]:
        """Progress events, then the Media of the request (an instance of `facts.request`). Stops when told."""
        ...

    def measures(self, stage: str) -> Mapping[str, Callable[[Model, Batch, Recipe], float]]:
        """The stage's own quality figures on held-out batches, higher or lower as its name says (psnr_db, ...)."""
        ...
