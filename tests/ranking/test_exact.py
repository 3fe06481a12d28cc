"""Ranks, tau and R@k are those of exact arithmetic on the embeddings, whatever their scale."""

import mpmath
import numpy as np
import pytest
import torch
from exact_helpers import rational_distances
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rankproof import Gallery, Ranker
from rankproof.goals.base import AttackContext
from rankproof.goals.order import Reorder
from rankproof.ranking import exact
from rankproof.ranking.distances import distance_by_name
from rankproof.ranking.exact import exact_distances, frame_of
from rankproof.ranking.metrics import kendall_tau, recall_at

NAMES = ["cosine", "euclidean", "sphere"]
distances = pytest.mark.parametrize("distance", NAMES)
shapes = given(
    scale=st.sampled_from([1e-12, 1e-7, 1.0, 3e4, 1e8]),
    spread=st.sampled_from([1.0, 1e-2, 1e-4, 1e-6, 3e-8]),
    levels=st.sampled_from([1, 2, None]),
    seed=st.integers(0, 9999),
)
N, DIMENSIONS, QUERIES = 24, 5, 4


def embeddings(make, count, scale, spread, levels, seed):
    """Single-precision embeddings around a common direction: whole numbers of a grid, or any; some equal."""
    random = make.random(seed)
    offset = torch.randn(1, DIMENSIONS, generator=make.random(seed + 1)) if spread < 1 else 0.0
    if levels is None:
        z = torch.randn(count, DIMENSIONS, generator=random)
    else:
        z = torch.randint(-levels, levels + 1, (count, DIMENSIONS), generator=random).float()
    z[count // 2] = z[0]
    return (offset + spread * z) * scale


def gallery_of(z, distance):
    return Gallery(Ranker(nn.Identity(), distance), z)


def exact_places(keys, chosen, *, strict, excluded=None):
    """The places of chosen items by rational keys (b, n), counted one by one."""
    places = []
    for row, items in enumerate(chosen):
        others = [x for x in range(keys.shape[1]) if excluded is None or x != excluded[row]]
        places.append([
            sum(keys[row, x] < keys[row, c] or (not strict and keys[row, x] == keys[row, c] and x < c)
                for x in others) for c in items
        ])  # fmt: skip
    return places


@settings(max_examples=40)
@distances
@shapes
def test_every_rank_is_the_rational_one(make, distance, scale, spread, levels, seed):
    z = embeddings(make, N + QUERIES, scale, spread, levels, seed)
    gallery, queries = gallery_of(z[:N], distance), z[N:]
    queries[0] = z[0]  # its own copy, twice
    keys = rational_distances(distance, queries, z[:N])
    chosen = torch.randint(N, (QUERIES, 3), generator=make.random(seed))
    excluded = torch.randint(N, (QUERIES,), generator=make.random(seed + 2))
    items = chosen.tolist()
    assert gallery.rank_of(queries, chosen).tolist() == exact_places(keys, items, strict=True)
    places = exact_places(keys, items, strict=False, excluded=excluded.tolist())
    assert gallery.rank_of(queries, chosen, ties="order", excluded=excluded).tolist() == places
    listed = np.argsort(keys, axis=1, kind="stable")
    assert gallery.search(queries, N).tolist() == listed.tolist()
    assert gallery.search(queries, 3).tolist() == listed[:, :3].tolist()
    whole = gallery.squared_lengths(queries).sort(dim=1, stable=True).indices
    assert whole.tolist() == listed.tolist()


@settings(max_examples=40)
@distances
@shapes
def test_every_rank_of_a_candidate_is_the_rational_one(make, distance, scale, spread, levels, seed):
    z = embeddings(make, N + QUERIES, scale, spread, levels, seed)
    gallery, candidates = gallery_of(z[:N], distance), z[N:]
    candidates[0] = z[0]
    queries = torch.randint(N, (QUERIES, 3), generator=make.random(seed))
    excluded = torch.randint(N, (QUERIES,), generator=make.random(seed + 2))
    keys = rational_distances(distance, z[:N], z)
    to_all, to_candidate = keys[:, :N], keys[:, N:]
    for left_out in (None, excluded):
        expected = [
            [sum(to_all[q, x] < to_candidate[q, row] for x in range(N)
                 if left_out is None or x != left_out[row]) for q in asked]
            for row, asked in enumerate(queries.tolist())
        ]  # fmt: skip
        assert gallery.rank_among(candidates, queries, excluded=left_out).tolist() == expected


@distances
@shapes
def test_tau_and_recall_are_the_rational_ones(make, distance, scale, spread, levels, seed):
    z = embeddings(make, N, scale, spread, levels, seed)
    labels = torch.randint(3, (N,), generator=make.random(seed))
    gallery = Gallery(Ranker(nn.Identity(), distance), z, labels)
    keys = rational_distances(distance, z, z)
    nearest = [min((x for x in range(N) if x != q), key=lambda x: (keys[q, x], x)) for q in range(N)]
    assert recall_at(gallery, 1).tolist() == (labels[nearest] == labels).float().tolist()
    chosen = torch.stack([torch.randperm(N, generator=make.random(seed + q))[:5] for q in range(4)])
    places = torch.tensor(exact_places(keys[:4], chosen.tolist(), strict=False))
    context = AttackContext(gallery=gallery, clean=z[:4], rng_keys=range(4), seed=0, targets=chosen)
    assert torch.equal(Reorder(k=5).bind(context).metrics(z[:4])["tau"], kendall_tau(places))


@distances
@pytest.mark.parametrize("spread", [1.0, 1e-2, 3e-5])
def test_ranks_of_many_dimensions_agree_with_fifty_digits(make, distance, spread):
    """A narrow cone (median cosine distance down to 4.5e-10), near-equal neighbours and exact duplicates."""
    random = make.random(8)
    z = 1 + spread * torch.randn(160, 96, generator=random)
    z[40:60] = z[:20]
    z[60:80] = z[:20] * (1 + 2.0**-20)  # of the same direction up to rounding
    gallery = gallery_of(z, distance)
    far = fifty_digits(z[:6], z, unit=distance != "euclidean")
    expected = [[sum(x < row[c] for x in row) for c in range(160)] for row in far]
    assert gallery.rank_of(z[:6], torch.arange(160).expand(6, -1)).tolist() == expected


def fifty_digits(a, b, *, unit):
    """Squared lengths to forty digits after the point, as whole numbers."""
    with mpmath.workdps(50):
        a, b = ([[mpmath.mpf(float(x)) for x in row] for row in z] for z in (a, b))
        if unit:
            a, b = ([[x / mpmath.norm(row) for x in row] for row in z] for z in (a, b))
        return [
            [round(sum((x - y) ** 2 for x, y in zip(p, q, strict=True)) * mpmath.mpf(10) ** 40) for q in b]
            for p in a
        ]


@distances
@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e8, 1e30])
@pytest.mark.parametrize("spread", [1.0, 1e-3, 3e-8])
def test_quick_lengths_keep_their_margin_and_exact_ones_are_rounded_once(make, distance, scale, spread):
    z = torch.randn(1, 37, generator=make.random(1)) + spread * torch.randn(5, 37, generator=make.random(2))
    z = z * scale
    frame = frame_of(z, distance_by_name(distance))
    points = frame.points(z)
    quick, margin = frame.squared(points, points), frame.margin(points)
    with mpmath.workdps(60):
        rows = [[mpmath.mpf(float(x)) * mpmath.mpf(frame.scale) for x in row] for row in z]
        if distance != "euclidean":
            rows = [[x / mpmath.norm(row) for x in row] for row in rows]
        for i, j in torch.combinations(torch.arange(5)).tolist():
            true = sum((x - y) ** 2 for x, y in zip(rows[i], rows[j], strict=True))
            assert abs(float(quick[i, j]) - true) <= float(margin[i])
            assert abs(float(frame.exact(z[i, None], z[j, None])) - true) <= true * mpmath.mpf(2) ** -52


