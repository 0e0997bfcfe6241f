"""YAML 1.2 text to a document: data only, one document, no tags, no duplicate keys, limited in size.

ruamel.yaml scans and parses; its events are put together here, because its loaders follow older number rules
(octal, sexagesimal, dates) and lose the line of a value.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith.errors import RecipeError
from tunesmith.recipe.document import Node, plain_scalar

LIMIT_BYTES = 1 << 20
LIMIT_VALUES = 50_000
LIMIT_DEPTH = 16
_CORE = "tag:yaml.org,2002:"


def read_file(path: Path) -> Node:
    """The document in a YAML file. Raises RecipeError naming the file, and the line where there is one."""
    try:
        with path.open("rb") as stream:
            content = stream.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror or error}", do="check the path of the recipe") from error
    if len(content) > LIMIT_BYTES:
        raise RecipeError(f"{path} is larger than {LIMIT_BYTES >> 20} MiB", expected="a recipe of a page or two")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise RecipeError(f"{path}, line {line}: a byte that is not UTF-8", do="save the file as UTF-8") from error
    return read_text(text, str(path))


def read_text(text: str, source: str) -> Node:
    """The one document in `text`; an empty text is an empty map. `source` names it in errors."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        return _Composer(source).compose(iter(YAML(typ="safe", pure=True).parse(io.StringIO(text))))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source}, line {mark.line + 1}" if mark else source
        raise RecipeError(f"{where}: {error.problem or 'not YAML'}", expected="a YAML 1.2 document") from error
    except YAMLError as error:
        problem = " ".join(str(error).split())
        raise RecipeError(f"{source}: {problem}", expected="a YAML 1.2 document") from error
    except (ValueError, OverflowError) as error:
        # ruamel decodes escapes such as "\UFFFFFFFF" with chr(), which objects in its own words.
        raise RecipeError(f"{source}: {error}", expected="a YAML 1.2 document") from error


class _Composer:
    """Puts parser events together; counts values, aliases expanded, so that a nest of anchors cannot explode."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._anchors: dict[str, Node] = {}
        self._sizes: dict[str, int] = {}
        self._count = 0

    def compose(self, events: Iterator[Any]) -> Node:
        root: Node | None = None
        for event in events:
            kind = type(event).__name__
            if kind == "DocumentStartEvent":
                if event.version not in (None, (1, 2)):
                    raise RecipeError(
                        f"{self._place(event)}: a document of YAML {_dotted(event.version)}", expected="1.2"
                    )
                if root is not None:
                    raise RecipeError(f"{self._place(event)}: a second document", expected="one document a file")
                root = self._node(next(events), events, 1)
        return root if root is not None else Node({}, self._source)

    def _place(self, event: Any) -> str:
        return f"{self._source}, line {event.start_mark.line + 1}"

    def _node(self, event: Any, events: Iterator[Any], depth: int) -> Node:
        place, kind = self._place(event), type(event).__name__
        if depth > LIMIT_DEPTH:
            raise RecipeError(f"{place}: nested deeper than {LIMIT_DEPTH} levels", expected="sections with knobs")
        if kind == "AliasEvent":
            return self._alias(event.anchor, place)
        before = self._count
        self._add(1, place)
        if kind == "ScalarEvent":
            node = _scalar(event, place)
        elif kind == "SequenceStartEvent":
            _refuse_tag(event, "seq", place)
            node = Node(self._items(events, depth), place)
        else:
            _refuse_tag(event, "map", place)
            node = Node(self._pairs(events, depth), place)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
            self._sizes[event.anchor] = self._count - before
        return node

    def _alias(self, name: str, place: str) -> Node:
        if name not in self._anchors:
            raise RecipeError(f"{place}: the alias *{name} refers to nothing above it", do=f"write &{name} before it")
        self._add(self._sizes[name], place)
        return Node(self._anchors[name].value, place, self._anchors[name].raw)

    def _add(self, values: int, place: str) -> None:
        self._count += values
        if self._count > LIMIT_VALUES:
            raise RecipeError(f"{place}: more than {LIMIT_VALUES} values", expected="a recipe of a page or two")

    def _items(self, events: Iterator[Any], depth: int) -> list[Node]:
        found = []
        while type(event := next(events)).__name__ != "SequenceEndEvent":
            found.append(self._node(event, events, depth + 1))
        return found

    def _pairs(self, events: Iterator[Any], depth: int) -> dict[str, Node]:
        found: dict[str, Node] = {}
        while type(event := next(events)).__name__ != "MappingEndEvent":
            key = self._node(event, events, depth + 1)
            # A map such as {no: 1} or {2024: x} has text for keys whatever they look like; only structures are wrong.
            name = key.raw if key.raw is not None else key.value
            if not isinstance(name, str):
                raise RecipeError(f"{key.place}: a list or map as a key", expected="the name of a section or knob")
            if name in found:
                raise RecipeError(f"{key.place}: {name!r} a second time", do="keep one of the two")
            child = self._node(next(events), events, depth + 1)
            found[name] = Node(child.value, child.place if not isinstance(child.value, dict) else key.place, child.raw)
        return found


def _scalar(event: Any, place: str) -> Node:
    tag = event.tag
    if tag in (None, "!") or tag == f"{_CORE}str":
        if event.style is not None or tag is not None:
            return Node(event.value, place)
        return Node(plain_scalar(event.value), place, event.value)
    raise RecipeError(f"{place}: the tag {tag!r}", expected="plain data", do="remove the tag")


def _refuse_tag(event: Any, allowed: str, place: str) -> None:
    if event.tag not in (None, f"{_CORE}{allowed}"):
        raise RecipeError(f"{place}: the tag {event.tag!r}", expected="plain data", do="remove the tag")


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)
