import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from rankproof import Gallery, RankproofError
from rankproof.ranking.metrics import (
    SCALES,
    Scale,
    kendall_tau,
    mean_interval,
    normalised_rank,
    places_in,
    recall_at,
    short_range_tau,
    student_t,
)


@given(
    n=st.integers(2, 14),
    k=st.integers(1, 5),
    levels=st.sampled_from([1, 2, 1000]),
    distance=st.sampled_from(["cosine", "euclidean"]),
    seed=st.integers(0, 999),
)
def test_recall_equals_a_loop_over_the_others_with_duplicates_too(make, n, k, levels, distance, seed):
    random = make.random(seed)
    embeddings = torch.randint(-levels, levels + 1, (n, 2), generator=random).double()
    labels = torch.randint(3, (n,), generator=random)
    bare = make.raw(distance, embeddings)
    far = bare.distances(embeddings).numpy()
    expected = []
    for i in range(n):
        others = sorted((far[i, j], j) for j in range(n) if j != i)[:k]
        expected.append(float(any(labels[j] == labels[i] for _, j in others)))
    assert recall_at(Gallery(bare.ranker, embeddings, labels), k).tolist() == expected


def test_recall_without_labels_is_refused(make):
    with pytest.raises(RankproofError, match="labels"):
        recall_at(make.gallery(), 1)


@given(b=st.integers(1, 4), k=st.integers(2, 12), seed=st.integers(0, 999))
def test_kendall_tau_equals_scipy(make, b, k, seed):
    random = make.random(seed)
    ranks = torch.stack([torch.randperm(3 * k, generator=random)[:k] for _ in range(b)])
    expected = [kendalltau(np.arange(k), row.numpy()).statistic for row in ranks]
    assert kendall_tau(ranks).tolist() == pytest.approx(expected)


def test_kendall_tau_of_a_tie_is_neither_concordant_nor_discordant():
    assert kendall_tau(torch.tensor([[0, 1, 1], [5, 5, 5], [2, 1, 0]])).tolist() == pytest.approx(
        [2 / 3, 0, -1]
    )


def test_one_item_has_no_order():
    with pytest.raises(RankproofError, match="k = 1"):
        kendall_tau(torch.zeros(2, 1))


# -- where watched items stand in lists ------------------------------------------------------------


def naive_places(lists, watched):
    # One list and one set of watched ids: two loops.
    return [lists.index(name) if name in lists else len(lists) for name in watched]


def naive_short_range_tau(places, visible):
    # Algorithm 1 as printed: +1 for a pair in order, -1 for one out of order or with a missing item.
    k, total = len(places), 0
    for i in range(k):
        for j in range(i + 1, k):
            seen = visible is None or max(places[i], places[j]) < visible
            total += 1 if seen and places[i] < places[j] else -1
    return total / (k * (k - 1) / 2)


@given(
    n=st.integers(1, 8),
    k=st.integers(1, 12),
    dtype=st.sampled_from([torch.int16, torch.int32, torch.int64]),
    seed=st.integers(0, 999),
)
def test_places_equal_a_double_loop_with_missing_and_repeated_ids(make, n, k, dtype, seed):
    random = make.random(seed)
    lists = torch.randint(-3, 9, (4, n), generator=random).to(dtype)
    watched = torch.randint(-3, 9, (4, k), generator=random).to(dtype)
    expected = [naive_places(*pair) for pair in zip(lists.tolist(), watched.tolist(), strict=True)]
    places = places_in(lists, watched)
    assert places.tolist() == expected
    assert places.dtype == torch.int64


def test_the_first_of_repeated_ids_counts_and_a_missing_one_stands_behind_the_list():
    assert places_in(torch.tensor([7, 5, 7, 5, 9]), torch.tensor([5, 7, 9, 1])).tolist() == [1, 0, 4, 5]


def test_an_empty_list_shows_nothing():
    assert places_in(torch.empty(2, 0, dtype=torch.int64), torch.tensor([[1, 2], [3, 4]])).tolist() == [
        [0, 0],
        [0, 0],
    ]