@distances
def test_exact_distances_are_those_of_their_definition(make, distance):
    a, b = (torch.randn(6, 7, generator=make.random(seed)) for seed in (1, 2))
    measure = distance_by_name(distance)
    prepared = [measure.prepare(z.double()) for z in (a, b)]
    torch.testing.assert_close(exact_distances(measure, a, b), measure.between(*prepared))
    assert exact_distances(measure, a, a).tolist() == [0.0] * 6


def test_an_embedding_without_direction_has_the_cosine_zero():
    z = torch.tensor([[1.0, 0.0], [0.0, 0.0], [-1.0, 1.0], [2.0, 1.0]])
    gallery = gallery_of(z, "cosine")
    assert gallery.search(z[:1], 4).tolist() == [[0, 3, 1, 2]]
    assert gallery.search(z[1:2], 4).tolist() == [[0, 1, 2, 3]]
    assert exact_distances(gallery.ranker.distance, z[1:2], z[:1]).tolist() == [1.0]


@distances
def test_a_collapsed_gallery_ties_everything(make, distance):
    z = torch.full((40, 6), 0.3)
    gallery = gallery_of(z, distance)
    chosen = torch.tensor([[0, 7, 39]])
    assert gallery.rank_of(z[:1], chosen).tolist() == [[0, 0, 0]]
    assert gallery.rank_of(z[:1], chosen, ties="order").tolist() == [[0, 7, 39]]
    assert gallery.search(z[:1], 5).tolist() == [[0, 1, 2, 3, 4]]


