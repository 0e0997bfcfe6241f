"""Each check finds what it is for, says what to do, and is silent on a good dataset."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tunesmith.data.findings import CHECKS, Finding, examine
from tunesmith.data.item import Item, MediaFile
from tunesmith.recipe.schema import DataSection


@dataclass(frozen=True)
class Facts:
    minimum_items: int = 2
    advised_items: tuple[int, int] = (4, 40)


def item(at: int, *, caption: str | None = None, size=(64, 64), **fields) -> Item:
    image = MediaFile(Path(f"p{at}.png"), f"hash{at}", {"width": size[0], "height": size[1], "has_alpha": False})
    text = {"caption": f"qb_x number {at}" if caption is None else caption}
    return Item(key=f"k{at}", media={"image": image}, text=text, group=fields.pop("group", f"g{at}"), **fields)


GOOD = tuple(item(at, concept="x") for at in range(8))


def found(items, **options) -> dict[str, Finding]:
    findings = examine(items, Facts(), **options)
    assert all(finding.do or finding.severity == "note" for finding in findings)
    return {finding.code: finding for finding in findings}


def test_a_good_dataset_is_silent():
    assert found(GOOD, concepts={"x": "qb_x"}, resolution_pixels=64) == {}


CASES = {
    "too_few": ((GOOD[0],), {}, "1 items"),
    "few": (GOOD[:3], {}, "3 items"),
    "caption_empty": ((*GOOD, item(9, caption="")), {}, "p9.png"),
    "caption_identical": (tuple(replace(one, text={"caption": "same"}) for one in GOOD), {}, "all 8 items"),
    "duplicate": ((*GOOD, replace(GOOD[0], key="other")), {}, "2 times"),
    "small": ((*GOOD, item(9, size=(63, 64))), {"resolution_pixels": 64}, "p9.png"),
    "extreme_ratio": ((*GOOD, item(9, size=(400, 100))), {}, "p9.png"),
    "trigger_absent": ((*GOOD, item(9, caption="no word", concept="x")), {"concepts": {"x": "qb_x"}}, "1 of 9"),
    "concept_without_items": (GOOD, {"concepts": {"x": "qb_x", "zoe": "zz"}}, "'zoe'"),
    "imbalance": ((*GOOD, item(9, concept="y", repeats=100)), {}, "100 times"),
    "no_holdout": (tuple(replace(one, group="one") for one in GOOD), {}, "one group"),
}


@pytest.mark.parametrize("code", CASES)
def test_check(code):
    items, options, words = CASES[code]
    finding = found(items, **options)[code]
    assert words in finding.message
    assert finding.severity == ("error" if code == "too_few" else "warning")


def test_every_check_is_tested():
    # `count` gives two codes, `reading_notes` is tested below.
    assert len(CHECKS) == len(CASES)


def test_notes_come_last():
    findings = examine(GOOD[:1], Facts(), notes=("a folder",))
    assert findings[0].severity == "error"
    assert (findings[-1].severity, findings[-1].message) == ("note", "a folder")


@pytest.mark.parametrize("section", [DataSection(holdout_fraction=0.0), DataSection(holdout_paths=("x",))])
def test_holdout_given_otherwise(section):
    assert "no_holdout" not in found(CASES["no_holdout"][0], section=section)


def test_prior_items_are_not_examined():
    assert found((*GOOD, replace(item(9, caption=""), prior=True))) == {}


def test_trigger_in_any_case():
    assert "trigger_absent" not in found(GOOD, concepts={"x": "QB_X"})


def test_long_lists_are_shortened():
    message = found(tuple(item(at, caption="") for at in range(20)))["caption_empty"].message
    assert message.endswith("p0.png, p1.png, p2.png and 17 more")
