"""The published figures at eps = 0, where nothing has been attacked yet (paper-facts, section 3)."""

import pytest
import torch

from rankproof import (
    CandidateLower,
    CandidateRaise,
    Gallery,
    Preserve,
    QueryLower,
    QueryRaise,
    Ranker,
    Reorder,
    Threat,
    attack,
    load,
)
from rankproof.models.small_cnns import DigitsEncoder


@pytest.fixture(scope="module", params=["cosine", "euclidean"])
def digits(request):
    """The embedded digits under an encoder with random weights, in single precision as in earnest."""
    torch.manual_seed(0)
    images = load("digits").as_float()
    return images, Gallery.build(Ranker(DigitsEncoder(), request.param), images)


def clean(digits, goal):
    images, gallery = digits
    return attack(gallery, images, goal, Threat(0.0), gallery_ids=torch.arange(len(images)), seed=3)


def within_four_errors(values, expected):
    error = values.std().item() / len(values) ** 0.5
    return abs(values.mean().item() - expected) < 4 * error


@pytest.mark.parametrize("k", [5, 10, 25])
def test_order_attack_starts_without_correlation_and_at_the_exact_mean_rank(digits, k):
    result = clean(digits, Reorder(k=k))
    assert result.mean_rank.tolist() == [(k - 1) / 2] * len(result)
    assert within_four_errors(result.tau, 0)
    assert result.tau.std().item() == pytest.approx((2 * (2 * k + 5) / (9 * k * (k - 1))) ** 0.5, rel=0.15)


@pytest.mark.parametrize("goal", [CandidateRaise(), QueryRaise()], ids=["ca+", "qa+"])
def test_raised_items_start_half_way(digits, goal):
    result = clean(digits, goal)
    assert within_four_errors(result.rank_after[:, 0], 100 * 398 / 797)


def test_lowered_results_start_in_the_middle_of_their_pool(digits):
    result = clean(digits, QueryLower() + 100.0 * Preserve())
    ranks = result.rank_after[:, 0] * 797 / 100
    assert ranks.min().item() == pytest.approx(1)  # rank 0 is the query's own copy
    assert ranks.max().item() == pytest.approx(18)
    assert within_four_errors(ranks, 9.5)


def test_a_candidate_to_be_lowered_starts_near_the_top(digits):
    assert clean(digits, CandidateLower()).mean.mean < 5


def test_preserved_results_start_at_the_top(digits):
    ranks = clean(digits, QueryRaise() + 1.0 * Preserve(g=5)).sp_rank * 797 / 100
    expected = torch.arange(1.0, 6.0, dtype=torch.float64).expand(797, 5)
    torch.testing.assert_close(ranks, expected)
