import subprocess
import sys

import numpy as np
import pytest
import torch
from exact_helpers import rational_distances
from hypothesis import given
from hypothesis import strategies as st

from rankproof import Gallery, RankproofError
from rankproof.ranking import gallery as rooms

distances = pytest.mark.parametrize("distance", ["cosine", "euclidean", "sphere"])
cases = given(
    n=st.integers(2, 25),
    b=st.integers(1, 6),
    m=st.integers(1, 4),
    levels=st.sampled_from([1, 2, 1000]),
    seed=st.integers(0, 999),
)


@pytest.fixture(autouse=True, params=[(8192, 512), (3, 2)], ids=["one block", "blocks"])
def blocks(request):
    """The same answers whatever the blocks; set by hand because hypothesis wants no function-scoped state."""
    before = rooms.BLOCK_ITEMS, rooms.BLOCK_QUERIES
    rooms.BLOCK_ITEMS, rooms.BLOCK_QUERIES = request.param
    yield
    rooms.BLOCK_ITEMS, rooms.BLOCK_QUERIES = before


def whole(make, distance, n, b, levels, seed):
    """A gallery of whole numbers and queries for it: few levels mean many exact ties."""
    random = make.random(seed)
    embeddings, z = (torch.randint(-levels, levels + 1, (rows, 3), generator=random) for rows in (n, b))
    return make.raw(distance, embeddings.double()), z.double()


def pick(make, high, rows, columns, seed):
    return torch.randint(high, (rows, columns), generator=make.random(seed + 1))


@distances
@cases
def test_strict_rank_counts_the_strictly_nearer(make, distance, n, b, m, levels, seed):
    gallery, z = whole(make, distance, n, b, levels, seed)
    chosen = pick(make, n, b, m, seed)
    far = rational_distances(distance, z, gallery.embeddings)
    expected = [[sum(far[i] < far[i, c]) for c in chosen[i]] for i in range(b)]
    assert gallery.rank_of(z, chosen).tolist() == expected


@distances
@cases
def test_order_rank_is_the_place_in_the_returned_list(make, distance, n, b, m, levels, seed):
    gallery, z = whole(make, distance, n, b, levels, seed)
    chosen = pick(make, n, b, m, seed)
    listed = gallery.search(z, n).tolist()
    expected = [[listed[i].index(int(c)) for c in chosen[i]] for i in range(b)]
    assert gallery.rank_of(z, chosen, ties="order").tolist() == expected


@distances
@cases
def test_a_dropped_item_does_not_count(make, distance, n, b, m, levels, seed):
    gallery, z = whole(make, distance, n, b, levels, seed)
    chosen, dropped = pick(make, n, b, m, seed), pick(make, n, b, 1, seed + 1)[:, 0]
    far = rational_distances(distance, z, gallery.embeddings)
    expected = [
        [sum(far[i, x] < far[i, c] for x in range(n) if x != dropped[i]) for c in chosen[i]] for i in range(b)
    ]
    assert gallery.rank_of(z, chosen, excluded=dropped).tolist() == expected


def test_an_equally_far_dropped_item_does_not_count_in_the_returned_list(make):
    gallery = make.raw("euclidean", torch.tensor([[1.0], [1.0], [2.0]], dtype=torch.float64))
    z = torch.zeros(1, 1, dtype=torch.float64)
    chosen, dropped = torch.tensor([[1, 2]]), torch.tensor([0])
    assert gallery.rank_of(z, chosen, ties="order").tolist() == [[1, 2]]
    assert gallery.rank_of(z, chosen, ties="order", excluded=dropped).tolist() == [[0, 1]]


@distances
@cases
def test_search_is_a_stable_sort(make, distance, n, b, m, levels, seed):
    gallery, z = whole(make, distance, n, b, levels, seed)
    far = rational_distances(distance, z, gallery.embeddings)
    expected = np.argsort(far, axis=1, kind="stable")
    for top in (1, m, n, n + 3):
        assert gallery.search(z, top).tolist() == expected[:, :top].tolist()


def test_search_finds_the_first_of_more_equals_than_it_keeps_spare(make):
    embeddings = torch.ones(60, 2, dtype=torch.float64)
    embeddings[41] = 0
    gallery = make.raw("euclidean", embeddings)
    assert gallery.search(torch.zeros(3, 2, dtype=torch.float64), 4).tolist() == [[41, 0, 1, 2]] * 3


