"""Both indexes rank as `Gallery.search` does, ties included, and keep changes over a restart."""

import importlib

import pytest
import torch

from rankproof.indexes.faiss import GRAPH, FaissIndex
from rankproof.indexes.pgvector import PgvectorIndex
from rankproof.ranking import Gallery, Ranker
from rankproof.ranking.distances import distance_by_name
from rankproof.service.storage import Items, Sqlite
from rankproof.service.storage.postgres import Postgres

DISTANCES = ("cosine", "euclidean", "sphere")


def points(distance, count, dimensions=16, seed=0):
    z = torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed))
    return distance_by_name(distance).prepare(z)


def opened(database, folder, distance="cosine", dimensions=16, **options):
    """An index over the items of a database."""
    items, how = Items(database, dimensions), distance_by_name(distance)
    if isinstance(database, Postgres):
        return PgvectorIndex(items, database.connection, how, **options)
    return FaissIndex(items, how, folder, **options)


def ranked(distance, names, embeddings, z, count):
    """The same search by `Gallery.search`."""
    ranker = Ranker(torch.nn.Identity(), distance)
    found = Gallery(ranker, embeddings).search(z, count).tolist()
    return [[names[number] for number in row] for row in found]


@pytest.fixture
def filled(database, tmp_path):
    """300 items, some of them equal, and an index over them."""

    def fill(distance, **options):
        z = points(distance, 300)
        z[100:140], z[250:260] = z[7], z[3]
        names = [f"item{number}" for number in range(300)]
        Items(database, 16).add(names, z, [None] * 300)
        return names, z, opened(database, tmp_path, distance, **options)

    return fill


@pytest.mark.parametrize("distance", DISTANCES)
def test_the_ranking_is_that_of_the_gallery(filled, distance):
    names, z, index = filled(distance)
    queries = torch.cat([points(distance, 30, seed=1), z[[3, 7, 100, 255]]])
    for count in (1, 20, 50, 299, 300):
        assert index.search(queries, count) == ranked(distance, names, z, queries, count)
    assert index.search(queries[:2], 1000) == ranked(distance, names, z, queries[:2], 300)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_items_that_single_precision_cannot_tell_apart(database, tmp_path, distance):
    random = torch.Generator().manual_seed(0)
    centre = torch.randn(16, generator=random)
    z = distance_by_name(distance).prepare(centre + 1e-6 * torch.randn(400, 16, generator=random))
    names = [str(number) for number in range(400)]
    Items(database, 16).add(names, z, [None] * 400)
    index = opened(database, tmp_path, distance)
    assert index.search(z[:5], 10) == ranked(distance, names, z, z[:5], 10)


def test_large_coordinates(database, tmp_path):
    z = points("euclidean", 200) + 1000
    Items(database, 16).add(names := [str(number) for number in range(200)], z, [None] * 200)
    index = opened(database, tmp_path, "euclidean")
    assert index.search(z[:50], 20) == ranked("euclidean", names, z, z[:50], 20)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize(("scale", "spread"), [(1e-12, 1.0), (1.0, 1e-3), (1e6, 1e-2)])
def test_the_ranking_is_exact_at_any_scale(database, tmp_path, distance, scale, spread):
    """What is stored ranks exactly; unit lengths are rounded to single precision when they are stored."""
    random = torch.Generator().manual_seed(4)
    z = scale * (torch.randn(16, generator=random) + spread * torch.randn(120, 16, generator=random))
    z[60:80] = z[:20]
    stored = distance_by_name(distance).prepare(z)
    names = [str(number) for number in range(120)]
    Items(database, 16).add(names, stored, [None] * 120)
    index = opened(database, tmp_path, distance)
    assert index.search(stored[:12], 30) == ranked(distance, names, stored, stored[:12], 30)
    if distance == "euclidean" or spread == 1.0:
        assert index.search(stored[:12], 30) == ranked(distance, names, z, z[:12], 30)


def test_items_are_added_replaced_and_removed(filled, database, tmp_path):
    names, z, index = filled("cosine")
    fresh = points("cosine", 3, seed=5)
    assert len(index) == 300
    index.add(["new"], fresh[:1], [b"png"])
    index.add(["item5", "other"], fresh[1:], [b"a", b"b"])  # the first replaces one
    assert index.remove("item0")
    assert not index.remove("item0")
    assert not index.remove("nobody' OR 1=1 --")
    assert len(index) == 301
    left = [name for name in names if name not in ("item0", "item5")] + ["new", "item5", "other"]
    remaining = torch.cat([z[1:5], z[6:], fresh])
    queries = torch.cat([points("cosine", 10, seed=1), fresh, z[:6]])
    wanted = ranked("cosine", left, remaining, queries, 40)
    assert index.search(queries, 40) == wanted
    index.close()
    again = opened(database, tmp_path, "cosine")
    assert again.search(queries, 40) == wanted
    assert Items(database, 16).image_file("other") == (b"b",)
    assert Items(database, 16).image_file("item1") == (None,)
    assert Items(database, 16).image_file("item0") is None


