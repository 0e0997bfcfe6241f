from __future__ import annotations

import pytest

from tunesmith.evaluation.likeness import Copies
from tunesmith.evaluation.report import Report, forgetting, gain, memorisation, specificity, without_words


@pytest.mark.parametrize(
    ("fall", "good", "advice"),
    [
        ((0.45, 0.40, 0.50), True, "has learnt the concept"),
        ((0.10, 0.02, 0.15), False, "a part of the concept"),
        ((0.02, 0.01, 0.03), False, "hardly"),
        ((0.30, -0.05, 0.60), False, "not shown"),
    ],
)
def test_gain_is_judged_with_its_interval(fall: tuple[float, float, float], good: bool, advice: str) -> None:
    found = gain(fall, 24)
    assert (found.value, found.low, found.high, found.good) == (*fall, good)
    assert advice in found.advice
    assert "24 items" in found.words


def test_forgetting_is_a_rise() -> None:
    kept, lost = forgetting((0.03, 0.01, 0.05), 200), forgetting((-0.6, -0.7, -0.5), 200)
    assert (kept.value, kept.low, kept.high, kept.good) == (-0.03, -0.05, -0.01, True)
    assert (lost.value, lost.low, lost.high, lost.good) == (0.6, 0.5, 0.7, False)
    assert "+60%" in lost.words
    assert "prior" in lost.advice


def test_copies_and_leaks() -> None:
    assert memorisation(Copies(0.0, ((0, 30.0), (1, 40.0)), 35.0)).good
    assert not memorisation(Copies(0.5, ((0, 1.0), (1, 40.0)), 35.0)).good
    assert specificity(40.0, 10.0).value == 0.25
    assert specificity(40.0, 10.0).good
    assert not specificity(40.0, 36.0).good
    assert specificity(40.0, -3.0).value == 0.0


def test_a_report_is_plain_data() -> None:
    report = Report("peter-300-aaaaaa", (gain((0.4, 0.3, 0.5), 4),), ("leaks: no trigger",), "sheet.png")
    (measure,) = report.to_json()["measures"]
    assert (measure["name"], measure["value"]) == ("concept_gain", 0.4)


@pytest.mark.parametrize(
    ("prompt", "words", "left"),
    [
        ("zorbli monster, waving, at night", ("zorbli",), "monster, waving, at night"),
        ("a photo, zorbli, at night", ("zorbli",), "a photo, at night"),
        ("Zorbli", ("zorbli",), ""),
        ("zorblike monster", ("zorbli",), "zorblike monster"),
        ("qb_peter and qb_maria", ("qb_peter", "qb_maria"), "and"),
    ],
)
def test_words_are_taken_out_whole(prompt: str, words: tuple[str, ...], left: str) -> None:
    assert without_words(prompt, words) == left