@pytest.mark.parametrize("n", [2**15 - 1, 2**15, 2**15 + 3])
def test_long_lists_are_counted_to_their_end(n):
    watched = torch.tensor([n - 1, 0, n, n // 2])
    assert places_in(torch.arange(n), watched).tolist() == [n - 1, 0, n, n // 2]


def test_ids_that_only_differ_in_their_last_bit_are_told_apart():
    big = 2**63 - 1
    lists = torch.tensor([big, big - 1, -big - 1, 2**53, 2**53 + 1, 2**32, 0])
    assert places_in(lists, lists.flip(0)).tolist() == [6, 5, 4, 3, 2, 1, 0]
    assert places_in(lists, torch.tensor([big - 2, -big, -1, 2**53 + 2])).tolist() == [7, 7, 7, 7]


def test_leading_dimensions_of_lists_and_watched_ids_broadcast(make):
    random = make.random(3)
    lists = torch.randint(9, (3, 4, 6), generator=random)
    watched = torch.randint(9, (3, 1, 5), generator=random)
    places = places_in(lists, watched)
    assert places.shape == (3, 4, 5)
    for row in range(3):
        for picture in range(4):
            assert places[row, picture].tolist() == naive_places(
                lists[row, picture].tolist(), watched[row, 0].tolist()
            )


# -- the short-range ranking correlation -----------------------------------------------------------


@given(k=st.integers(2, 9), visible=st.one_of(st.none(), st.integers(1, 12)), seed=st.integers(0, 999))
def test_short_range_tau_equals_a_double_loop(make, k, visible, seed):
    random = make.random(seed)
    # As an oracle tells them: what is not visible stands at N, so unseen items tie there.
    places = torch.stack([torch.randperm(12, generator=random)[:k] for _ in range(5)])
    places = places if visible is None else places.clamp(max=visible)
    expected = [naive_short_range_tau(row, visible) for row in places.tolist()]
    assert short_range_tau(places, visible).tolist() == pytest.approx(expected)
    assert short_range_tau(places, visible).dtype == torch.float64


@given(k=st.integers(2, 12), spare=st.integers(0, 5), seed=st.integers(0, 999))
def test_with_everything_visible_it_is_kendalls_tau(make, k, spare, seed):
    places = torch.randperm(k + spare, generator=make.random(seed))[:k]
    expected = kendalltau(np.arange(k), places.numpy()).statistic
    for visible in (None, k + spare):
        assert float(short_range_tau(places, visible)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("places", "visible", "tau"),
    [
        ([0, 1, 2], 3, 1.0),
        ([2, 1, 0], 3, -1.0),
        ([3, 3, 3], 3, -1.0),
        ([0, 1, 3], 3, -1 / 3),
        ([0, 1, 7], 3, -1 / 3),
        ([3, 0, 1], 3, -1 / 3),
        ([0, 3, 3], 3, -1.0),
        ([0, 1], 1, -1.0),
    ],
)
def test_a_missing_item_counts_as_out_of_order_in_every_pair(places, visible, tau):
    assert float(short_range_tau(torch.tensor(places), visible)) == pytest.approx(tau)


@pytest.mark.parametrize("k", [2, 5, 25])
def test_a_list_of_exactly_the_chosen_reaches_both_ends(k):
    ahead = torch.arange(k)
    assert short_range_tau(torch.stack([ahead, ahead.flip(0)]), k).tolist() == [1.0, -1.0]


def test_short_range_tau_keeps_leading_dimensions(make):
    places = torch.randint(8, (2, 3, 4, 5), generator=make.random(1))
    values = short_range_tau(places, 6)
    assert values.shape == (2, 3, 4)
    assert float(values[1, 2, 3]) == pytest.approx(naive_short_range_tau(places[1, 2, 3].tolist(), 6))


@pytest.mark.parametrize("k", [0, 1])
def test_fewer_than_two_items_have_no_short_range_order(k):
    with pytest.raises(RankproofError, match=f"at least 2 items, got k = {k}"):
        short_range_tau(torch.zeros(2, k, dtype=torch.int64), 5)


def test_normalised_rank_is_a_percentage_of_the_whole_gallery():
    assert normalised_rank(torch.tensor([[0, 30, 59]]), 60).tolist() == [
        [0.0, 50.0, pytest.approx(5900 / 60)]
    ]
    assert normalised_rank(torch.tensor([1]), 3).dtype == torch.float64


def test_the_interval_is_students_on_either_side(make):
    values = torch.rand(30, generator=make.random(0))
    summary, error = mean_interval(values), np.std(values.numpy(), ddof=1) / math.sqrt(30)
    assert summary.mean == pytest.approx(values.mean().item())
    assert summary.high - summary.mean == pytest.approx(2.0452296 * error)
    assert summary.mean - summary.low == pytest.approx(2.0452296 * error)
    assert summary.half_width == pytest.approx(2.0452296 * error)


def test_the_quantiles_are_those_of_the_tables():
    known = {1: 12.7062047, 2: 4.3026527, 3: 3.1824463, 4: 2.7764451, 5: 2.5705818, 9: 2.2621572}
    known |= {10: 2.2281389, 30: 2.0422725, 99: 1.9842170, 999: 1.9623415, 9999: 1.9602013}
    for degrees, expected in known.items():
        assert student_t(degrees) == pytest.approx(expected, abs=5e-8)
    assert student_t(1000) > student_t(1001) > student_t(10**9) == pytest.approx(1.9599640, abs=5e-8)


def test_the_interval_covers_the_mean_of_few_attacks_as_often_as_it_says(make):
    """With 1.96 standard errors three attacks of normal figures would cover it in 81 of 100 audits only."""
    values = torch.randn(2000, 3, generator=make.random(0), dtype=torch.float64)
    intervals = [mean_interval(row) for row in values]
    covered = sum(each.low <= 0 <= each.high for each in intervals) / len(intervals)
    assert covered == pytest.approx(0.95, abs=0.015)


def test_the_interval_ends_where_the_figure_does():
    for name, values, ends in (("rank", [0.0, 9.0], (0.0, None)), ("tau", [1.0, 0.2], (None, 1.0))):
        summary = mean_interval(torch.tensor(values), SCALES[name])
        plain = mean_interval(torch.tensor(values))
        low, high = ends
        assert plain.low < 0 or plain.high > 1
        if low is not None:
            assert (summary.low, summary.high) == (low, plain.high)
        if high is not None:
            assert (summary.low, summary.high) == (max(plain.low, -1.0), high)
    assert mean_interval(torch.tensor([0.1, 0.9]), SCALES["shift"]).low == 0


def test_a_share_is_never_certain():
    """Wilson's interval: 10 of 10 may well be 72 % (Agresti and Coull 1998)."""
    whole = mean_interval(torch.ones(10), SCALES["hit"])
    assert (whole.mean, whole.low, whole.high) == (1.0, pytest.approx(0.722467, abs=1e-6), 1.0)
    none = mean_interval(torch.zeros(3), SCALES["kept"])
    assert (none.mean, none.low, none.high) == (0.0, 0.0, pytest.approx(0.561497, abs=1e-6))
    some = mean_interval(torch.tensor([1.0, 0.0, 0.0, 0.0]), SCALES["hit"])
    assert (some.low, some.high) == (pytest.approx(0.045587, abs=1e-6), pytest.approx(0.699358, abs=1e-6))
    percent = mean_interval(100 * torch.ones(10), Scale(low=0.0, high=100.0, binary=True))
    assert percent.low == pytest.approx(100 * whole.low)


def test_one_value_has_no_finite_interval():
    summary = mean_interval(torch.tensor([3.0]))
    assert (summary.mean, summary.low, summary.high) == (3.0, -math.inf, math.inf)
