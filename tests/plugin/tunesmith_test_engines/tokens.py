"""Engine `test_tokens`: next-token prediction over sounds that are encoded once, whole, and cropped at every visit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.data.item import Item, MediaFile
from tunesmith.engines.protocol import (
    Base,
    Batch,
    Encoder,
    EncoderSpec,
    EngineFacts,
    Estimate,
    Example,
    Loss,
    Machine,
    Media,
    Model,
    PhaseCost,
    Sampler,
    Stage,
    Target,
    Want,
)
from tunesmith.events import Progress
from tunesmith.recipe.knobs import knob
from tunesmith.recipe.schema import BaseSection, MethodSection, Recipe
from tunesmith_test_engines import token_shapes as sizes
from tunesmith_test_engines.files import BaseFiles, count, formula, part_hash, read_part
from tunesmith_test_engines.names import TestLayouts

if TYPE_CHECKING:
    import torch

    from tunesmith.numeric.rng import BatchRng, ItemRng

PROCESS_BYTES = 400 << 20
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


@dataclass(frozen=True)
class TokensSection:
    """The engine's own knobs."""

    crop_tokens: int = knob(16, low=2, high=256, unit="tokens", help="length of a crop")


@dataclass(frozen=True)
class TokensRequest:
    """What to play."""

    prompt: str = knob("", help="what to play")
    seed: int = knob(0, low=0, high=2**63 - 1, help="same seed, same sound")
    tokens: int = knob(8, low=1, high=1000, unit="tokens", help="how long")
    temperature: float = knob(1.0, above=0, high=10, help="how daring")