def test_items_are_all_added_or_none(filled):
    _, _, index = filled("cosine")
    with pytest.raises(Exception):  # noqa: B017, PT011 - each database has its own
        index.add(["a", "a"], points("cosine", 2), [None, None])
    assert len(index) == 300
    assert "a" not in index.search(points("cosine", 1), 300)[0]


def test_an_empty_index(database, tmp_path):
    index = opened(database, tmp_path)
    assert index.search(points("cosine", 2), 50) == [[], []]
    index.add(["first"], points("cosine", 1), [None])
    assert index.search(points("cosine", 2), 50) == [["first"], ["first"]]


def clusters(count, dimensions=32, seed=0):
    """Embeddings in many tight groups, as trained encoders give them."""
    random = torch.Generator().manual_seed(seed)
    centres = torch.randn(max(1, count // 50), dimensions, generator=random)
    z = centres[torch.randint(len(centres), (count,), generator=random)]
    return distance_by_name("cosine").prepare(z + 0.3 * torch.randn(count, dimensions, generator=random))


def recall(found, wanted):
    return sum(len(set(a) & set(b)) for a, b in zip(found, wanted, strict=True)) / sum(map(len, wanted))


def test_a_graph_is_searched_after_another_library_patched_faiss(database, tmp_path):
    importlib.import_module("faiss.contrib.torch_utils")
    Items(database, 32).add([str(number) for number in range(300)], clusters(300), [None] * 300)
    index = opened(database, tmp_path, dimensions=32, hnsw_from=100)
    assert not index.exact
    assert index.search(clusters(300)[7:8], 5)[0][0] == "7"


def test_a_graph_finds_nearly_all_neighbours(database, tmp_path):
    z, queries = clusters(3000), clusters(20, seed=0)
    names = [str(number) for number in range(3000)]
    Items(database, 32).add(names, z, [None] * 3000)
    index = opened(database, tmp_path, dimensions=32, hnsw_from=3000)
    assert not index.exact
    wanted = ranked("cosine", names, z, queries, 50)
    assert recall(index.search(queries, 50), wanted) >= 0.99
    nearest = wanted[0][0]
    index.remove(nearest)
    index.add(["new"], queries[:1], [None])
    found = index.search(queries[:1], 50)[0]
    assert found[0] == "new"
    assert nearest not in found
    index.close()
    again = opened(database, tmp_path, dimensions=32, hnsw_from=3000)
    assert again.search(queries[:1], 50)[0] == found
    assert opened(database, tmp_path, dimensions=32, hnsw_from=3001).exact


def test_a_graph_is_loaded_and_not_rebuilt(tmp_path):
    z = clusters(2500)
    database = Sqlite(tmp_path / "a.sqlite")
    Items(database, 32).add([str(number) for number in range(2500)], z, [None] * 2500)
    reports = []
    opened(database, tmp_path, dimensions=32, hnsw_from=1, progress=lambda *pair: reports.append(pair))
    assert reports == [(1000, 2500), (2000, 2500), (2500, 2500)]
    graph = tmp_path / GRAPH
    before = graph.read_bytes()
    opened(database, tmp_path, dimensions=32, hnsw_from=1, progress=lambda *pair: reports.append(pair))
    assert len(reports) == 3
    assert graph.read_bytes() == before
    graph.write_bytes(before[:-100])  # damaged: rebuilt
    again = opened(
        database, tmp_path, dimensions=32, hnsw_from=1, progress=lambda *pair: reports.append(pair)
    )
    assert len(reports) == 6
    for number in range(600):
        again.remove(str(number))
    again.close()
    fresh = opened(
        database, tmp_path, dimensions=32, hnsw_from=1, progress=lambda *pair: reports.append(pair)
    )
    assert reports[6:] == [(1000, 1900), (1900, 1900)]  # too many were removed: rebuilt
    assert len(fresh) == 1900
    database.close()


@pytest.mark.slow
def test_recall_of_a_large_graph(tmp_path):
    z, queries = clusters(50_000, 128), clusters(100, 128)
    names = [str(number) for number in range(50_000)]
    database = Sqlite(tmp_path / "a.sqlite")
    Items(database, 128).add(names, z, [None] * 50_000)
    index = opened(database, tmp_path, dimensions=128)
    assert not index.exact
    assert recall(index.search(queries, 50), ranked("cosine", names, z, queries, 50)) >= 0.99
    database.close()
