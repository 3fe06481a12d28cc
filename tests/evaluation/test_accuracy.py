from importlib import import_module

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import normalized_mutual_info_score

from rankproof import Gallery, RankproofError
from rankproof.evaluation import accuracy
from rankproof.evaluation import precision as precision_room
from rankproof.evaluation.accuracy import clusters, mutual_information
from rankproof.evaluation.precision import average_precisions
from rankproof.ranking import gallery as gallery_room
from rankproof.ranking.metrics import recall_at, recalls_at, wilson

FIGURES = {"recall_at_1", "recall_at_2", "recall_at_4", "recall_at_8", "map", "map_at_r"}
T29 = 2.0452296  # the 97.5 % quantile of Student's distribution with 29 degrees of freedom


def labelled(make, distance, n, d, classes, seed, levels=None):
    """A random gallery; with `levels` of whole numbers, full of exact ties and duplicates."""
    bare = make.gallery(distance, n, d, seed)
    embeddings = bare.embeddings
    if levels is not None:
        embeddings = torch.randint(-levels, levels + 1, (n, d), generator=make.random(seed)).double()
    labels = torch.randint(classes, (n,), generator=make.random(seed + 1))
    return Gallery(bare.ranker, embeddings, labels)


def grouped(make, n=60, classes=5, spread=0.1, dtype=torch.float64):
    """A gallery whose classes are tight groups."""
    bare = make.gallery("euclidean", classes, 6)
    labels = torch.arange(n) % classes
    noise = torch.randn(n, 6, generator=make.random(9), dtype=torch.float64)
    return Gallery(bare.ranker, (bare.embeddings[labels] + spread * noise).to(dtype), labels)


def ranking(gallery, i):
    """All others of item i, nearest first, equal ones in gallery order: whether each is of its class."""
    far = gallery.squared_lengths(gallery.embeddings).numpy()[i]
    others = sorted((far[j], j) for j in range(len(gallery)) if j != i)
    return [bool(gallery.labels[j] == gallery.labels[i]) for _, j in others]


