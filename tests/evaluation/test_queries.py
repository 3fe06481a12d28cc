from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankproof import Gallery, RankproofError
from rankproof.evaluation import SeparateQueries, accuracy, retrieve
from rankproof.evaluation import queries as room
from rankproof.ranking import gallery as gallery_room

KS = (1, 2, 4, 8)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Several parts and blocks, as a large gallery has."""
    monkeypatch.setattr(room, "VALUES", 60)
    monkeypatch.setattr(gallery_room, "BLOCK_ITEMS", 8)
    monkeypatch.setattr(gallery_room, "BLOCK_QUERIES", 3)


def reidentification(make, distance, seed, *, levels=None, n=25, b=9, people=6, cameras=3):
    """A gallery and queries of people seen by cameras; with `levels`, full of exact ties."""
    random = make.random(seed)
    bare = make.gallery(distance, n + b, 4, seed)
    z = bare.embeddings
    if levels is not None:
        z = torch.randint(-levels, levels + 1, z.shape, generator=random).double()
    labels = torch.randint(people, (n + b,), generator=random)
    where = torch.randint(cameras, (n + b,), generator=random)
    gallery = Gallery(bare.ranker, z[:n], labels[:n])
    queries = SeparateQueries(
        embeddings=z[n:], labels=labels[n:], cameras=where[n:], gallery_cameras=where[:n]
    )
    return gallery, queries


def naive(gallery, queries):
    """R@k, AP and AP@R of each query with a match, by a double loop over sorted lists."""
    distances = gallery.distances(queries.embeddings).numpy()
    rows = []
    for q in range(len(queries)):
        ranking = []
        for item in range(len(gallery)):
            same = bool(gallery.labels[item] == queries.labels[q])
            if same and bool(queries.gallery_cameras[item] == queries.cameras[q]):
                continue
            ranking.append((distances[q, item], item, same))
        matches = [same for _, _, same in sorted(ranking)]
        total = sum(matches)
        if not total:
            continue
        at = [sum(matches[: place + 1]) / (place + 1) if same else 0.0 for place, same in enumerate(matches)]
        rows.append([*(float(any(matches[:k])) for k in KS), sum(at) / total, sum(at[:total]) / total])
    return np.array(rows).reshape(-1, 6)


@given(seed=st.integers(0, 10**6), distance=st.sampled_from(["cosine", "euclidean"]))
def test_equals_a_double_loop(make, seed, distance):
    gallery, queries = reidentification(make, distance, seed)
    expected = naive(gallery, queries)
    if not len(expected):
        return
    found = retrieve(gallery, queries, KS)
    assert found.without_match == len(queries) - len(expected)
    assert np.array_equal(found.recalls.numpy(), expected[:, :4])
    assert np.abs(found.precisions.numpy() - expected[:, 4:]).max() < 1e-12


@given(seed=st.integers(0, 10**6))
def test_equals_a_double_loop_where_distances_tie(make, seed):
    gallery, queries = reidentification(make, "euclidean", seed, levels=1)
    expected = naive(gallery, queries)
    if not len(expected):
        return
    found = retrieve(gallery, queries, KS)
    assert np.array_equal(found.recalls.numpy(), expected[:, :4])
    assert np.abs(found.precisions.numpy() - expected[:, 4:]).max() < 1e-12


def line(make, gallery, queries):
    """One-dimensional embeddings: (place, class, camera) of each item and query."""
    (z, labels, where), (q, wanted, cameras) = (
        torch.tensor(each, dtype=torch.float64).T for each in (gallery, queries)
    )
    bare = make.gallery("euclidean", 3, 1)
    return Gallery(bare.ranker, z[:, None], labels.long()), SeparateQueries(
        embeddings=q[:, None], labels=wanted.long(), cameras=cameras.long(), gallery_cameras=where.long()
    )


def test_own_identity_by_the_own_camera_does_not_count(make):
    # Nearest: the same person by the same camera; then a stranger; then the same person elsewhere.
    gallery, queries = line(make, [(1, 7, 0), (2, 8, 0), (3, 7, 1)], [(0, 7, 0)])
    found = retrieve(gallery, queries, (1, 2))
    assert found.recalls.tolist() == [[0.0, 1.0]]
    assert found.precisions.tolist() == [[0.5, 0.0]]


def test_strangers_by_the_own_camera_count(make):
    gallery, queries = line(make, [(1, 8, 0), (2, 7, 1)], [(0, 7, 0)])
    assert retrieve(gallery, queries, (1,)).recalls.tolist() == [[0.0]]


def test_a_query_without_a_match_is_left_out(make):
    gallery, queries = line(make, [(1, 7, 0), (2, 8, 0)], [(0, 7, 0), (0, 8, 1), (0, 9, 1)])
    found = retrieve(gallery, queries, (1,))
    assert (found.without_match, found.recalls.tolist()) == (2, [[0.0]])
    with pytest.raises(RankproofError, match="none has a match"):
        retrieve(*line(make, [(1, 7, 0), (2, 8, 0)], [(0, 7, 0)]), (1,))


def test_without_cameras_every_item_counts(make):
    gallery, queries = line(make, [(1, 7, 0), (2, 8, 0)], [(0, 7, 0)])
    plain = SeparateQueries(embeddings=queries.embeddings, labels=queries.labels)
    assert retrieve(gallery, plain, (1,)).recalls.tolist() == [[1.0]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cameras": None}, "cameras of both queries and gallery"),
        ({"labels": torch.zeros(2).long()}, r"labels must be one integer each, got \(2,\)"),
        ({"labels": torch.eye(3).long()}, r"labels must be one integer each, got \(3, 3\)"),
        ({"labels": torch.zeros(3)}, "labels must be one integer each, got .* of torch.float32"),
        ({"cameras": torch.zeros(3).bool()}, "cameras must be one integer each, got .* of torch.bool"),
    ],
)
def test_labels_and_cameras_are_checked(changes, message):
    whole = {name: torch.zeros(3).long() for name in ("labels", "cameras", "gallery_cameras")}
    with pytest.raises(RankproofError, match=message):
        SeparateQueries(**{"embeddings": torch.zeros(3, 2), **whole, **changes})


def test_cameras_of_another_gallery_are_refused(make):
    gallery, queries = reidentification(make, "cosine", 0)
    with pytest.raises(RankproofError, match="24 gallery_cameras for 25 items"):
        retrieve(gallery, replace(queries, gallery_cameras=queries.gallery_cameras[:-1]), (1,))
    with pytest.raises(RankproofError, match="k of at least 1, got 0"):
        retrieve(gallery, queries, (0,))


def test_accuracy_tells_the_figures_of_the_queries(make):
    gallery, queries = reidentification(make, "cosine", 3)
    expected = naive(gallery, queries)
    measured = accuracy(gallery, queries=queries)
    told = measured.as_dict()
    names = ("recall_at_1", "recall_at_2", "recall_at_4", "recall_at_8", "map", "map_at_r")
    assert [told[name] for name in names] == pytest.approx((100 * expected.mean(0)).tolist())
    assert (told["nmi"], told["queries"]) == (None, len(queries))
    assert any("own class and camera do not count" in note for note in told["notes"])
    assert accuracy(gallery).as_dict()["queries"] is None