class TokensEngine:
    """Implements the Engine protocol."""

    facts = EngineFacts(
        name="test_tokens",
        title="Test tokens",
        media=("audio",),
        optional_media=(),
        text=("caption",),
        stages=(Stage("decoder", ("decoder",), ("decoder",)),),
        section=TokensSection,
        request=TokensRequest,
        base_layouts=("single_file", "folder"),
        minimum_items=1,
        advised_items=(4, 100),
        licence="CC0-1.0",
        architectures=tuple(sizes.NAMED),
    )
    layouts = TestLayouts(
        folders={"decoder": "decoder"}, stems={"decoder": "lora_decoder"}, layers_of=sizes.layers_of, live_prefix={}
    )
    files = BaseFiles("test_tokens", sizes.ROLES, sizes.shapes_of, sizes.NAMED)

    def open(self, section: BaseSection) -> Base:
        """Headers only."""
        return self.files.open(section)

    def estimate(self, base: Base, recipe: Recipe, shapes: Mapping[str, int], machine: Machine) -> Estimate:
        """Two operations a weight and token, three times that for a step."""
        tensors = {role: sizes.shapes_of(role, base.architecture[role]) for role in base.parts}
        trainable = count(tensors["decoder"])
        if recipe.method.name in ("lora", "dora"):
            layers = [tensors["decoder"][f"{name}.weight"] for name in sizes.layers_of(base, "decoder")]
            trainable = sum(recipe.method.rank * (rows + columns) for rows, columns in layers)
        total = sum(count(shape) for shape in tensors.values())
        per_item = 2.0 * total * recipe.settings.crop_tokens
        steps, views = recipe.length.steps or 1, sum(shapes.values())
        peak = PROCESS_BYTES + 4 * (total + 4 * trainable)
        return Estimate(
            phases=(
                PhaseCost("encode", peak, {"matrix": per_item}, views),
                PhaseCost("train", peak, {"matrix": 3 * per_item * recipe.length.batch_items}, steps),
            ),
            total_parameters=total,
            trainable_parameters=trainable,
            state_bytes=12 * trainable,
            checkpoint_bytes=BYTES[recipe.output.dtype] * trainable,
            cache_bytes=8 * views * sizes.RATE * 10,
        )

    def shape(self, item: Item, recipe: Recipe) -> str:
        """Crops are equally long, so any two items can share a batch."""
        return f"{recipe.settings.crop_tokens} tokens"

    def wants(self, item: Item, recipe: Recipe) -> tuple[Want, ...]:
        """The whole sound as tokens."""
        return (Want("tokens", "codec", "audio", ""),)

    def encoders(self, base: Base, recipe: Recipe) -> tuple[EncoderSpec, ...]:
        """The codec."""
        return (EncoderSpec("codec", "audio", part_hash(base, "codec")),)

    def trained_at(self, base: Base, recipe: Recipe) -> Mapping[str, Any]:
        """The length of a crop."""
        return {"tokens": recipe.settings.crop_tokens}

    def open_encoder(self, base: Base, recipe: Recipe, name: str, device: torch.device) -> Encoder:
        """The codec."""
        return Encoder(self.encoders(base, recipe)[0], self._module(base, "codec", recipe.length.seed).to(device))

    def encode(self, encoder: Encoder, source: MediaFile | str, variant: str) -> Mapping[str, torch.Tensor]:
        """int64 [tokens] of the whole file."""
        from tunesmith_test_engines import token_nets

        assert isinstance(source, MediaFile)
        return {"tokens": encoder.module.encode(token_nets.read_samples(source.path))}

    def load_model(self, base: Base, recipe: Recipe, device: torch.device, dtype: torch.dtype) -> Model:
        """The decoder; the codec is not needed to train it."""
        import torch

        own = torch.float32 if recipe.method.name in ("full", "scratch") else dtype
        decoder = self._module(base, "decoder", recipe.length.seed).to(device, own)
        return Model({"decoder": decoder}, {}, {"dtype": own, "device": device, "architecture": base.architecture})

    def targets(self, model: Model, method: MethodSection) -> tuple[Target, ...]:
        """The linear layers; the head is a raw parameter and stays as it is."""
        names = sizes.shapes_of("decoder", model.settings["architecture"]["decoder"])
        layers = [name.removesuffix(".weight") for name in names if name.startswith("layers.")]
        return tuple(Target("decoder", name, self.layouts.live_name("decoder", name), "linear") for name in layers)

    def draw(
        self, item: Item, encoded: Callable[[str], Mapping[str, torch.Tensor]], recipe: Recipe, rng: ItemRng
    ) -> Example:
        """A random crop with its offset; the caption, dropped now and then."""
        from tunesmith_test_engines import token_nets

        tokens, offset = token_nets.crop(encoded("tokens")["tokens"], recipe.settings.crop_tokens, rng.uniform("crop"))
        dropped = rng.uniform("caption_dropout") < recipe.data.caption_dropout
        words = token_nets.word_ids("" if dropped else item.text.get("caption", ""))
        return Example({"tokens": tokens, "offset": offset, "words": words}, item.key, item.concept, item.weight)

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Stack."""
        from tunesmith_test_engines import token_nets

        return token_nets.collate(examples)

    def loss(self, model: Model, batch: Batch, recipe: Recipe, rng: BatchRng) -> Loss:
        """Next token; nothing is random here."""
        from tunesmith_test_engines import token_nets

        return token_nets.loss(model, batch)

    def tensors(self, base: Base, role: str) -> Iterator[tuple[str, torch.Tensor]]:
        """One part, one by one."""
        return read_part(base.parts[role])

    def write_base(
        self, base: Base, replaced: Mapping[str, Mapping[str, torch.Tensor]], path: Path, layout: str, dtype: str
    ) -> Path:
        """A complete base."""
        import torch

        wide = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[dtype]
        parts = {}
        for role in self.files.roles:
            given = replaced[role] if role in replaced else self._whole(base, role, 0)
            parts[role] = {name: tensor.detach().to("cpu", wide) for name, tensor in given.items()}
        return self.files.write(path, layout, parts, base.architecture)

    def trained_weights(self, model: Model) -> Mapping[str, Mapping[str, torch.Tensor]]:
        """Live weights; canonical and live names agree here."""
        return {role: dict(module.state_dict()) for role, module in model.components.items()}

    def load_sampler(self, base: Base, device: torch.device, dtype: torch.dtype, model: Model | None = None) -> Sampler:
        """Decoder and codec."""
        decoder = model.components["decoder"] if model is not None else self._module(base, "decoder", 0)
        if model is None:
            decoder = decoder.to(device, dtype)
        return Sampler({"decoder": decoder}, {"codec": self._module(base, "codec", 0).to(device)}, None, base)

    def sample(
        self, sampler: Sampler, request: Any, should_stop: Callable[[], bool] = lambda: False
    ) -> Iterator[Progress | Media]:
        """Progress, then the sound."""
        from tunesmith_test_engines import token_nets

        return token_nets.sample(sampler, request, should_stop)

    def measures(self, stage: str) -> Mapping[str, Callable[[Model, Batch, Recipe], float]]:
        """Next-token accuracy."""
        from tunesmith_test_engines import token_nets

        return {"accuracy": token_nets.accuracy}

    def _whole(self, base: Base, role: str, seed: int) -> dict[str, torch.Tensor]:
        if base.parts[role].path is None:
            return weights_by_formula(role, base.architecture[role], seed)
        return dict(read_part(base.parts[role]))

    def _module(self, base: Base, role: str, seed: int) -> torch.nn.Module:
        from tunesmith_test_engines.token_nets import MODULES

        module = MODULES[role](base.architecture[role])
        module.load_state_dict(self._whole(base, role, seed))
        return module.eval()


def weights_by_formula(role: str, architecture: Mapping[str, Any], seed: int) -> dict[str, torch.Tensor]:
    """The codec's levels are evenly spaced; the rest is drawn."""
    import torch

    if role == "codec":
        return {"levels": torch.linspace(-1, 1, architecture["levels"])}
    return formula(sizes.shapes_of(role, architecture), seed)


engine = TokensEngine()


def write_tokens_base(path: Path, architecture: str = "tiny", layout: str = "single_file", seed: int = 0) -> Path:
    """A base with weights by formula, for tests."""
    base = engine.open(BaseSection(architecture=architecture))
    weights = {role: weights_by_formula(role, base.architecture[role], seed) for role in engine.files.roles}
    return engine.write_base(base, weights, path, layout, "fp32")
