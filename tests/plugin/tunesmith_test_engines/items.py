"""Items made by formula, with real files on disk. No torch."""

from __future__ import annotations

import hashlib
import math
import struct
import wave
from pathlib import Path

from PIL import Image

from tunesmith.data.item import Item, MediaFile

SIZES = ((20, 20), (30, 20), (20, 30))


def draw_picture(path: Path, size: tuple[int, int], index: int) -> Path:
    """A smooth gradient with one square, different for every index."""
    width, height = size
    image = Image.new("RGB", size)
    image.putdata(
        [
            ((x * 255 // width + 40 * index) % 256, y * 255 // height, (31 * index) % 256)
            for y in range(height)
            for x in range(width)
        ]
    )
    image.paste((250, 240, 20 * index % 256), (index % 8, 2, index % 8 + 6, 8))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def draw_sound(path: Path, seconds: float, index: int) -> Path:
    """A 16-bit mono WAV at 1,000 Hz: two slow sines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = [int(16000 * math.sin(at / (9 + index)) + 9000 * math.sin(at / 31)) for at in range(int(seconds * 1000))]
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(1000)
        file.writeframes(struct.pack(f"<{len(samples)}h", *samples))
    return path


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def picture_file(path: Path) -> MediaFile:
    """A picture as the data package describes it."""
    with Image.open(path) as image:
        facts = {"width": image.width, "height": image.height, "has_alpha": False}
    return MediaFile(path, _sha256(path), facts)


def picture_items(folder: Path, count: int = 6, control: bool = True, same_shape: bool = False) -> tuple[Item, ...]:
    """Captioned pictures of three aspect ratios; every second one has a conditioning picture."""
    items = []
    for index in range(count):
        size = SIZES[0] if same_shape else SIZES[index % 3]
        media = {"image": picture_file(draw_picture(folder / f"{index:03}.png", size, index))}
        caption = f"a picture, number {index}, of {('red', 'green', 'blue')[index % 3]}"
        (folder / f"{index:03}.txt").write_text(caption, encoding="utf-8")
        if control and index % 2 == 0:
            media["control"] = picture_file(draw_picture(folder / "control" / f"{index:03}.png", size, index + 50))
        key = hashlib.sha256((media["image"].sha256 + caption).encode()).hexdigest()
        items.append(Item(key, media, {"caption": caption}, group=key, concept=("one", "two")[index % 2]))
    return tuple(items)


def sound_items(folder: Path, count: int = 4, seconds: float = 0.6) -> tuple[Item, ...]:
    """Captioned sounds of slightly different lengths."""
    items = []
    for index in range(count):
        path = draw_sound(folder / f"{index:03}.wav", seconds + 0.1 * index, index)
        caption = f"sound number {index}"
        (folder / f"{index:03}.txt").write_text(caption, encoding="utf-8")
        sha256 = _sha256(path)
        facts = {"seconds": seconds + 0.1 * index, "rate": 1000, "channels": 1}
        key = hashlib.sha256((sha256 + caption).encode()).hexdigest()
        items.append(Item(key, {"audio": MediaFile(path, sha256, facts)}, {"caption": caption}, group=key))
    return tuple(items)
