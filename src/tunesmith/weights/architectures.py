"""Sizes of a base's parts by name, or from a JSON file laid over named ones. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunesmith.errors import WeightsError

Sizes = dict[str, Any]


def sizes_named(name: str, known: Mapping[str, Mapping[str, Sizes]]) -> dict[str, Sizes]:
    """The sizes by role that `known` has under `name`, or a JSON file of sizes laid over those of `like`.

    Without `like` the first of `known` is meant. Raises WeightsError.
    """
    if name in known:
        return dict(known[name])
    usual = next(iter(known))
    roles = tuple(known[usual])
    path = Path(name)
    if path.suffix != ".json":
        raise WeightsError(
            f"no architecture is called {name!r}", expected=f"one of {', '.join(known)} or a .json file of sizes"
        )
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"the architecture file {path} cannot be read: {error}", expected="JSON by role") from error
    if not isinstance(document, dict) or set(document) - {"like", *roles}:
        raise WeightsError(f"{path} is not an architecture", expected=f"keys among like, {', '.join(roles)}")
    like = document.get("like", usual)
    if like not in known:
        raise WeightsError(f"{path} wants to be like {like!r}", expected=f"one of {', '.join(known)}")
    return {role: {**known[like][role], **document.get(role, {})} for role in roles}
