"""Engine `test_pictures`: a latent denoiser with captions and a conditioning picture, small enough for every test."""

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
from tunesmith_test_engines import picture_shapes as sizes
from tunesmith_test_engines.files import BaseFiles, count, formula, part_hash, read_part
from tunesmith_test_engines.names import TestLayouts

if TYPE_CHECKING:
    import torch

    from tunesmith.numeric.rng import BatchRng, ItemRng

PROCESS_BYTES = 400 << 20  # an interpreter with torch, before any weight
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


@dataclass(frozen=True)
class PicturesSection:
    """The engine's own knobs."""

    resolution: int = knob(16, low=8, high=64, unit="pixels", help="side of the square bucket")
    buckets: bool = knob(True, help="also use buckets half as wide again")
    flip: bool = knob(False, help="mirror every second visit")


@dataclass(frozen=True)
class PicturesRequest:
    """What to draw."""

    prompt: str = knob("", help="what to draw")
    negative: str = knob("", help="what to keep away from")
    seed: int = knob(0, low=0, high=2**63 - 1, help="same seed, same picture")
    steps: int = knob(4, low=1, high=100, help="denoising steps")
    guidance: float = knob(2.0, low=0, high=30, help="how strongly the prompt pulls")
    width: int = knob(16, low=8, high=64, unit="pixels", help="width of the picture")
    height: int = knob(16, low=8, high=64, unit="pixels", help="height of the picture")
    control: str | None = knob(None, help="conditioning picture")


def _facts() -> EngineFacts:
    return EngineFacts(
        name="test_pictures",
        title="Test pictures",
        media=("image",),
        optional_media=("control",),
        text=("caption",),
        stages=(
            Stage("denoiser", ("denoiser", "text_encoder"), ("denoiser",)),
            Stage("autoencoder", ("autoencoder",), ("autoencoder",), ("full", "scratch")),
        ),
        section=PicturesSection,
        request=PicturesRequest,
        base_layouts=("single_file", "folder"),
        minimum_items=1,
        advised_items=(4, 100),
        licence="CC0-1.0",
        architectures=tuple(sizes.NAMED),
    )


def live_text(recipe: Recipe) -> bool:
    """Whether captions are encoded inside the step: the encoder trains, or the caption changes per visit."""
    return "text_encoder" in recipe.method.components or recipe.data.shuffle_tags or recipe.data.tag_dropout > 0


