"""The engine: the protocol's verbs, each handed to the module that does it. Importing this does not import torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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
    Layouts,
    Loss,
    Machine,
    Media,
    Model,
    Sampler,
    Target,
    Want,
)
from tunesmith.engines.stable_audio import choices
from tunesmith.engines.stable_audio.architecture import ROLES
from tunesmith.engines.stable_audio.estimate import estimate
from tunesmith.engines.stable_audio.facts import FACTS
from tunesmith.engines.stable_audio.layouts import StableAudioLayouts
from tunesmith.engines.stable_audio.open import open_base
from tunesmith.events import Progress
from tunesmith.recipe.schema import BaseSection, MethodSection, Recipe

if TYPE_CHECKING:
    import torch

    from tunesmith.numeric.rng import BatchRng, ItemRng


class StableAudio:
    """Stable Audio Open: latent diffusion of sounds from captions."""

    facts: EngineFacts = FACTS
    layouts: Layouts = StableAudioLayouts()

    def open(self, section: BaseSection) -> Base:
        """A base from headers: diffusers folder, original checkpoint, hub id, or sizes alone."""
        return open_base(section)

    def estimate(self, base: Base, recipe: Recipe, shapes: Mapping[str, int], machine: Machine) -> Estimate:
        """Bytes and operations per phase."""
        return estimate(base, recipe, shapes, machine)

    def shape(self, item: Item, recipe: Recipe) -> str:
        """The window's length: all items share it."""
        return choices.shape_of(item, recipe)

    def wants(self, item: Item, recipe: Recipe) -> tuple[Want, ...]:
        """Latents (also upside down), caption states; samples for stage autoencoder."""
        return choices.wants_of(item, recipe)

    def encoders(self, base: Base, recipe: Recipe) -> tuple[EncoderSpec, ...]:
        """text_encoder, autoencoder; or samples for stage autoencoder."""
        return choices.encoder_specs(base, recipe)

    def trained_at(self, base: Base, recipe: Recipe) -> Mapping[str, Any]:
        """The window, in seconds."""
        return choices.trained_at(base, recipe)

    def open_encoder(self, base: Base, recipe: Recipe, name: str, device: torch.device) -> Encoder:
        """Load one encoder, in float32."""
        from tunesmith.engines.stable_audio.encode import open_encoder

        return open_encoder(base, recipe, name, device)

    def encode(self, encoder: Encoder, source: MediaFile | str, variant: str) -> Mapping[str, torch.Tensor]:
        """One input through one encoder."""
        from tunesmith.engines.stable_audio.encode import encode

        return encode(encoder, source, variant)

    def load_model(self, base: Base, recipe: Recipe, device: torch.device, dtype: torch.dtype) -> Model:
        """What trains in the stage, and the frozen modules its loss needs."""
        from tunesmith.engines.stable_audio.model import load_model

        return load_model(base, recipe, device, dtype)

    def targets(self, model: Model, method: MethodSection) -> tuple[Target, ...]:
        """Attention and feed-forward layers of the denoiser."""
        from tunesmith.engines.stable_audio.model import targets_of

        return targets_of(model, method)

    def draw(
        self, item: Item, encoded: Callable[[str], Mapping[str, torch.Tensor]], recipe: Recipe, rng: ItemRng
    ) -> Example:
        """One visit: a window of the sound, upside down or not, latents redrawn, conditions dropped or not."""
        from tunesmith.engines.stable_audio.draw import draw

        return draw(item, encoded, recipe, rng)

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Stack examples of one window."""
        from tunesmith.engines.stable_audio.draw import collate

        return collate(examples)

    def loss(self, model: Model, batch: Batch, recipe: Recipe, rng: BatchRng) -> Loss:
        """Velocity prediction, or the autoencoder's reconstruction."""
        if recipe.method.stage == "autoencoder":
            from tunesmith.engines.stable_audio.autoencoder_stage import autoencoder_loss

            return autoencoder_loss(model, batch, recipe, rng)
        from tunesmith.engines.stable_audio.loss import denoiser_loss

        return denoiser_loss(model, batch, recipe, rng)

    def tensors(self, base: Base, role: str) -> Iterator[tuple[str, torch.Tensor]]:
        """Every tensor of one part under canonical names."""
        from tunesmith.engines.stable_audio.load import read_part

        return read_part(base.parts[role], base.architecture[role]) if role in ROLES else iter(())

    def write_base(
        self, base: Base, replaced: Mapping[str, Mapping[str, torch.Tensor]], path: Path, layout: str, dtype: str
    ) -> Path:
        """A complete base as a diffusers folder or as an original checkpoint with its config."""
        from tunesmith.engines.stable_audio.write import write_base

        return write_base(base, replaced, path, layout, dtype)

    def trained_weights(self, model: Model) -> Mapping[str, Mapping[str, torch.Tensor]]:
        """role -> canonical name -> tensor of what trained and of parts that no file holds."""
        from tunesmith.engines.stable_audio.model import trained_weights

        return trained_weights(model)

    def load_sampler(self, base: Base, device: torch.device, dtype: torch.dtype, model: Model | None = None) -> Sampler:
        """A base ready to generate, sharing the modules of `model`."""
        from tunesmith.engines.stable_audio.sample import load_sampler

        return load_sampler(base, device, dtype, model)

    def sample(
        self, sampler: Sampler, request: Any, should_stop: Callable[[], bool] = lambda: False
    ) -> Iterator[Progress | Media]:
        """Progress after every step, then the sounds."""
        from tunesmith.engines.stable_audio.sample import sample

        return sample(sampler, request, should_stop)

    def measures(self, stage: str) -> Mapping[str, Callable[[Model, Batch, Recipe], float]]:
        """spectral_distance for the autoencoder; the denoiser's figure is its held-out loss."""
        if stage != "autoencoder":
            return {}
        from tunesmith.engines.stable_audio.autoencoder_stage import spectral_distance

        return {"spectral_distance": spectral_distance}


engine = StableAudio()
