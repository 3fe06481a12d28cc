import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from rankproof import Gallery, RankproofError
from rankproof.ranking.metrics import kendall_tau, normalised_rank, recall_at, summarise


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


def test_normalised_rank_is_a_percentage_of_the_whole_gallery():
    assert normalised_rank(torch.tensor([[0, 30, 59]]), 60).tolist() == [
        [0.0, 50.0, pytest.approx(5900 / 60)]
    ]
    assert normalised_rank(torch.tensor([1]), 3).dtype == torch.float64


def test_the_interval_is_196_standard_errors_on_either_side(make):
    values = torch.rand(30, generator=make.random(0))
    summary, error = summarise(values), np.std(values.numpy(), ddof=1) / math.sqrt(30)
    assert summary.mean == pytest.approx(values.mean().item())
    assert summary.high - summary.mean == pytest.approx(1.96 * error)
    assert summary.mean - summary.low == pytest.approx(1.96 * error)
    assert summary.half_width == pytest.approx(1.96 * error)


def test_one_value_has_no_finite_interval():
    summary = summarise(torch.tensor([3.0]))
    assert (summary.mean, summary.low, summary.high) == (3.0, -math.inf, math.inf)
