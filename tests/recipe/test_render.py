from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recipe_engines import ToySection
from tunesmith.recipe.knobs import knobs_of
from tunesmith.recipe.render import all_tables, flag_name, json_schema, markdown_table, with_tables
from tunesmith.recipe.schema import SECTIONS, LengthSection

PAGE = Path(__file__).resolve().parents[2] / "docs" / "recipe.md"


def test_the_page_shows_the_knobs_as_they_are() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert all_tables() in page, "run `python -m tunesmith.recipe.render docs/recipe.md`"
    assert with_tables(page) == page


def test_a_page_without_markers_stays() -> None:
    assert with_tables("# a page") == "# a page"


def test_table() -> None:
    table = markdown_table(knobs_of(ToySection, "engine")).splitlines()
    assert (
        table[2]
        == "| `engine.resolution` | whole number (pixels) | `64` | at least 8 and at most 4096 | side of the square |"
    )
    assert table[3] == "| `engine.gamma` | number |  | above 0 | loss weighting; None: off |"
    assert table[4] == "| `engine.flip` | true / false | `false` |  | mirror |"
    assert table[6] == "| `engine.mode` | text | `plain` | `plain`, `fancy` | how |"


@pytest.mark.parametrize("section", [*SECTIONS, "engine"])
def test_the_schema_says_what_the_knobs_say(section: str) -> None:
    sections = {**SECTIONS, "engine": ToySection}
    schema = json_schema(sections)
    json.dumps(schema, allow_nan=False)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["required"] == ["engine"]
    described: dict[str, Any] = schema["properties"][section]
    assert described["additionalProperties"] is False
    for entry in knobs_of(sections[section], section):
        found = described["properties"][entry.name]
        assert found["description"] == entry.help
        inner = found.get("anyOf", [found])[0]
        inner = (
            inner.get("items")
            or (isinstance(inner.get("additionalProperties"), dict) and inner["additionalProperties"])
            or inner
        )
        assert inner["type"] in ("boolean", "integer", "number", "string")
        assert inner.get("minimum") == entry.low
        assert inner.get("maximum") == entry.high
        assert inner.get("exclusiveMinimum") == entry.above
        assert tuple(inner.get("enum", ())) == entry.choices


def test_the_schema_knows_null_lists_and_maps() -> None:
    properties = json_schema()["properties"]
    assert properties["length"]["properties"]["steps"]["anyOf"][1] == {"type": "null"}
    assert properties["data"]["properties"]["paths"]["default"] == []
    assert properties["optimiser"]["properties"]["rates"]["additionalProperties"] == {
        "type": "number",
        "minimum": 0,
        "maximum": 10,
    }
    assert "required" not in json_schema()


def test_flags_are_unique() -> None:
    names = [flag_name(entry) for name, kind in SECTIONS.items() for entry in knobs_of(kind, name)]
    assert len(set(names)) == len(names)
    assert flag_name(knobs_of(LengthSection, "length")[2]) == "--length-batch-items"
