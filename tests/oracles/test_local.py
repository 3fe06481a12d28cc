from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracle_helpers import SHAPE, around, brute_force, track

from rankproof import Gallery, LocalOracle, Ranker, RankproofError


@given(
    visible=st.sampled_from([None, 60, 50, 5, 1]),
    count=st.sampled_from([1, 2, 9]),
    spread=st.sampled_from([0.01, 0.1, 1.0]),
    excludes=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_local_oracle_equals_sorting_the_whole_gallery(
    gallery, pictures, make, visible, count, spread, excludes, seed
):
    random = make.random(seed)
    rows = torch.randperm(60, generator=random)[:3]
    images = around(make, pictures, rows, count, spread, seed)
    ids = torch.stack([torch.randperm(60, generator=random)[:5] for _ in rows])
    ids[0] = gallery.search(gallery.embeddings[rows[:1]], 5)
    excluded = rows if excludes else None
    places = LocalOracle(gallery, visible)(images, track(ids, excluded))
    expected = brute_force(
        gallery, images, ids.tolist(), visible, None if excluded is None else excluded.tolist()
    )
    assert torch.equal(places, expected)
    assert places.dtype == torch.int64


@given(
    visible=st.sampled_from([None, 12, 3]),
    count=st.sampled_from([1, 4]),
    excludes=st.booleans(),
    seed=st.integers(0, 999),
)
def test_equally_far_items_stand_in_gallery_order(make, visible, count, excludes, seed):
    random = make.random(seed)
    # Whole numbers from a small range: duplicates, and different items equally far, both to the bit.
    embeddings = torch.randint(-2, 3, (30, 2), generator=random).double()
    weight = torch.zeros(2, 16, dtype=torch.float64)
    weight[0, 0] = weight[1, 5] = 4.0
    gallery = Gallery(Ranker(make.flat(weight), "euclidean"), embeddings)
    images = torch.randint(2, (2, count, *SHAPE), generator=random).double() / 2
    ids = torch.stack([torch.randperm(30, generator=random)[:6] for _ in range(2)])
    excluded = ids[:, 2] if excludes else None
    places = LocalOracle(gallery, visible)(images, track(ids, excluded))
    if excludes:
        assert (places[:, :, 2] == (visible or 30)).all()
    expected = brute_force(
        gallery, images, ids.tolist(), visible, None if excluded is None else excluded.tolist()
    )
    assert torch.equal(places, expected)


def test_copies_in_the_gallery_stand_behind_each_other(make):
    # Whole numbers: a copy is equally far to the bit wherever it stands.
    images = torch.randint(5, (10, *SHAPE), generator=make.random(0)).double() / 4
    ranker = Ranker(make.flat(4 * torch.eye(16, dtype=torch.float64)), "euclidean")
    doubled = Gallery.build(ranker, torch.cat([images, images]))
    places = LocalOracle(doubled, 3)(images[None], track([[3, 13, 12]]))
    assert places[0, 3].tolist()[:2] == [0, 1]
    assert places[0, 2, 2] == 1
    ignoring = LocalOracle(doubled, 3)(images[None], track([[3, 13, 12]], [3]))
    assert ignoring[0, 3].tolist()[:2] == [3, 0]


@pytest.mark.parametrize("visible", [2, 5])
def test_where_everything_drops_out_of_sight_all_stand_at_n(gallery, pictures, make, visible):
    z = gallery.ranker.embed_all(pictures[:1])
    farthest = gallery.search(z, 60)[:, -4:]
    images = around(make, pictures, torch.tensor([0]), 6, 0.01, 0)
    assert (LocalOracle(gallery, visible)(images, track(farthest)) == visible).all()


@pytest.mark.parametrize("visible", range(1, 10))
def test_behind_an_excluded_item_the_last_visible_place_is_seen(gallery, pictures, visible):
    nearest = gallery.search(gallery.embeddings[:6], 10)
    places = LocalOracle(gallery, visible)(pictures[:6, None], track(nearest[:, 1:], nearest[:, 0]))
    assert places.tolist() == [[[min(place, visible) for place in range(9)]]] * 6


def test_a_spread_out_population_is_counted_as_exactly_as_each_image_alone(gallery, pictures):
    images, ids = pictures[None, :40], torch.tensor([[0, 20, 45, 59, 7]])
    oracle = LocalOracle(gallery, 9)
    together = oracle(images, track(ids))
    alone = torch.cat([oracle(images[:, place, None], track(ids)) for place in range(40)], dim=1)
    assert torch.equal(together, alone)
    assert torch.equal(together, brute_force(gallery, images, ids.tolist(), 9))


def test_single_precision_and_large_norms_do_not_lose_an_item(make):
    # Far from the origin, single-precision lengths are coarse: only the exact comparison may decide.
    random = make.random(5)
    embeddings = 1000 + torch.randn(200, 8, generator=random)
    ranker = Ranker(make.flat(torch.randn(8, 16, generator=random), torch.full((8,), 1000.0)), "euclidean")
    gallery = Gallery(ranker, embeddings)
    images = make.images(8, dtype=torch.float32).view(2, 4, *SHAPE)
    ids = gallery.search(ranker.embed_all(images[:, 0]), 6)
    for visible in (None, 50, 6):
        places = LocalOracle(gallery, visible)(images, track(ids))
        assert torch.equal(places, brute_force(gallery, images, ids.tolist(), visible))


@dataclass(frozen=True)
class Manhattan:
    # A distance of somebody else's, not Euclidean and no metric either: its square.

    name = "manhattan"

    def prepare(self, z):
        return z

    def pairwise(self, a, b):
        return (a[:, None] - b).abs().sum(-1).square()

    def between(self, a, b):
        return (a - b).abs().sum(-1).square()


@pytest.mark.parametrize("visible", [None, 7])
@pytest.mark.parametrize("excluded", [None, [0, 1, 2]])
def test_any_other_distance_is_counted_without_short_cuts(make, pictures, visible, excluded):
    gallery = Gallery.build(Ranker(make.ranker().encoder, Manhattan()), pictures)
    images = around(make, pictures, torch.arange(3), 4, 0.3, 1)
    ids = gallery.search(gallery.embeddings[:3], 6)
    places = LocalOracle(gallery, visible)(images, track(ids, excluded))
    assert torch.equal(places, brute_force(gallery, images, ids.tolist(), visible, excluded))
    assert 0 < int((places < 6).sum()) < places.numel()


@pytest.mark.parametrize("count", [1, 5, 59])
def test_the_first_results_are_those_of_a_search(gallery, pictures, count):
    found = LocalOracle(gallery, 60).top(pictures[:8], count, track(torch.empty(8, 0, dtype=torch.int64)))
    assert torch.equal(found, gallery.search(gallery.embeddings[:8], count))


def test_the_excluded_item_is_left_out_of_the_first_results_and_the_others_move_up(gallery, pictures):
    z, everything = gallery.embeddings[:8], gallery.search(gallery.embeddings[:8], 60)
    own, last = everything[:, 0], everything[:, 5]
    for excluded in (own, last, everything[:, 59]):
        found = LocalOracle(gallery).top(pictures[:8], 5, track(everything[:, :0], excluded))
        for row, skip, got in zip(everything.tolist(), excluded.tolist(), found.tolist(), strict=True):
            assert got == [item for item in row if item != skip][:5]
    assert torch.equal(own, gallery.search(z, 1)[:, 0])


def test_images_are_embedded_in_passes_without_a_trace_of_them(gallery, pictures, monkeypatch):
    images = pictures.view(6, 10, *SHAPE)
    ids = gallery.search(gallery.embeddings[:6], 4)
    whole = LocalOracle(gallery, 9)(images, track(ids))
    monkeypatch.setattr("rankproof.oracles.local.PASS", 7)
    assert torch.equal(LocalOracle(gallery, 9)(images, track(ids)), whole)
    assert not whole.is_inference()
    assert all(parameter.requires_grad for parameter in gallery.ranker.encoder.parameters())


@pytest.mark.parametrize("visible", [0, -1, 61])
def test_a_local_oracle_shows_at_most_its_gallery(gallery, visible):
    with pytest.raises(RankproofError, match=f"between 1 and the gallery's 60 items, got {visible}"):
        LocalOracle(gallery, visible)


@pytest.mark.parametrize("visible", [None, 8])
@pytest.mark.parametrize("single", [torch.float32, torch.float64])
def test_an_embedding_without_direction_stands_where_its_distance_says(make, visible, single):
    # The cosine distance from a zero to everything is 1, however long |a - b| is.
    embeddings = torch.randn(17, 16, generator=make.random(0)).to(single)
    embeddings[[1, 6, 12]] = 0
    images = torch.rand(2, 1, *SHAPE, generator=make.random(1)).to(single)
    gallery = Gallery(Ranker(make.flat(torch.eye(16, dtype=single)), "cosine"), embeddings)
    for black in (images, images * 0):
        for ids in ([[6, 1], [1, 6]], [[0, 2], [3, 4]]):
            places = LocalOracle(gallery, visible)(black, track(ids))
            assert torch.equal(places, brute_force(gallery, black, ids, visible))
    assert places[1, 0].tolist() == [3, 4]