@distances
@cases
def test_rank_among_counts_the_strictly_nearer_to_each_query(make, distance, n, b, m, levels, seed):
    gallery, z = whole(make, distance, n, b, levels, seed)
    queries = pick(make, n, b, m, seed)
    far = rational_distances(distance, gallery.embeddings, gallery.embeddings)
    own = rational_distances(distance, gallery.embeddings, z)
    expected = [[sum(far[q] < own[q, i]) for q in queries[i]] for i in range(b)]
    assert gallery.rank_among(z, queries).tolist() == expected


@distances
@cases
def test_rank_among_leaves_a_dropped_item_out(make, distance, n, b, m, levels, seed):
    gallery, z = whole(make, distance, n, b, levels, seed)
    queries, dropped = pick(make, n, b, m, seed), pick(make, n, b, 1, seed + 1)[:, 0]
    far = rational_distances(distance, gallery.embeddings, gallery.embeddings)
    own = rational_distances(distance, gallery.embeddings, z)
    expected = [
        [sum(far[q, x] < own[q, i] for x in range(n) if x != dropped[i]) for q in queries[i]]
        for i in range(b)
    ]
    assert gallery.rank_among(z, queries, excluded=dropped).tolist() == expected


@distances
def test_an_unmoved_candidate_is_not_behind_its_own_copy(make, distance):
    """Its distance is taken in another way than its copy's: rounding must not put the copy ahead."""
    embeddings = make.embeddings(distance, 24, 33, seed=3).float()
    gallery = make.raw(distance, embeddings)
    own = torch.arange(24)
    queries = torch.stack([own.roll(7), own])  # (2, 24): other items, and the candidate itself
    for column in queries:
        place = gallery.rank_of(embeddings[column], own[:, None])
        assert torch.equal(gallery.rank_among(embeddings, column[:, None]), place)
        dropped = gallery.rank_among(embeddings, column[:, None], excluded=own)
        assert torch.equal(dropped, place)


@distances
def test_ranks_are_taken_in_double_precision(make, distance):
    """Neighbours that single precision cannot tell apart keep their order."""
    angles = torch.arange(40, dtype=torch.float64) * 1e-5
    embeddings = torch.stack([angles.cos(), angles.sin()], dim=1)
    if distance == "euclidean":
        embeddings = embeddings + torch.tensor([50.0, 0.0])
    gallery = make.raw(distance, embeddings)
    assert gallery.rank_of(embeddings[:1], torch.arange(40)[None]).tolist() == [list(range(40))]


def test_a_gallery_of_one_item_is_refused(make):
    with pytest.raises(RankproofError, match="at least 2"):
        Gallery.build(make.ranker(), make.images(1))


def test_labels_of_another_length_are_refused(make):
    with pytest.raises(RankproofError, match=r"labels: expected one integer for each of 3 items, got \(2,\)"):
        Gallery.build(make.ranker(), make.images(3), torch.tensor([0, 1]))


def test_build_embeds_as_the_ranker_does(make):
    ranker, images = make.ranker("euclidean", chunk=4), make.images(10)
    gallery = Gallery.build(ranker, images)
    torch.testing.assert_close(gallery.embeddings, ranker.embed(images).detach())
    assert not gallery.embeddings.requires_grad
    assert len(gallery) == 10


BIG = """
import resource, torch
from rankproof import Gallery, Ranker
torch.manual_seed(0)
gallery = Gallery(Ranker(torch.nn.Identity(), "euclidean"), torch.randn(60_000, 512))
z = gallery.embeddings[:1000]
own = torch.arange(1000)[:, None]
assert int(gallery.rank_of(z, own).max()) == 0
assert int(gallery.rank_among(z[:100], own[:100]).max()) == 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
"""


@pytest.mark.slow
def test_a_large_gallery_is_ranked_in_little_memory(blocks, request):
    if rooms.BLOCK_ITEMS < 1000:
        pytest.skip("measured once, with the real blocks")
    done = subprocess.run([sys.executable, "-c", BIG], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1.5  # GB; all distances at once would take 0.48 more each time they are held