class PicturesEngine:
    """Implements the Engine protocol."""

    facts = _facts()
    layouts = TestLayouts(
        folders={"denoiser": "denoiser", "text_encoder": "text_encoder"},
        stems={"denoiser": "lora_unet", "text_encoder": "lora_te"},
        layers_of=sizes.layers_of,
        live_prefix={"text_encoder": sizes.TEXT_PREFIX},
    )
    files = BaseFiles("test_pictures", sizes.ROLES, sizes.shapes_of, sizes.NAMED)

    def open(self, section: BaseSection) -> Base:
        """Headers only."""
        return self.files.open(section)

    def estimate(self, base: Base, recipe: Recipe, shapes: Mapping[str, int], machine: Machine) -> Estimate:
        """Counts from the headers; two operations a weight and latent pixel, three times that for a step."""
        method, area = recipe.method, (recipe.settings.resolution // sizes.FACTOR) ** 2
        trains = self._trains(recipe)
        tensors = {role: sizes.shapes_of(role, base.architecture[role]) for role in base.parts}
        if method.name in ("lora", "dora"):
            trainable = sum(sizes.adapted_parameters(tensors[role], method.rank, method.conv_rank) for role in trains)
        else:
            trainable = sum(count(tensors[role]) for role in trains)
        total = sum(count(shape) for shape in tensors.values())
        per_item = 2.0 * total * area
        views, steps = sum(shapes.values()), recipe.length.steps or 1
        peak = PROCESS_BYTES + 4 * (total + 4 * trainable)
        return Estimate(
            phases=(
                PhaseCost("encode", peak, {"convolution": per_item}, views),
                PhaseCost("train", peak, {"convolution": 3 * per_item * recipe.length.batch_items}, steps),
            ),
            total_parameters=total,
            trainable_parameters=trainable,
            state_bytes=12 * trainable,
            checkpoint_bytes=BYTES[recipe.output.dtype] * trainable,
            cache_bytes=views * 4 * (2 * base.architecture["denoiser"]["latent"] + 12) * area,
        )

    def shape(self, item: Item, recipe: Recipe) -> str:
        """The nearest bucket by aspect ratio."""
        side, facts = recipe.settings.resolution, item.media["image"].facts
        if not recipe.settings.buckets:
            return f"{side}x{side}"
        long = side * 3 // 2 // 4 * 4
        ratio = facts["width"] / facts["height"]
        return min(
            (abs(ratio - width / height), f"{width}x{height}")
            for width, height in ((side, side), (long, side), (side, long))
        )[1]

    def wants(self, item: Item, recipe: Recipe) -> tuple[Want, ...]:
        """The picture (and its mirror), the conditioning picture, the caption and the empty one."""
        shape, flip = self.shape(item, recipe), recipe.settings.flip
        media = "pixels" if recipe.method.stage == "autoencoder" else "image"
        found = [Want("image", media, "image", shape)]
        if flip:
            found.append(Want("image.flip", media, "image", f"{shape}/flip"))
        if recipe.method.stage == "autoencoder":
            return tuple(found)
        if "control" in item.media:
            found.append(Want("control", "control", "control", shape))
            if flip:
                found.append(Want("control.flip", "control", "control", f"{shape}/flip"))
        if not live_text(recipe):
            found.append(Want("caption", "text", "caption", "", item.text.get("caption", "")))
            if recipe.data.caption_dropout > 0:
                found.append(Want("empty", "text", "caption", "", ""))
        return tuple(found)

    def encoders(self, base: Base, recipe: Recipe) -> tuple[EncoderSpec, ...]:
        """Text first, then pictures."""
        if recipe.method.stage == "autoencoder":
            return (EncoderSpec("pixels", "image", "pixels-1"),)
        image = EncoderSpec("image", "image", part_hash(base, "autoencoder"))
        control = EncoderSpec("control", "control", "pixels-1")
        text = () if live_text(recipe) else (EncoderSpec("text", "caption", part_hash(base, "text_encoder")),)
        return (*text, image, control)

    def trained_at(self, base: Base, recipe: Recipe) -> Mapping[str, Any]:
        """The square bucket."""
        return dict.fromkeys(("width", "height"), recipe.settings.resolution)

    def open_encoder(self, base: Base, recipe: Recipe, name: str, device: torch.device) -> Encoder:
        """The module behind one encoder; pixels need none."""
        spec = next(spec for spec in self.encoders(base, recipe) if spec.name == name)
        role = {"text": "text_encoder", "image": "autoencoder"}.get(name)
        if role is None:
            return Encoder(spec, None)
        return Encoder(spec, self._module(base, role, recipe.length.seed).to(device))

    def encode(self, encoder: Encoder, source: MediaFile | str, variant: str) -> Mapping[str, torch.Tensor]:
        """One picture or caption."""
        from tunesmith_test_engines import picture_nets

        return picture_nets.encode(encoder, source, variant)

    def load_model(self, base: Base, recipe: Recipe, device: torch.device, dtype: torch.dtype) -> Model:
        """Components that train, frozen parts beside them."""
        import torch

        trains = self._trains(recipe)
        roles = set(trains)
        if recipe.method.stage == "denoiser":
            roles |= {"denoiser"} | ({"text_encoder"} if live_text(recipe) else set())
        full = recipe.method.name in ("full", "scratch")
        own = torch.float32 if full else dtype
        modules = {
            role: self._module(base, role, recipe.length.seed).to(device, own)
            for role in self.files.roles
            if role in roles
        }
        in_step = {*trains, "denoiser"} if recipe.method.stage == "denoiser" else set(trains)
        return Model(
            components={role: module for role, module in modules.items() if role in in_step},
            frozen={role: module for role, module in modules.items() if role not in in_step},
            settings={"dtype": own, "device": device, "architecture": base.architecture},
        )

    def targets(self, model: Model, method: MethodSection) -> tuple[Target, ...]:
        """Every linear and 1x1 layer of what trains; 3x3 ones where `conv_rank` is given."""
        found = []
        for component in method.components or self.facts.stages[0].usual:
            shapes = sizes.shapes_of(component, model.settings["architecture"][component])
            for name, shape in shapes.items():
                canonical, kind = name.removesuffix(".weight"), sizes.kind_of(name, shape)
                if len(shape) < 2 or "embedding" in name or (kind == "conv" and method.conv_rank is None):
                    continue
                found.append(Target(component, canonical, self.layouts.live_name(component, canonical), kind))
        return tuple(found)

    def draw(
        self, item: Item, encoded: Callable[[str], Mapping[str, torch.Tensor]], recipe: Recipe, rng: ItemRng
    ) -> Example:
        """Mirror, a draw of the latents, caption shuffle and dropout."""
        import torch

        mirrored = ".flip" if recipe.settings.flip and rng.uniform("flip") < 0.5 else ""
        picture = encoded(f"image{mirrored}")
        if recipe.method.stage == "autoencoder":
            return Example({"pixels": picture["pixels"]}, item.key, item.concept, item.weight)
        mean, std = picture["mean"], picture["std"]
        latents = mean + std * torch.randn(mean.shape, generator=rng.generator("latents"))
        height, width = mean.shape[1] * sizes.FACTOR, mean.shape[2] * sizes.FACTOR
        control = encoded(f"control{mirrored}")["pixels"] if "control" in item.media else torch.zeros(3, height, width)
        text = self._text(item, encoded, recipe, rng)
        return Example({"latents": latents, "control": control, **text}, item.key, item.concept, item.weight)

    def _text(
        self, item: Item, encoded: Callable[[str], Mapping[str, torch.Tensor]], recipe: Recipe, rng: ItemRng
    ) -> dict[str, torch.Tensor]:
        dropped = rng.uniform("caption_dropout") < recipe.data.caption_dropout
        if not live_text(recipe):
            return {"states": encoded("empty" if dropped else "caption")["states"]}
        from tunesmith.data.captions import shuffle_and_drop
        from tunesmith_test_engines.picture_nets import token_ids

        caption = item.text.get("caption", "")
        drawn = shuffle_and_drop(caption, recipe.data, uniform=rng.uniform, permutation=rng.permutation)
        return {"ids": token_ids(drawn)}

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Stack."""
        from tunesmith_test_engines import picture_nets

        return picture_nets.collate(examples)

    def loss(self, model: Model, batch: Batch, recipe: Recipe, rng: BatchRng) -> Loss:
        """Noise prediction, or rebuilding pictures."""
        from tunesmith_test_engines import picture_nets

        if recipe.method.stage == "autoencoder":
            return picture_nets.autoencoder_loss(model, batch)
        return picture_nets.denoiser_loss(model, batch, rng)

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
        """Live weights under canonical names."""
        prefix = self.layouts.live_prefix
        return {
            role: {prefix.get(role, "") + name: tensor for name, tensor in module.state_dict().items()}
            for role, module in model.components.items()
        }

    def load_sampler(self, base: Base, device: torch.device, dtype: torch.dtype, model: Model | None = None) -> Sampler:
        """Everything needed to draw; live modules of `model` instead of loaded ones."""
        live = {**model.frozen, **model.components} if model is not None else {}
        parts = {role: live.get(role) or self._module(base, role, 0).to(device, dtype) for role in self.files.roles}
        own = model.settings["dtype"] if model is not None else dtype
        return Sampler(
            components={role: parts[role] for role in ("denoiser", "text_encoder")},
            frozen={"autoencoder": parts["autoencoder"]},
            settings={"dtype": own},
            base=base,
        )

    def sample(
        self, sampler: Sampler, request: Any, should_stop: Callable[[], bool] = lambda: False
    ) -> Iterator[Progress | Media]:
        """Progress, then the picture."""
        from tunesmith_test_engines import picture_nets

        return picture_nets.sample(sampler, request, should_stop)

    def measures(self, stage: str) -> Mapping[str, Callable[[Model, Batch, Recipe], float]]:
        """How well pictures are rebuilt."""
        from tunesmith_test_engines import picture_nets

        return {"psnr_db": picture_nets.psnr_db} if stage == "autoencoder" else {}

    def _trains(self, recipe: Recipe) -> tuple[str, ...]:
        stage = next(stage for stage in self.facts.stages if stage.name == recipe.method.stage)
        return recipe.method.components or stage.usual

    def _whole(self, base: Base, role: str, seed: int) -> dict[str, torch.Tensor]:
        if base.parts[role].path is None:
            return formula(sizes.shapes_of(role, base.architecture[role]), seed)
        return dict(read_part(base.parts[role]))

    def _module(self, base: Base, role: str, seed: int) -> torch.nn.Module:
        from tunesmith_test_engines.picture_nets import MODULES

        module = MODULES[role](base.architecture[role])
        prefix = self.layouts.live_prefix.get(role, "")
        weights = {name.removeprefix(prefix): tensor for name, tensor in self._whole(base, role, seed).items()}
        module.load_state_dict(weights)
        return module.eval()


engine = PicturesEngine()


def write_pictures_base(path: Path, architecture: str = "tiny", layout: str = "single_file", seed: int = 0) -> Path:
    """A base with weights by formula, for tests. `seed` makes different ones."""
    base = engine.open(BaseSection(architecture=architecture))
    weights = {role: formula(sizes.shapes_of(role, base.architecture[role]), seed) for role in engine.files.roles}
    return engine.write_base(base, weights, path, layout, "fp32")