def naive_precisions(matches):
    """AP and AP@R by their definitions."""
    size = sum(matches)
    at = [sum(matches[: place + 1]) / (place + 1) for place in range(len(matches))]
    whole = sum(p for p, match in zip(at, matches, strict=True) if match)
    first = sum(p for p, match in zip(at[:size], matches[:size], strict=True) if match)
    return [whole / size, first / size] if size else [0.0, 0.0]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Several parts and blocks, as a large gallery has."""
    monkeypatch.setattr(precision_room, "VALUES", 60)
    monkeypatch.setattr(gallery_room, "BLOCK_ITEMS", 8)
    monkeypatch.setattr(gallery_room, "BLOCK_QUERIES", 3)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@given(
    n=st.integers(2, 18),
    classes=st.integers(1, 6),
    levels=st.sampled_from([1, 3, None]),
    seed=st.integers(0, 9999),
)
def test_precisions_and_recalls_equal_the_loop_over_whole_rankings(make, distance, n, classes, levels, seed):
    gallery = labelled(make, distance, n, 2, classes, seed, levels)
    rankings = [ranking(gallery, i) for i in range(n)]
    expected = torch.tensor([naive_precisions(matches) for matches in rankings], dtype=torch.float64)
    torch.testing.assert_close(average_precisions(gallery), expected)
    recalls = [[float(any(matches[:k])) for k in (1, 3, 8)] for matches in rankings]
    assert recalls_at(gallery, [1, 3, 8]).tolist() == recalls


def test_equal_distances_count_in_gallery_order(make):
    """Counting strictly nearer items only would give a collapsed encoder a perfect precision."""
    bare = make.raw("euclidean", torch.ones(40, 2, dtype=torch.float64))
    gallery = Gallery(bare.ranker, bare.embeddings, torch.arange(40) % 10)
    found = average_precisions(gallery)
    assert 0.05 < found[:, 0].mean() < 0.2
    assert found[:, 1].mean() < 0.1


def search_for_pml(gallery):
    """Whole rankings in the form that the calculator asks for."""

    def search(query, k, reference, ref_includes_query):
        assert ref_includes_query
        everyone = torch.arange(len(gallery))
        return torch.zeros(len(gallery), k), gallery.search(gallery.embeddings, k, excluded=everyone)

    return search


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_precisions_equal_those_of_pytorch_metric_learning(make, distance):
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    bare = make.gallery(distance, 90, 4)
    gallery = Gallery(bare.ranker, bare.embeddings, torch.arange(90) ** 2 % 7)  # classes of unequal size
    names = ("mean_average_precision", "mean_average_precision_at_r", "precision_at_1")
    calculator = AccuracyCalculator(
        include=names,
        device=torch.device("cpu"),
        knn_func=search_for_pml(gallery),
        kmeans_func=lambda z, count: None,
    )
    theirs = calculator.get_accuracy(gallery.embeddings, gallery.labels)
    result = accuracy(gallery)
    assert result.mean("map").mean == pytest.approx(100 * theirs["mean_average_precision"])
    assert result.mean("map_at_r").mean == pytest.approx(100 * theirs["mean_average_precision_at_r"])
    assert result.mean("recall_at_1").mean == pytest.approx(100 * theirs["precision_at_1"])


def test_several_recalls_are_one_search(make, monkeypatch):
    gallery, searches = labelled(make, "cosine", 30, 3, 4, 0), []
    search = Gallery.search
    monkeypatch.setattr(Gallery, "search", lambda *a, **k: searches.append(1) or search(*a, **k))
    together = recalls_at(gallery, (1, 2, 4, 8))
    assert len(searches) == 2  # one, and the one inside it that still holds the own copy
    for column, k in enumerate((1, 2, 4, 8)):
        assert together[:, column].tolist() == recall_at(gallery, k).tolist()
    assert together.mean(0).tolist() == sorted(together.mean(0).tolist())


def test_a_recall_at_nothing_is_refused(make):
    with pytest.raises(RankproofError, match="k must be at least 1, got 0"):
        recalls_at(labelled(make, "cosine", 30, 3, 4, 0), [4, 0])


def test_separate_groups_are_retrieved_whole(make):
    result = accuracy(grouped(make, spread=0.01))
    assert {name: result.mean(name).mean for name in FIGURES} == dict.fromkeys(FIGURES, 100.0)
    assert result.nmi == pytest.approx(100)
    assert result.notes == ()


def test_labels_that_mean_nothing_are_not_retrieved(make):
    gallery = grouped(make, n=200)
    shuffled = gallery.labels[torch.randperm(200, generator=make.random(3))]
    result = accuracy(Gallery(gallery.ranker, gallery.embeddings, shuffled))
    assert abs(result.mean("recall_at_1").mean - 20) < 10
    assert abs(result.mean("map").mean - 20) < 8
    assert result.nmi < 15


def test_an_item_alone_in_its_class_counts_as_not_found(make):
    gallery = grouped(make, n=20, spread=0.01)
    labels = gallery.labels.clone()
    labels[7] = 99
    result = accuracy(Gallery(gallery.ranker, gallery.embeddings, labels))
    assert all(values[7] == 0 for values in result.values.values())
    assert result.notes == ("1 of 20 items are alone in their class: nothing can be found for them",)


def test_values_of_every_item_and_their_interval(make):
    result = accuracy(labelled(make, "cosine", 30, 3, 4, 0))
    assert set(result.values) == FIGURES
    assert all(values.shape == (30,) and values.dtype == torch.float64 for values in result.values.values())
    told = result.as_dict()
    assert set(told) == FIGURES | {"nmi", "queries", "ci95", "notes"}
    values = result.values["map"].numpy()
    error = np.std(values, ddof=1) / 30**0.5
    assert told["map"] == pytest.approx(values.mean())
    assert told["ci95"]["map"] == pytest.approx([values.mean() - T29 * error, values.mean() + T29 * error])
    share = result.values["recall_at_1"].mean().item() / 100
    assert told["ci95"]["recall_at_1"] == pytest.approx([100 * end for end in wilson(share, 30)])


def test_nmi_is_that_of_the_clusters_and_comes_out_the_same_again(make):
    gallery = grouped(make, spread=0.7)
    found = clusters(gallery.embeddings, 5, seed=4)
    assert mutual_information(gallery, 4) == pytest.approx(
        normalized_mutual_info_score(gallery.labels.numpy(), found.numpy())
    )
    np.random.seed(1)
    torch.manual_seed(1)
    assert clusters(gallery.embeddings, 5, seed=4).tolist() == found.tolist()
    assert any(clusters(gallery.embeddings, 5, seed=s).tolist() != found.tolist() for s in (5, 6, 7))


def test_many_clusters_are_found_in_one_short_run(make, monkeypatch):
    monkeypatch.setattr(import_module("rankproof.evaluation.accuracy"), "MANY", 4)
    gallery = grouped(make, spread=0.01)
    found = clusters(gallery.embeddings, 5, seed=4)
    assert clusters(gallery.embeddings, 5, seed=4).tolist() == found.tolist()
    # A start from random items may leave two groups together, but never loses all of them.
    assert normalized_mutual_info_score(gallery.labels.numpy(), found.numpy()) > 0.5


def test_labels_beyond_single_precision_stay_apart(make):
    gallery = grouped(make, spread=0.01)
    assert mutual_information(
        Gallery(gallery.ranker, gallery.embeddings, 2**30 + gallery.labels)
    ) == pytest.approx(1)


def test_a_collapsed_encoder_has_figures_without_a_warning(make):
    bare = make.raw("cosine", torch.ones(30, 2))
    result = accuracy(Gallery(bare.ranker, bare.embeddings, torch.arange(30) % 3))
    assert result.nmi == pytest.approx(0, abs=1e-6)
    assert result.mean("map").mean < 60


def test_progress_reaches_its_end(make):
    calls = []
    accuracy(labelled(make, "cosine", 30, 3, 4, 0), progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (30, 30)
    assert len(calls) > 3


def test_without_labels_there_is_nothing_to_measure(make):
    for measure in (accuracy, average_precisions, mutual_information):
        with pytest.raises(RankproofError, match="labels"):
            measure(make.gallery())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-25, 1e-12, 1e12, 1e25])
def test_clusters_do_not_depend_on_the_scale_of_the_embeddings(make, scale, dtype):
    plain = grouped(make, dtype=dtype)
    scaled = Gallery(plain.ranker, plain.embeddings * scale, plain.labels)
    assert mutual_information(scaled) == mutual_information(plain) == pytest.approx(1)


@pytest.mark.parametrize("distance", ["cosine", "sphere", "euclidean"])
@pytest.mark.parametrize("spread", [1e-5, 1e-8, 1e-10])
def test_clusters_are_found_in_a_narrow_cone(make, distance, spread):
    groups = grouped(make)
    embeddings = 1 + spread * groups.embeddings
    gallery = Gallery(make.ranker(distance, 6), embeddings, groups.labels)
    assert mutual_information(gallery) == pytest.approx(1)


def test_equal_embeddings_have_no_clusters(make):
    labels = torch.arange(6) % 2
    gallery = Gallery(make.ranker("euclidean", 3), torch.full((6, 3), 1e30), labels)
    assert mutual_information(gallery) == pytest.approx(0)
