import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankproof.ranking import Cosine, Euclidean
from rankproof.ranking.distances import distance_by_name

sizes, seeds = st.integers(1, 7), st.integers(0, 999)


def pair(make, m, n, d, seed):
    random = make.random(seed)
    return [
        torch.randn(rows, d, generator=random, dtype=torch.float64).requires_grad_(True) for rows in (m, n)
    ]


@given(m=sizes, n=sizes, d=sizes, seed=seeds)
def test_euclidean_distances_and_both_gradients_equal_cdist(make, m, n, d, seed):
    a, b = pair(make, m, n, d, seed)
    weights = torch.randn(m, n, generator=make.random(seed + 1), dtype=torch.float64)
    expected = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    found = Euclidean().pairwise(a, b)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad((found * weights).sum(), (a, b)),
        torch.autograd.grad((expected * weights).sum(), (a, b)),
    )


@pytest.mark.parametrize("wanted", [0, 1])
def test_euclidean_gradient_reaches_each_argument_alone(make, wanted):
    both = pair(make, 3, 4, 2, 0)
    fixed = [z if place == wanted else z.detach() for place, z in enumerate(both)]
    (found,) = torch.autograd.grad(Euclidean().pairwise(*fixed).sum(), both[wanted])
    (expected,) = torch.autograd.grad(torch.cdist(*both).sum(), both[wanted])
    torch.testing.assert_close(found, expected)


def test_euclidean_gradient_at_distance_zero_is_zero():
    a = torch.tensor([[1.0, 2.0, -3.0]], dtype=torch.float64, requires_grad=True)
    b = a.detach().clone().requires_grad_(True)
    distances = Euclidean().pairwise(a, b)
    assert distances.item() == 0
    for gradient in torch.autograd.grad(distances.sum(), (a, b)):
        assert torch.equal(gradient, torch.zeros(1, 3, dtype=torch.float64))


def test_a_zero_distance_leaves_the_other_gradients_alone():
    a = torch.tensor([[3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(Euclidean().pairwise(a, b).sum(), a)
    torch.testing.assert_close(gradient, torch.tensor([[0.6, 0.8]], dtype=torch.float64))


def test_euclidean_between_has_zero_gradient_at_distance_zero():
    a = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(Euclidean().between(a, a.detach()).sum(), a)
    assert torch.equal(gradient, torch.zeros(2, 3, dtype=torch.float64))


@pytest.mark.parametrize("distance", [Cosine(), Euclidean()])
@given(m=sizes, n=sizes, d=st.integers(2, 7), seed=seeds)
def test_pairwise_equals_between_and_the_definition(make, distance, m, n, d, seed):
    raw_a, raw_b = (z.detach() for z in pair(make, m, n, d, seed))
    a, b = distance.prepare(raw_a), distance.prepare(raw_b)
    if distance.name == "cosine":
        expected = 1 - torch.cosine_similarity(raw_a[:, None], raw_b[None], dim=-1)
    else:
        expected = (raw_a[:, None] - raw_b[None]).square().sum(-1).sqrt()
    torch.testing.assert_close(distance.pairwise(a, b), expected)
    torch.testing.assert_close(distance.between(a[:, None], b[None]), expected)


def test_euclidean_embeddings_are_not_scaled():
    z = torch.tensor([[3.0, 4.0]])
    assert torch.equal(Euclidean().prepare(z), z)


def test_an_unknown_distance_names_the_known_ones():
    with pytest.raises(ValueError, match="cosine, euclidean"):
        distance_by_name("manhattan")
