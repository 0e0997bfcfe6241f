"""What a recipe implies for this engine: windows, what is encoded, which parts run at every step. No torch."""

from __future__ import annotations

import json
import math

from tunesmith.data.item import Item
from tunesmith.engines.protocol import Base, EncoderSpec, Want
from tunesmith.engines.stable_audio.facts import StableAudioKnobs
from tunesmith.engines.stable_audio.open import TOKENIZER
from tunesmith.engines.stable_audio.shapes import hop_length
from tunesmith.errors import RecipeError
from tunesmith.recipe.schema import Recipe
from tunesmith.weights.fingerprint import weights_fingerprint

# Raised when an encoder's output changes although its weights did not.
ENCODER_REVISION = "1"
# Longer sounds are encoded in tiles; their overlap is longer than what one latent hears (a third of a second at most).
TILE_SECONDS, OVERLAP_SECONDS = 10.0, 1.0


def knobs(recipe: Recipe) -> StableAudioKnobs:
    """The recipe's own knobs of this engine."""
    settings: StableAudioKnobs = recipe.settings
    return settings


def trained(recipe: Recipe) -> tuple[str, ...]:
    """The components that train: those named, or the stage's usual one, without those of rate 0."""
    components = recipe.method.components or (recipe.method.stage,)
    rates = recipe.optimiser.rates
    return tuple(name for name in components if rates.get(name, recipe.optimiser.rate) > 0)


def text_is_live(recipe: Recipe) -> bool:
    """Whether the text encoder runs at every step: it trains, or captions differ from visit to visit."""
    varies = recipe.data.shuffle_tags or recipe.data.tag_dropout > 0
    return "text_encoder" in trained(recipe) or varies


def frame_seconds(base: Base) -> float:
    """Seconds that one latent frame stands for."""
    sizes = base.architecture["autoencoder"]
    return hop_length(sizes) / float(sizes["sampling_rate"])


def window_frames(base: Base, seconds: float | None) -> int:
    """Latent frames of a window; of the base's own where `seconds` is None. Raises RecipeError beyond the base's."""
    own = int(base.architecture["denoiser"]["sample_size"])
    if seconds is None:
        return own
    frames = max(1, math.ceil(seconds / frame_seconds(base) - 1e-6))
    if frames > own:
        raise RecipeError(
            f"the window is {seconds:g} seconds",
            expected=f"at most {own * frame_seconds(base):.2f}, the base's own window",
            do="shorten it",
        )
    return frames


def trained_at(base: Base, recipe: Recipe) -> dict[str, float]:
    """The window that the denoiser trains at: the recipe's, else the base's own. Crops of an autoencoder are none."""
    seconds = knobs(recipe).window_seconds if recipe.method.stage != "autoencoder" else None
    return {"window_seconds": window_frames(base, None) * frame_seconds(base) if seconds is None else seconds}


def shape_of(item: Item, recipe: Recipe) -> str:
    """Items of one window share batches, so there is one shape, in seconds."""
    del item
    seconds = knobs(recipe).window_seconds
    return "window" if seconds is None else f"{seconds:g}s"


def wants_of(item: Item, recipe: Recipe) -> tuple[Want, ...]:
    """Everything to encode for an item. Variants: `SECONDS/plain|flip` of the window, `text`."""
    chosen, shape = knobs(recipe), shape_of(item, recipe)
    if recipe.method.stage == "autoencoder":
        return (Want("samples", "samples", "audio", "plain"),)
    wants = [Want("audio", "autoencoder", "audio", f"{shape}/plain")]
    if chosen.polarity_flip:
        wants.append(Want("audio.flip", "autoencoder", "audio", f"{shape}/flip"))
    if not text_is_live(recipe):
        wants.append(Want("text", "text_encoder", "caption", "text", text=item.text.get("caption", "")))
        if recipe.data.caption_dropout > 0:
            wants.append(Want("text.empty", "text_encoder", "caption", "text", text=""))
    return tuple(wants)


def encoder_specs(base: Base, recipe: Recipe) -> tuple[EncoderSpec, ...]:
    """The encoders a recipe needs, in the order to run them."""
    window_frames(base, knobs(recipe).window_seconds)
    sizes = base.architecture["autoencoder"]
    if recipe.method.stage == "autoencoder":
        key = f"samples-{ENCODER_REVISION}-{sizes['sampling_rate']}-{sizes['audio_channels']}"
        return (EncoderSpec("samples", "audio", key),)
    specs = []
    if not text_is_live(recipe):
        tokenizer = base.parts.get(TOKENIZER)
        words = weights_fingerprint(tokenizer.path) if tokenizer and tokenizer.path else "none"
        tokens = base.architecture[TOKENIZER]["max_tokens"]
        specs.append(EncoderSpec("text_encoder", "caption", f"{_key(base, recipe, 'text_encoder')}-{words}-{tokens}"))
    own = int(base.architecture["denoiser"]["sample_size"])
    specs.append(EncoderSpec("autoencoder", "audio", f"{_key(base, recipe, 'autoencoder')}-{own}"))
    return tuple(specs)


def _key(base: Base, recipe: Recipe, role: str) -> str:
    part = base.parts[role]
    sizes = json.dumps(base.architecture[role], sort_keys=True)
    made = f"seed {recipe.length.seed}"
    weights = weights_fingerprint(part.path, part.prefix) if part.path is not None else made
    return f"{role}-{ENCODER_REVISION}-{weights}-{sizes}"