@distances
def test_zeros_of_either_sign_are_compared_once(distance, monkeypatch):
    z = torch.zeros(300, 6)
    z[::2] *= -1
    z[1::3, :3] *= -1
    pairs, compare = [], exact.LengthFrame.exact
    monkeypatch.setattr(
        exact.LengthFrame, "exact", lambda self, a, b: (pairs.append(len(a)), compare(self, a, b))[1]
    )
    chosen = torch.tensor([[0, 7, 39]])
    assert gallery_of(z, distance).rank_of(z[:1], chosen, ties="order").tolist() == [[0, 7, 39]]
    assert max(pairs, default=0) <= 1


def test_hash_codes_tie_where_their_bits_do(make):
    """Signs as embeddings: few distinct distances, none of them between equal embeddings."""
    z = torch.randint(0, 2, (200, 16), generator=make.random(3)).float() * 2 - 1
    bits = (z[:5, None] != z).sum(2)
    expected = [[int((row < row[c]).sum()) for c in range(200)] for row in bits]
    for distance in NAMES:
        gallery = gallery_of(z, distance)
        assert gallery.rank_of(z[:5], torch.arange(200).expand(5, -1)).tolist() == expected
        assert torch.equal(gallery.search(z[:5], 9), bits.sort(dim=1, stable=True).indices[:, :9])


@distances
def test_ordinary_embeddings_need_no_exact_comparison(make, distance, monkeypatch):
    gallery = gallery_of(torch.randn(500, 32, generator=make.random(4)), distance)
    z, ids = torch.randn(20, 32, generator=make.random(5)), torch.arange(40).view(20, 2)
    before = gallery.rank_of(z, ids), gallery.search(z, 10), gallery.rank_among(z, ids)
    monkeypatch.setattr(exact.LengthFrame, "exact", lambda *pair: pytest.fail("compared exactly"))
    after = gallery.rank_of(z, ids), gallery.search(z, 10), gallery.rank_among(z, ids)
    assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True))


@distances
def test_hash_codes_need_no_exact_comparison_either(make, distance, monkeypatch):
    """Nearly all pairs tie: one by one they would take minutes in a gallery of thousands."""
    z = torch.randint(-3, 4, (300, 16), generator=make.random(3)).float() / 8
    z[(z == 0).all(1)] = 1.0
    chosen = torch.arange(40).view(10, 4)
    keys = rational_distances(distance, z[:10], z)
    expected = exact_places(keys, chosen.tolist(), strict=False)
    monkeypatch.setattr(exact.LengthFrame, "exact", lambda *pair: pytest.fail("compared one by one"))
    gallery = gallery_of(z, distance)
    assert gallery.rank_of(z[:10], chosen, ties="order").tolist() == expected
    assert gallery.search(z[:10], 300).tolist() == np.argsort(keys, axis=1, kind="stable").tolist()


@distances
@pytest.mark.parametrize("offset", [0.0, 3000.0])
def test_attacks_see_the_distances_of_a_narrow_gallery(make, distance, offset):
    """In single precision and far from the origin, the distances an attack goes by are right to 1e-3."""
    z = offset + torch.randn(30, 8, generator=make.random(6))
    gallery, queries = gallery_of(z, distance), z[:4] + 0.3 * torch.randn(4, 8, generator=make.random(7))
    pairs = queries.repeat_interleave(30, 0), z.repeat(4, 1)
    true = gallery.exact_between(*pairs).view(4, 30).float()
    torch.testing.assert_close(gallery.distances(queries), true, rtol=1e-3, atol=0)
    anchors = gallery.prepare(z[5:9])
    own = gallery.between(anchors, gallery.prepare(queries))
    torch.testing.assert_close(own, true[torch.arange(4), torch.arange(5, 9)], rtol=1e-3, atol=0)


@distances
@pytest.mark.parametrize("scale", [1e-25, 1e-12, 1e20])
def test_prepared_embeddings_of_any_scale_have_a_gradient(make, distance, scale):
    z = (torch.randn(3, 6, generator=make.random(1)) * scale).requires_grad_(True)
    measure = distance_by_name(distance)
    prepared = measure.prepare(z)
    assert bool(prepared.isfinite().all())
    if distance != "euclidean":
        torch.testing.assert_close(prepared.norm(dim=1), torch.ones(3))
        (gradient,) = torch.autograd.grad(prepared[:, 0].sum(), z)
        expected = torch.autograd.grad(measure.prepare(z / scale)[:, 0].sum(), z)[0]
        torch.testing.assert_close(gradient * scale, expected * scale)
