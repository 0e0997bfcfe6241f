"""Architecture of `test_tokens` as data. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.engines.protocol import Base
from tunesmith_test_engines.files import Shapes

ROLES = ("codec", "decoder")
CLASSES = 32  # values of one token
RATE = 100  # tokens a second
WORDS = 24

NAMED: Mapping[str, Any] = {
    "tiny": {"codec": {"levels": CLASSES}, "decoder": {"width": 16}},
    "tinier": {"codec": {"levels": CLASSES}, "decoder": {"width": 8}},
}


def shapes_of(role: str, sizes: Mapping[str, Any]) -> Shapes:
    """Every tensor of one part; the decoder's `head` is a tensor of its own, in no layer."""
    if role == "codec":
        return {"levels": (sizes["levels"],)}
    width = sizes["width"]
    linear = {
        "layers.0.to_q": (width, width),
        "layers.0.to_k": (width, width),
        "layers.0.to_v": (width, width),
        "layers.0.to_out": (width, width),
        "layers.0.up": (2 * width, width),
        "layers.0.down": (width, 2 * width),
    }
    return {
        "tokens.weight": (CLASSES, width),
        "words.weight": (WORDS, width),
        **{f"{name}.weight": shape for name, shape in linear.items()},
        "norm.weight": (width,),
        "head": (width, CLASSES),
    }


def layers_of(base: Base, component: str) -> tuple[str, ...]:
    """Canonical names of the layers an adapter could go on."""
    names = shapes_of(component, base.architecture[component])
    return tuple(name.removesuffix(".weight") for name in names if name.startswith("layers."))
