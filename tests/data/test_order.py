"""The split and the order: functions of a seed, exact shares, any batch at once."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data.item import Item
from tunesmith.data.order import Order, holdout_visits, permutation, split
from tunesmith.errors import DataError


def items(*groups: str, prior: bool = False) -> list[Item]:
    return [Item(key=f"{group}{at}", media={}, text={}, group=group, prior=prior) for at, group in enumerate(groups)]


# ---------------------------------------------------------------- split


def test_groups_stay_together():
    training, held_out = split(items(*(f"g{at % 20}" for at in range(100))), 0.3, seed=1)
    assert len(training) + len(held_out) == 100
    assert not {item.group for item in training} & {item.group for item in held_out}
    assert held_out


def test_new_items_move_no_other():
    first = [f"g{at}" for at in range(200)]
    _, before = split(items(*first), 0.2, seed=3)
    _, after = split(items(*first, *(f"new{at}" for at in range(50))), 0.2, seed=3)
    assert {item.group for item in before} == {item.group for item in after if item.group.startswith("g")}


def test_share_and_seed():
    many = items(*(f"g{at}" for at in range(2000)))
    outs = [{item.key for item in split(many, 0.1, seed)[1]} for seed in range(3)]
    for out in outs:
        assert len(out) == pytest.approx(200, abs=45)  # 3.3 standard deviations
    assert outs[0] != outs[1] != outs[2]


@pytest.mark.parametrize("count", [2, 3, 5, 12])
@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5, 0.9])
def test_small_datasets_have_both_sides(count, fraction):
    for seed in range(20):
        training, held_out = split(items(*(f"g{at}" for at in range(count))), fraction, seed)
        assert training
        assert held_out
        assert len(held_out) <= max(1, -(-Fraction(str(fraction)) * 2 * count // 1))


@pytest.mark.parametrize(("groups", "fraction"), [(["a"], 0.5), (["a", "a"], 0.5), (["a", "b"], 0.0), ([], 0.5)])
def test_nothing_to_hold_out(groups, fraction):
    training, held_out = split(items(*groups), fraction, seed=0)
    assert (len(training), held_out) == (len(groups), ())


def test_prior_items_always_train():
    mixed = items("a", "b", "c") + items(*(f"p{at}" for at in range(50)), prior=True)
    training, held_out = split(mixed, 0.5, seed=0)
    assert sum(item.prior for item in training) == 50
    assert not any(item.prior for item in held_out)


# ---------------------------------------------------------------- order


def order(shapes="aaaaa", repeats=None, prior=None, batch=2, fraction=0.0, seed=0) -> Order:
    count = len(shapes)
    return Order(list(shapes), repeats or [1] * count, prior or [False] * count, batch, fraction, seed)


def test_an_epoch_visits_each_item_as_often_as_it_repeats():
    made = order("aabbb", repeats=[3, 1, 2, 2, 5], batch=2)
    for epoch in range(4):
        assert Counter(index for batch in made.epoch(epoch) for index in batch) == {0: 3, 1: 1, 2: 2, 3: 2, 4: 5}
    assert made.items_per_epoch == 13


def test_batches_are_full_but_the_last_of_a_shape():
    made = order("aaabbbbbc", batch=2)
    assert made.batches_per_epoch == 2 + 3 + 1
    sizes = Counter(len(batch) for batch in made.epoch(0))
    assert sizes == {2: 3, 1: 3}
    for batch in made.epoch(0):
        assert len({made.shapes[index] for index in batch}) == 1


def test_epochs_differ_and_are_functions_of_the_seed():
    assert order("a" * 30).epoch(0) != order("a" * 30).epoch(1)
    assert order("a" * 30).epoch(5) == order("a" * 30).epoch(5)
    assert order("a" * 30, seed=1).epoch(0) != order("a" * 30, seed=2).epoch(0)


def test_recorded_order():
    """Frozen: a changed order would break the resume of runs that exist."""
    assert permutation(6, "0/0/views/a") == [4, 3, 0, 5, 2, 1]
    assert order("aaabb", batch=2).epoch(0) == ((0,), (1, 2), (4, 3))
    made = Order(["a"] * 4 + ["b"] * 2 + ["a", "c"], [1] * 8, [False] * 6 + [True] * 2, 2, 0.5, 7)
    assert made.epoch(0) == ((5, 4), (3, 6), (6, 6), (2, 6), (1, 6), (0, 6))
    assert made.epoch(1) == ((2, 6), (4, 5), (0, 6), (7, 7), (3, 6), (1, 6))


def test_a_shape_may_be_an_empty_word():
    made = Order(["", "", "x"], [1, 1, 1], [False, False, True], 2, 0.5, 0)
    assert Counter(at for batch in made.epoch(0) for at in batch) == {0: 1, 1: 1, 2: 2}


def test_any_batch_at_once_is_what_a_run_reaches():
    played = order("aaabbbbc", repeats=[1, 2, 3, 1, 1, 2, 2, 1], batch=3)
    position, wanted = 0, []
    for epoch in range(3):
        for batch in played.epoch(epoch):
            wanted.append((batch, position))
            position += len(batch)
    fresh = order("aaabbbbc", repeats=[1, 2, 3, 1, 1, 2, 2, 1], batch=3)
    for index in (len(wanted) - 1, 0, 5, 3, len(wanted) // 2, *range(len(wanted))):
        assert fresh.batch(index) == wanted[index]
        assert fresh.items_before(index) == wanted[index][1]
    assert len(wanted) == 3 * fresh.batches_per_epoch


def mixed(own: int, prior: int, batch: int, fraction: float, *, prior_shape="a", seed=0) -> Order:
    return Order(
        ["a"] * own + [prior_shape] * prior, [1] * (own + prior), [False] * own + [True] * prior, batch, fraction, seed
    )


@pytest.mark.parametrize("prior_shape", ["a", "b"])
@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("batch", [1, 2, 3, 8])
@pytest.mark.parametrize("own", [1, 7, 40])
def test_prior_share(own, batch, fraction, prior_shape):
    made = mixed(own, 5, batch, fraction, prior_shape=prior_shape)
    drawn = [index for batch_ in made.epoch(0) for index in batch_]
    owed = Fraction(str(fraction)) / (1 - Fraction(str(fraction))) * own
    priors = sum(index >= own for index in drawn)
    assert Counter(index for index in drawn if index < own) == dict.fromkeys(range(own), 1)
    assert owed <= priors < owed + 1 + batch * fraction  # the first batches are filled before the share is exact
    assert all(len(batch_) <= batch for batch_ in made.epoch(0))
    assert all(len({made.shapes[index] for index in batch_}) == 1 for batch_ in made.epoch(0))


def test_every_batch_holds_its_part():
    for batch in mixed(32, 9, 4, 0.5).epoch(0):
        assert sum(index >= 32 for index in batch) == 2


@pytest.mark.parametrize("own", [3, 10])
def test_prior_items_cycle_over_the_epochs(own):
    """However short an epoch, all prior items are used, each as often as the others (but for one)."""
    made = mixed(own, 7, 2, 0.5)
    counts: Counter[int] = Counter()
    for epoch in range(20):
        counts.update(index for batch in made.epoch(epoch) for index in batch if index >= own)
    assert len(counts) == 7
    assert max(counts.values()) - min(counts.values()) <= 1


def test_prior_shapes_of_their_own_all_come():
    made = Order(["a"] * 20 + ["b"] * 3 + ["c"], [1] * 24, [False] * 20 + [True] * 4, 2, 0.5, 0)
    drawn = Counter(index for epoch in range(3) for batch in made.epoch(epoch) for index in batch if index >= 20)
    assert set(drawn) == {20, 21, 22, 23}


def test_fraction_without_prior_items_and_prior_items_without_fraction():
    assert order("aaaa", fraction=0.5).epoch(0) == order("aaaa").epoch(0)
    assert {index for batch in mixed(4, 3, 2, 0.0).epoch(0) for index in batch} == {0, 1, 2, 3}


@pytest.mark.parametrize("prior", [[True, True], []])
def test_nothing_to_train_on(prior):
    with pytest.raises(DataError, match="no item is left"):
        Order(["a"] * len(prior), [1] * len(prior), prior, 1, 0.5)


@pytest.mark.parametrize(
    "bad", [{"repeats": [1]}, {"batch": 0}, {"fraction": 1.0}, {"repeats": [0, 1, 1, 1, 1]}, {"prior": [False]}]
)
def test_wrong_arguments(bad):
    with pytest.raises(ValueError, match=r"must have|start at"):
        order(**bad)


@settings(max_examples=60, deadline=None)
@given(
    shapes=st.lists(st.sampled_from("abc"), min_size=1, max_size=12),
    prior_shapes=st.lists(st.sampled_from("abd"), max_size=6),
    batch=st.integers(1, 5),
    fraction=st.sampled_from([0.0, 0.2, 0.5, 0.9]),
    seed=st.integers(0, 3),
)
def test_whatever_the_dataset(shapes, prior_shapes, batch, fraction, seed):
    own, prior = len(shapes), len(prior_shapes)
    made = Order(shapes + prior_shapes, [1] * own + [3] * prior, [False] * own + [True] * prior, batch, fraction, seed)
    for epoch in (0, 1, 7):
        batches = made.epoch(epoch)
        assert len(batches) == made.batches_per_epoch
        assert sum(map(len, batches)) == made.items_per_epoch
        assert all(0 < len(found) <= batch for found in batches)
        assert Counter(at for found in batches for at in found if at < own) == dict.fromkeys(range(own), 1)
        assert all(len({made.shapes[at] for at in found}) == 1 for found in batches)


@pytest.mark.parametrize(("items", "visits"), [(0, 0), (1, 16), (4, 64), (6, 60), (100, 100), (256, 256), (1000, 250)])
def test_a_holdout_measurement_takes_a_bounded_number_of_visits(items: int, visits: int) -> None:
    assert holdout_visits(items) == visits
