from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tunesmith.catalog.concepts import Concept, Concepts
from tunesmith.errors import CatalogError

PETER = Concept("Peter", trigger="qb_peter", engine="toy", checkpoint="qb-1", strength=0.8)


def test_put_get_list_remove(tmp_path: Path) -> None:
    concepts = Concepts(tmp_path / "home")
    assert concepts.list() == ()
    concepts.put(PETER)
    fox = concepts.put(Concept("fox", engine="other"))
    assert concepts.get(" peter ") == PETER
    assert concepts.list() == (fox, PETER)
    assert concepts.list("toy") == (PETER,)
    concepts.put(Concept("PETER", strength=0.5))
    assert [concept.name for concept in concepts.list()] == ["fox", "PETER"]
    assert concepts.remove("Peter").strength == 0.5
    assert concepts.list() == (fox,)


def test_a_miss_names_the_nearest(tmp_path: Path) -> None:
    concepts = Concepts(tmp_path)
    concepts.put(PETER)
    with pytest.raises(CatalogError, match=r"(?i)did you mean 'Peter'"):
        concepts.get("petr")
    with pytest.raises(CatalogError, match="concepts list"):
        concepts.remove("zzz")


def test_the_template_is_filled_in() -> None:
    assert PETER.prompt("climbing a tree") == "qb_peter climbing a tree"
    assert (
        Concept("x", trigger="t", template="{prompt}, {style}, {trigger}").prompt("a {trigger}")
        == "a {trigger}, {style}, t"
    )


@pytest.mark.parametrize(
    "wrong",
    [
        Concept(" "),
        Concept("a", strength=float("inf")),
        Concept("a", strength=True),
        Concept("a", trigger=None),  # type: ignore[arg-type]
        Concept("a", strength=1e300),
        Concept("a", trigger="qb\x1b[31m"),
        *(Concept(name) for name in ("../../x", "a\\b", "..", "a\x1b[2J", "a\nb", "x" * 101)),
        *(
            Concept("a", template=template)
            for template in ("{trigger.__class__}", "{nope}", "{", "}", "{trigger[0]}", "{prompt!r}", "{}")
        ),
    ],
)
def test_a_wrong_concept_is_not_kept(tmp_path: Path, wrong: Concept) -> None:
    concepts = Concepts(tmp_path)
    with pytest.raises(CatalogError):
        concepts.put(wrong)
    assert concepts.list() == ()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"concepts": 3}', '{"concepts": [{"name": 3}]}', '{"concepts": [{"name": "a", "notes": 1}]}'],
)
def test_a_damaged_registry_is_named_and_kept(tmp_path: Path, text: str) -> None:
    concepts = Concepts(tmp_path)
    concepts.file.write_text(text)
    for act in (concepts.list, lambda: concepts.put(PETER), lambda: concepts.remove("Peter")):
        with pytest.raises(CatalogError, match=r"concepts\.json"):
            act()
    assert concepts.file.read_text() == text


def test_two_at_once_lose_nothing(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda count: Concepts(tmp_path).put(Concept(f"c{count}")), range(20)))
    assert len(Concepts(tmp_path).list()) == 20
