"""Encoders: pictures to latent distributions, captions to states, masks and pixels as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageColor, ImageOps

from tunesmith.data.image import alpha_mask, fit_cover, flatten, load_image
from tunesmith.data.item import MediaFile
from tunesmith.engines.protocol import Base, Encoder
from tunesmith.engines.stable_diffusion.choices import downscale, encoder_specs
from tunesmith.engines.stable_diffusion.load import part_module
from tunesmith.engines.stable_diffusion.text import text_states
from tunesmith.engines.stable_diffusion.tokenizer import chunked_ids, open_tokenizer
from tunesmith.errors import DataError, RecipeError
from tunesmith.recipe.schema import Recipe


@dataclass(frozen=True)
class EncoderSettings:
    """What an opened encoder needs besides its module."""

    scaling_factor: float = 1.0
    downscale: int = 1
    tokenizer: Any = None
    layers: int = 12


def open_encoder(base: Base, recipe: Recipe, name: str, device: torch.device) -> Encoder:
    """Load one encoder in float32: half precision gives NaN latents with some autoencoders."""
    spec = next((spec for spec in encoder_specs(base, recipe) if spec.name == name), None)
    if spec is None:
        raise RecipeError(f"this recipe has no encoder {name!r}")
    module: Any = None
    if name in ("autoencoder", "text_encoder"):
        module = part_module(base, name, device, torch.float32, recipe.length.seed)
    if name == "autoencoder":
        del module.decoder
    tokenizer = base.parts.get("tokenizer")
    settings = EncoderSettings(
        scaling_factor=float(base.architecture["autoencoder"]["scaling_factor"]),
        downscale=downscale(base),
        tokenizer=open_tokenizer(tokenizer.path if tokenizer else None) if name == "text_encoder" else None,
        layers=int(base.architecture["text_encoder"]["num_hidden_layers"]),
    )
    return Encoder(spec, module, settings)


@torch.no_grad()
def encode(encoder: Encoder, source: MediaFile | str, variant: str) -> Mapping[str, torch.Tensor]:
    """One input through one encoder; CPU tensors.

    autoencoder: `mean` and `std` [channels, height / f, width / f], scaled; text_encoder: `states` [tokens, width];
    masks: `mask` [1, height / f, width / f] in 0 to 1; pixels: `pixels` [3, height, width] uint8.
    """
    if encoder.spec.name == "text_encoder":
        return _encode_text(encoder, str(source), variant)
    if not isinstance(source, MediaFile):
        raise DataError(f"the {encoder.spec.name} encoder was given text", expected="a picture file")
    if encoder.spec.name.endswith("_mask"):
        return {"mask": _mask(source, encoder, variant)}
    pixels = _pixels(source, variant)
    if encoder.spec.name == "pixels":
        return {"pixels": pixels}
    module = encoder.module
    device = next(module.parameters()).device
    distribution = module.encode(to_unit(pixels).unsqueeze(0).to(device)).latent_dist
    scale = encoder.settings.scaling_factor
    return {"mean": (distribution.mean[0] * scale).cpu(), "std": (distribution.std[0] * scale).cpu()}


def to_unit(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 pixels as float32 in -1 to 1, x / 127.5 - 1."""
    return pixels.float() / 127.5 - 1.0


def _encode_text(encoder: Encoder, text: str, variant: str) -> Mapping[str, torch.Tensor]:
    tokens, _, clip_skip = variant.partition("/")
    check_clip_skip(int(clip_skip), encoder.settings.layers)
    ids = torch.tensor([chunked_ids(encoder.settings.tokenizer, text, int(tokens))])
    return {"states": text_states(encoder.module, ids, int(clip_skip))[0].float().cpu()}


def check_clip_skip(clip_skip: int, layers: int) -> None:
    """Raise RecipeError where the text encoder has fewer layers than are to be skipped."""
    if clip_skip > layers:
        raise RecipeError(f"clip_skip is {clip_skip}", expected=f"at most {layers}, the base's text layers")


def _size(variant: str) -> tuple[int, int]:
    width, _, height = variant.partition("/")[0].partition("x")
    return int(width), int(height)


def _pixels(source: MediaFile, variant: str) -> torch.Tensor:
    """uint8 [3, height, width] of variant `WxH/plain|flip/background`."""
    _, turned, background = variant.split("/", 2)
    picture = flatten(load_image(source.path), _colour("white" if background == "-" else background))
    picture = fit_cover(picture, _size(variant))
    return _tensor(ImageOps.mirror(picture) if turned == "flip" else picture)


def _colour(name: str) -> tuple[int, int, int]:
    try:
        red, green, blue = ImageColor.getrgb(name)[:3]
    except ValueError as error:
        raise RecipeError(f"engine.background is {name!r}", expected="a colour name or #rrggbb") from error
    return red, green, blue


def _tensor(picture: Image.Image) -> torch.Tensor:
    array = np.asarray(picture)
    return torch.from_numpy(array.reshape(array.shape[0], array.shape[1], -1).transpose(2, 0, 1).copy())


def _mask(source: MediaFile, encoder: Encoder, variant: str) -> torch.Tensor:
    """Share of each latent's pixels that count, float32 [1, height / f, width / f]; all ones without alpha."""
    picture = load_image(source.path)
    alpha = alpha_mask(picture) if encoder.spec.name == "image_mask" else picture.convert("L")
    width, height = _size(variant)
    factor = encoder.settings.downscale
    if alpha is None:
        return torch.ones(1, height // factor, width // factor)
    fitted = _tensor(fit_cover(alpha, (width, height))).float() / 255.0
    return torch.nn.functional.avg_pool2d(fitted, factor)
