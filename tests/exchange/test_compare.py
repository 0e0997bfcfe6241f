"""Two cards side by side."""

from __future__ import annotations

from dataclasses import replace

from tunesmith.catalog.card import Card
from tunesmith.exchange.compare import compare_cards

ONE = Card(
    name="one",
    engine="test_pictures",
    method="lora",
    step=100,
    base_hash="a" * 64,
    measures={"loss": 0.2, "psnr_db": 20.0},
    recipe={"optimiser": {"rate": 1e-4, "name": "adamw"}, "length": {"steps": 100}},
    concepts={"peter": "qb_peter"},
)


def test_measures_come_first_and_only_differences_follow() -> None:
    other = replace(
        ONE,
        step=200,
        measures={"loss": 0.1, "extra": 1.0},
        recipe={"optimiser": {"rate": 2e-4, "name": "adamw"}, "length": {"steps": 100}, "data": {"prior": "none"}},
    )
    assert compare_cards(ONE, other) == [
        ("loss", "0.2", "0.1 (-50.0 %)"),
        ("psnr_db", "20", "-"),
        ("extra", "-", "1"),
        ("step", "100", "200"),
        ("optimiser.rate", "0.0001", "0.0002"),
        ("data.prior", "-", "none"),
    ]


def test_equal_cards_show_their_measures_only() -> None:
    assert compare_cards(ONE, ONE) == [("loss", "0.2", "0.2 (+0.0 %)"), ("psnr_db", "20", "20 (+0.0 %)")]


def test_hashes_are_short() -> None:
    assert ("base_hash", "a" * 16, "b" * 16) in compare_cards(ONE, replace(ONE, base_hash="b" * 64))
