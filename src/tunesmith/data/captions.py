"""Caption files and what may be shuffled or dropped in a caption. No torch."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from tunesmith.errors import DataError
from tunesmith.recipe.schema import DataSection

LIMIT_BYTES = 10_000_000

_CONTROLS = re.compile(r"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)


def read_caption(path: Path) -> str:
    """The text of a UTF-8 file: byte order mark dropped, newlines as \\n, control characters as spaces, ends stripped.

    Raises DataError naming file and byte: another encoding, a NUL, above 10 MB.
    """
    try:
        size = path.stat().st_size
        if size > LIMIT_BYTES:
            raise DataError(
                f"{path} is {size / 1e6:.0f} MB long", expected="a caption of at most 10 MB", do="shorten it"
            )
        return decode_text(path.read_bytes(), str(path))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})", do="check the file") from error


def decode_text(data: bytes, name: str) -> str:
    """As `read_caption`, of bytes; `name` is what the error calls them."""
    if data.startswith(_UTF16):
        raise DataError(f"{name} is UTF-16 or UTF-32 text", expected="UTF-8", do="save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        start = error.start + (3 if data.startswith(codecs.BOM_UTF8) else 0)
        line = data.count(b"\n", 0, start) + 1
        raise DataError(
            f"{name} is not UTF-8: byte 0x{data[start]:02x} at position {start}, line {line}",
            expected="UTF-8 text",
            do="save it as UTF-8",
        ) from error
    return clean_text(text, name)


def clean_text(text: str, name: str) -> str:
    """Newlines as \\n, control characters as spaces, ends stripped. Raises DataError for a NUL or a lone surrogate."""
    if "\0" in text:
        raise DataError(
            f"{name} holds a NUL character at position {text.index(chr(0))}", expected="plain text", do="remove it"
        )
    surrogate = next((at for at, letter in enumerate(text) if "\ud800" <= letter <= "\udfff"), None)
    if surrogate is not None:
        raise DataError(f"{name} holds half a character at position {surrogate}", expected="UTF-8", do="save it again")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROLS.sub(" ", text).strip()


def split_tags(caption: str) -> list[str]:
    """The comma-separated pieces, stripped, empty ones left out."""
    return [piece for piece in (part.strip() for part in caption.split(",")) if piece]


def shuffle_and_drop(
    caption: str,
    section: DataSection,
    *,
    uniform: Callable[[str], float],
    permutation: Callable[[str, int], Sequence[int]],
) -> str:
    """The caption of one visit: dropped whole, its pieces dropped one by one, the rest shuffled, as `section` says.

    Randomness is passed in: `uniform(purpose)` in [0, 1) and `permutation(purpose, count)`, those of an `ItemRng`.
    The first `keep_tags` pieces stay where they are. With everything off the caption comes back as it is.
    """
    if section.caption_dropout > 0 and uniform("caption_dropout") < section.caption_dropout:
        return ""
    if not section.shuffle_tags and section.tag_dropout <= 0:
        return caption
    pieces = split_tags(caption)
    kept, loose = pieces[: section.keep_tags], pieces[section.keep_tags :]
    if section.shuffle_tags:
        loose = [loose[index] for index in permutation("tag_shuffle", len(loose))]
    if section.tag_dropout > 0:
        loose = [piece for at, piece in enumerate(loose) if uniform(f"tag_dropout/{at}") >= section.tag_dropout]
    return ", ".join(kept + loose)
