"""Picture files become upright sRGB pictures of the wanted size. Pillow, no torch."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from tunesmith.data.formats import looks_whole, opened, swaps_sides, turn_of

_PROFILE_LIMIT_BYTES = 4 << 20
_ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa", "La")


def read_header(path: Path) -> dict[str, Any]:
    """`width` and `height` in pixels after EXIF orientation, `has_alpha`, `format`; no pixel is decoded.

    A file whose end is missing is decoded to be sure. Raises DataError: not a picture, damaged, above 64 megapixels.
    """
    with opened(path) as image:
        kind = str(image.format)
        width, height = image.size
        if swaps_sides(turn_of(image)):
            width, height = height, width
        has_alpha = image.mode in _ALPHA_MODES or "transparency" in image.info
        if not looks_whole(path, kind):
            image.load()
    return {"width": width, "height": height, "has_alpha": has_alpha, "format": kind}


def load_image(path: Path) -> Image.Image:
    """The picture upright (EXIF), in sRGB (ICC), 8 bits a channel: RGBA where the file has alpha, otherwise RGB.

    Raises DataError as `read_header` does, and for damage that shows while decoding.
    """
    with opened(path) as image:
        turn = turn_of(image)
        image.load()
        picture = _eight_bits(image)
        alpha = _alpha_of(picture)
        colour = _to_srgb(picture, image.info.get("icc_profile"))
        if alpha is not None:
            colour.putalpha(alpha)
        return colour.transpose(turn) if turn is not None else colour


def flatten(image: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    """RGB: the picture laid over a plain colour (each 0 to 255), so that nothing hidden under alpha shows."""
    if image.mode != "RGBA":
        return image.convert("RGB")
    ground = Image.new("RGBA", image.size, (*colour, 255))
    return Image.alpha_composite(ground, image).convert("RGB")


def alpha_mask(image: Image.Image) -> Image.Image | None:
    """The alpha channel as an L picture (255 where opaque); None where the picture has none."""
    return image.getchannel("A") if image.mode == "RGBA" else None


def fit_cover(image: Image.Image, size: tuple[int, int], *, focus: tuple[float, float] = (0.5, 0.5)) -> Image.Image:
    """The picture scaled to cover `size` (width, height) and cropped to it; L, RGB or RGBA.

    `focus` says which part stays: (0, 0) the top left, (1, 1) the bottom right. Shrinks by exact area averages,
    enlarges by Lanczos; alpha is premultiplied meanwhile, so hidden colours do not bleed in.
    """
    width, height = size
    scale = max(width / image.width, height / image.height)
    spare_x, spare_y = image.width - width / scale, image.height - height / scale
    left, top = max(0.0, spare_x * focus[0]), max(0.0, spare_y * focus[1])
    if scale == 1:
        left, top = int(left), int(top)
        return image.crop((left, top, left + width, top + height))
    box = (left, top, min(left + width / scale, image.width), min(top + height / scale, image.height))
    source = image.convert("RGBa") if image.mode == "RGBA" else image
    done = _shrink(source, size, box) if scale < 1 else source.resize(size, Image.Resampling.LANCZOS, box=box)
    return done.convert("RGBA") if image.mode == "RGBA" else done


def _eight_bits(image: Image.Image) -> Image.Image:
    """Any mode Pillow reads, as L, LA-like, RGB, RGBA or CMYK with 8 bits a channel."""
    if image.mode.startswith(("I", "F")):
        # Pillow clips 16-bit grey to 255 when converting; 65535 / 255 is 257.
        return Image.fromarray(np.rint(np.asarray(image, dtype=np.float64) / 257).clip(0, 255).astype(np.uint8))
    if "transparency" in image.info or image.mode in _ALPHA_MODES:
        return image.convert("RGBA")
    if image.mode in ("L", "RGB", "CMYK"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _alpha_of(image: Image.Image) -> Image.Image | None:
    return image.getchannel("A") if image.mode == "RGBA" else None


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """RGB in sRGB. A profile that is missing, damaged or made for other channels: the colours are taken as sRGB."""
    plain = image.convert("RGB") if image.mode == "RGBA" else image
    if profile and len(profile) <= _PROFILE_LIMIT_BYTES:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            # Grey profiles describe L, but a grey PNG with alpha arrives as RGBA.
            grey = source.profile.xcolor_space.strip() == "GRAY"
            converted = ImageCms.profileToProfile(
                plain.convert("L") if grey else plain, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            converted = None
        if converted is not None:
            return converted
    return plain.convert("RGB")


def _shrink(image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float]) -> Image.Image:
    """Exact area averages of `box`; each output pixel weighs the input by how much of it it covers.

    (Pillow's own box filter counts a pixel wholly or not at all, which shows as uneven lines at ratios such as 1.5.)
    """
    pixels = np.asarray(image)
    pixels = _average(pixels, box[1], min(box[3], pixels.shape[0]), size[1])
    pixels = _average(pixels.swapaxes(0, 1), box[0], min(box[2], image.width), size[0]).swapaxes(0, 1)
    return _from_array(np.rint(pixels).clip(0, 255).astype(np.uint8), image.mode)


def _from_array(pixels: np.ndarray[Any, Any], mode: str) -> Image.Image:
    size = (pixels.shape[1], pixels.shape[0])
    return Image.frombytes(mode, size, np.ascontiguousarray(pixels).tobytes())


def _average(pixels: np.ndarray[Any, Any], low: float, high: float, count: int) -> np.ndarray[Any, Any]:
    """Means of `count` equal parts of [low, high) along the first axis, each at least one pixel long."""
    step = (high - low) / count
    edges = np.clip(low + step * np.arange(count + 1), 0, len(pixels))
    starts = np.minimum(edges.astype(np.int64), len(pixels) - 1)
    part = (edges - starts).astype(np.float32).reshape(-1, *[1] * (pixels.ndim - 1))
    sums = np.add.reduceat(pixels[: starts[-1]], starts[:-1], axis=0, dtype=np.float32)
    at_edges = pixels[starts].astype(np.float32) * part
    means: np.ndarray[Any, Any] = (sums + at_edges[1:] - at_edges[:-1]) / np.float32(step)
    return means
