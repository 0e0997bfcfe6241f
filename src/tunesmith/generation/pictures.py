"""Generated pictures as PNG files that carry how they were made: once for other tools, once exactly."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from tunesmith.engines.protocol import Media
from tunesmith.errors import DataError
from tunesmith.weights.atomic import write_bytes

OTHERS_KEY = "parameters"  # the text chunk that AUTOMATIC1111, Civitai and most viewers read
OWN_KEY = "tunesmith"  # the same as JSON, without loss

# Our name -> the name in the last line of the `parameters` text; `width` and `height` become Size.
_NAMES = {
    "steps": "Steps",
    "scheduler": "Sampler",
    "guidance": "CFG scale",
    "seed": "Seed",
    "clip_skip": "Clip skip",
    "base": "Model",
    "base_hash": "Model hash",
}
_OURS = {theirs: ours for ours, theirs in _NAMES.items()}
_FIELD = re.compile(r'\s*([\w ]+):\s*("(?:\\.|[^"\\])+"|[^,]*)(?:,|$)')
_LORA = re.compile(r"<lora:([^:>]+):([-\d.]+)>")


def save_png(media: Media, path: Path, parameters: Mapping[str, Any] | None = None) -> Path:
    """Write a generated picture with its parameters; `parameters` are added to the media's own. Written aside, renamed.

    Raises DataError for media that are no picture.
    """
    if not isinstance(media.data, Image.Image):
        raise DataError(f"the generated {media.kind} is no picture", expected="media of kind image")
    everything = {**media.parameters, **(parameters or {})}
    chunks = PngInfo()
    chunks.add_text(OTHERS_KEY, a1111_parameters(everything))
    chunks.add_text(OWN_KEY, json.dumps(everything, ensure_ascii=False, sort_keys=True))
    buffer = io.BytesIO()
    media.data.save(buffer, format="PNG", pnginfo=chunks)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, buffer.getvalue())
    return path


def read_parameters(path: Path) -> dict[str, Any]:
    """How a picture was made: from our own chunk, else from the `parameters` text of another tool; {} without both.

    Raises DataError for a file that is no picture.
    """
    try:
        with Image.open(path) as image:
            image.load()  # text chunks may follow the pixels
            texts = dict(image.info)
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(f"{path} cannot be read as a picture", expected="a PNG file") from error
    if isinstance(texts.get(OWN_KEY), str):
        try:
            own = json.loads(texts[OWN_KEY])
        except json.JSONDecodeError as error:
            raise DataError(f"{path}: the text chunk {OWN_KEY!r} is no JSON") from error
        if isinstance(own, dict):
            return own
    theirs = texts.get(OTHERS_KEY)
    return parse_a1111(theirs) if isinstance(theirs, str) else {}


def a1111_parameters(parameters: Mapping[str, Any]) -> str:
    """The text that AUTOMATIC1111 writes: prompt with `<lora:…>` tags, negative prompt, one line of settings."""
    prompt = str(parameters.get("prompt", ""))
    for used in parameters.get("checkpoints", ()):
        prompt += f" <lora:{used['name']}:{used['weight']:g}>"
    lines = [prompt.strip()]
    if parameters.get("negative"):
        lines.append(f"Negative prompt: {parameters['negative']}")
    settings = {theirs: parameters[ours] for ours, theirs in _NAMES.items() if parameters.get(ours) is not None}
    if "width" in parameters and "height" in parameters:
        settings["Size"] = f"{parameters['width']}x{parameters['height']}"
    settings["Version"] = "tunesmith"
    lines.append(", ".join(f"{name}: {_quoted(value)}" for name, value in settings.items()))
    return "\n".join(lines)


def parse_a1111(text: str) -> dict[str, Any]:
    """The inverse, as far as the form allows: numbers where they are numbers, `<lora:…>` tags as checkpoints."""
    body, _, last = text.strip().rpartition("\n")
    fields = _FIELD.findall(last)
    if len(fields) < 2:  # no settings line: everything is prompt
        body, fields = text.strip(), []
    prompt, _, negative = body.partition("\nNegative prompt:")
    if body.startswith("Negative prompt:"):
        prompt, negative = "", body.removeprefix("Negative prompt:")
    used = [{"name": name, "weight": float(weight)} for name, weight in _LORA.findall(prompt)]
    found: dict[str, Any] = {"prompt": _LORA.sub("", prompt).strip(), "negative": negative.strip()}
    if used:
        found["checkpoints"] = used
    for name, value in fields:
        name, value = name.strip(), json.loads(value) if value.startswith('"') else value.strip()
        if name == "Size" and re.fullmatch(r"\d+x\d+", value):
            found["width"], found["height"] = (int(side) for side in value.split("x"))
        elif name in _OURS:
            found[_OURS[name]] = _number(value)
    return found


def _quoted(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if re.search(r'[,:\n"]', text) else text


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
