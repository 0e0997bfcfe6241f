"""What a recipe implies for this engine: sizes of pictures, which texts are cached, what is encoded. No torch."""

from __future__ import annotations

import json

from tunesmith.data.buckets import bucket_sizes, bucket_without_upscale, nearest_bucket
from tunesmith.data.item import Item
from tunesmith.engines.protocol import Base, EncoderSpec, Want
from tunesmith.engines.stable_diffusion.facts import StableDiffusionKnobs
from tunesmith.errors import RecipeError
from tunesmith.recipe.schema import Recipe
from tunesmith.weights.fingerprint import weights_fingerprint

# Raised when an encoder's output changes although its weights did not.
ENCODER_REVISION = "1"


def knobs(recipe: Recipe) -> StableDiffusionKnobs:
    """The recipe's own knobs of this engine."""
    settings: StableDiffusionKnobs = recipe.settings
    return settings


def trained(recipe: Recipe) -> tuple[str, ...]:
    """The components that train: those named, or the stage's usual one, without those of rate 0."""
    components = recipe.method.components or (recipe.method.stage,)
    rates = recipe.optimiser.rates
    return tuple(name for name in components if rates.get(name, recipe.optimiser.rate) > 0)


def text_is_live(recipe: Recipe) -> bool:
    """Whether the text encoder runs at every step: it trains, or captions differ from visit to visit.

    Otherwise its states come from the cache and it is not even loaded.
    """
    varies = recipe.data.shuffle_tags or recipe.data.tag_dropout > 0
    return "text_encoder" in trained(recipe) or varies


def downscale(base: Base) -> int:
    """How many pixels one latent stands for, along a side."""
    return int(2 ** (len(base.architecture["autoencoder"]["block_out_channels"]) - 1))


def trained_at(recipe: Recipe) -> dict[str, int]:
    """The size that pictures are fitted to, or that of the square bucket."""
    width, height = knobs(recipe).size
    return {"width": width, "height": height}


def picture_size(item: Item, recipe: Recipe) -> tuple[int, int]:
    """(width, height) in pixels that an item's picture is fitted to."""
    chosen = knobs(recipe)
    width, height = chosen.size
    if not chosen.buckets:
        return width, height
    facts = item.media["image"].facts
    at = (int(facts["width"]), int(facts["height"]))
    if chosen.bucket_no_upscale:
        return bucket_without_upscale(*at, width * height, chosen.bucket_step)
    return nearest_bucket(*at, _bucket_sizes(width * height, chosen))


def _bucket_sizes(area_pixels: int, chosen: StableDiffusionKnobs) -> tuple[tuple[int, int], ...]:
    sizes = bucket_sizes(area_pixels, chosen.bucket_low, chosen.bucket_high, chosen.bucket_step)
    if not sizes:
        raise RecipeError(
            f"no bucket of at most {area_pixels} pixels has sides from {chosen.bucket_low} to {chosen.bucket_high}",
            do="lower engine.bucket_low or raise engine.resolution",
        )
    return sizes


def shape_of(item: Item, recipe: Recipe) -> str:
    """`WIDTHxHEIGHT`: items of one shape can share a batch."""
    width, height = picture_size(item, recipe)
    return f"{width}x{height}"


def text_variant(recipe: Recipe) -> str:
    """How a caption is encoded: `TOKENS/CLIP_SKIP`."""
    return f"{knobs(recipe).tokens}/{knobs(recipe).clip_skip}"


def wants_of(item: Item, recipe: Recipe) -> tuple[Want, ...]:
    """Everything to encode for an item. Variants: `WxH/plain|flip/background`, `TOKENS/CLIP_SKIP`, `WxH`."""
    chosen, shape = knobs(recipe), shape_of(item, recipe)
    # An opaque picture has no background, so changing the knob re-encodes only those that show it.
    background = chosen.background if item.media["image"].facts.get("has_alpha", True) else "-"
    wants = []
    if recipe.method.stage == "autoencoder":
        return (Want("pixels", "pixels", "image", f"{shape}/plain/{background}"),)
    wants.append(Want("image", "autoencoder", "image", f"{shape}/plain/{background}"))
    if chosen.flip:
        wants.append(Want("image.flip", "autoencoder", "image", f"{shape}/flip/{background}"))
    if chosen.mask == "alpha" or (chosen.mask == "file" and "mask" in item.media):
        role = "image" if chosen.mask == "alpha" else "mask"
        wants.append(Want("mask", f"{role}_mask", role, shape))
    if not text_is_live(recipe):
        variant = text_variant(recipe)
        wants.append(Want("text", "text_encoder", "caption", variant, text=item.text.get("caption", "")))
        if recipe.data.caption_dropout > 0:
            wants.append(Want("text.empty", "text_encoder", "caption", variant, text=""))
    return tuple(wants)


def encoder_specs(base: Base, recipe: Recipe) -> tuple[EncoderSpec, ...]:
    """The encoders a recipe needs, in the order to run them."""
    _check_size(base, recipe)
    chosen, factor = knobs(recipe), downscale(base)
    if recipe.method.stage == "autoencoder":
        return (EncoderSpec("pixels", "image", f"pixels-{ENCODER_REVISION}"),)
    specs = []
    if not text_is_live(recipe):
        tokenizer = base.parts.get("tokenizer")
        words = weights_fingerprint(tokenizer.path) if tokenizer and tokenizer.path else "shipped"
        specs.append(EncoderSpec("text_encoder", "caption", f"{_key(base, recipe, 'text_encoder')}-{words}"))
    specs.append(EncoderSpec("autoencoder", "image", _key(base, recipe, "autoencoder")))
    if chosen.mask != "none":
        role = "image" if chosen.mask == "alpha" else "mask"
        specs.append(EncoderSpec(f"{role}_mask", role, f"{role}-mask-{factor}-{ENCODER_REVISION}"))
    return tuple(specs)


def _key(base: Base, recipe: Recipe, role: str) -> str:
    part = base.parts[role]
    sizes = json.dumps(base.architecture[role], sort_keys=True)
    weights = weights_fingerprint(part.path, part.prefix) if part.path is not None else f"seed {recipe.length.seed}"
    return f"{role}-{ENCODER_REVISION}-{weights}-{sizes}"


def _check_size(base: Base, recipe: Recipe) -> None:
    chosen, factor = knobs(recipe), downscale(base)
    width, height = chosen.size
    sides = {"bucket_step": chosen.bucket_step} if chosen.buckets else {"width": width, "height": height}
    for name, side in sides.items():
        if side % factor:
            raise RecipeError(
                f"engine.{name if getattr(chosen, name) is not None else 'resolution'} is {side} pixels",
                expected=f"a multiple of {factor}, as the base's autoencoder needs",
                do=f"set it to {max(factor, round(side / factor) * factor)}",
            )
