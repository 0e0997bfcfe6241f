"""Which picture files are read, told by their first bytes, opened without decoding. No torch.

Pillow is never asked to guess: its sniffing would also start PostScript, PSD and dozens of other readers. One plugin is
chosen from an explicit list, and the size is checked before a pixel is decoded.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from PIL import BmpImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from tunesmith.errors import DataError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
PIXEL_LIMIT = 64_000_000
READABLE = "PNG, JPEG, WebP or BMP"

# Everything Pillow's readers raise on damaged files; OSError covers UnidentifiedImageError.
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

_READERS: tuple[tuple[str, Any], ...] = (
    ("PNG", PngImagePlugin.PngImageFile),
    ("JPEG", JpegImagePlugin.JpegImageFile),
    ("WEBP", WebPImagePlugin.WebPImageFile),
    ("BMP", BmpImagePlugin.BmpImageFile),
)
_ORIENTATION_TAG = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def format_of(head: bytes) -> str | None:
    """PNG, JPEG, WEBP or BMP by a file's first 16 bytes; None for anything else."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith(b"BM"):
        return "BMP"
    return None


@contextmanager
def opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    """The picture with its header read and its size checked; pixels are decoded only if the caller loads them.

    Raises DataError, also for damage that shows while the caller decodes.
    """
    try:
        with path.open("rb") as file:
            kind = _recognised(path, file)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of damaged EXIF: such a picture is simply upright
                image = dict(_READERS)[kind](file)
            refuse_huge(path, *image.size)
            yield image
    except DAMAGE as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: BaseException) -> DataError:
    """The one line for a picture that is damaged or cannot be opened."""
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path} does not exist", do="check the name")
    if isinstance(error, PermissionError):
        return DataError(f"{path} may not be read", do="change its permissions")
    reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
    return DataError(
        f"{path} is a damaged or truncated picture ({reason})",
        expected=f"a whole {READABLE} file",
        do="replace or remove it",
    )


def refuse_huge(path: Path, width: int, height: int) -> None:
    """Raise DataError above 64 megapixels."""
    if width * height > PIXEL_LIMIT:
        raise DataError(
            f"{path} is {width}x{height} pixels, {width * height / 1e6:.0f} megapixels",
            expected=f"at most {PIXEL_LIMIT // 1_000_000} megapixels",
            do="make it smaller first",
        )


def turn_of(image: ImageFile.ImageFile) -> Image.Transpose | None:
    """How EXIF orientation wants the picture turned, from what stands before the pixels; None: it is upright."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Not image.getexif(): the PNG reader would decode the whole picture to look for a late EXIF chunk.
            orientation = Image.Image.getexif(image).get(_ORIENTATION_TAG, 1)
    except DAMAGE:
        return None
    return _TURNS.get(orientation) if isinstance(orientation, int) else None


def swaps_sides(turn: Image.Transpose | None) -> bool:
    """Whether a turn exchanges width and height."""
    return turn in (
        Image.Transpose.TRANSPOSE,
        Image.Transpose.TRANSVERSE,
        Image.Transpose.ROTATE_90,
        Image.Transpose.ROTATE_270,
    )


def looks_whole(path: Path, kind: str) -> bool:
    """Whether the file's end is where its format says; False means: decode it to know.

    A cheap look (a few bytes) that catches interrupted copies and downloads without decoding 10,000 pictures.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        file.seek(max(0, size - 64))
        tail = file.read()
    if kind == "PNG":
        return b"IEND\xaeB`\x82" in tail
    if kind == "JPEG":
        return tail.rstrip(b"\0").endswith(b"\xff\xd9")
    if kind == "WEBP":
        return size >= int.from_bytes(head[4:8], "little") + 8
    return size >= int.from_bytes(head[2:6], "little")


def _recognised(path: Path, file: BinaryIO) -> str:
    head = file.read(32)
    file.seek(0)
    kind = format_of(head)
    if kind is None:
        what = "is empty" if not head else "does not hold a picture we read, whatever its name says"
        raise DataError(f"{path} {what}", expected=f"{READABLE} content", do="convert or remove it")
    if kind == "WEBP":
        refuse_huge(path, *_webp_canvas(head))  # its reader takes memory for the canvas on opening
    return kind


def _webp_canvas(head: bytes) -> tuple[int, int]:
    """Width and height from a WebP file's first 32 bytes (RFC 9649, sections 2.5 to 2.7); 0, 0 where unknown."""
    chunk = head[12:16]
    if chunk == b"VP8X" and len(head) >= 30:
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if chunk == b"VP8L" and len(head) >= 25:
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8 " and len(head) >= 30:
        width, height = struct.unpack_from("<HH", head, 26)
        return width & 0x3FFF, height & 0x3FFF
    return 0, 0
