"""Plain data to YAML 1.2 text that `reader` reads back as the same data."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any

from tunesmith.recipe.document import plain_scalar

_HARMLESS = re.compile(r"[A-Za-z0-9_./]([A-Za-z0-9_./ -]*[A-Za-z0-9_./-])?\Z")


def dump(document: Mapping[str, Any]) -> str:
    """`document` (maps, lists, scalars) as YAML; lists and maps of scalars stand on one line."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="rt", pure=True)
    yaml.allow_unicode = True
    yaml.width = 1 << 20  # a folded line would be legal, and hard to read
    stream = io.StringIO()
    yaml.dump(_styled(document, outermost=True), stream)
    return stream.getvalue()


def _styled(value: Any, *, outermost: bool = False) -> Any:
    """The value with quotes where an unquoted scalar would say something else, and flow style where it is short."""
    from ruamel.yaml.comments import CommentedMap, CommentedSeq
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString

    if isinstance(value, str):
        bare = _HARMLESS.match(value) and plain_scalar(value) == value
        return value if bare else DoubleQuotedScalarString(value)
    if isinstance(value, Mapping):
        styled: Any = CommentedMap((_styled(key), _styled(child)) for key, child in value.items())
        children = tuple(value.values())
    elif isinstance(value, list):
        styled = CommentedSeq(_styled(child) for child in value)
        children = tuple(value)
    else:
        return value
    if not outermost and not any(isinstance(child, Mapping | list) for child in children):
        styled.fa.set_flow_style()
    return styled
