"""Open a search service: embed the gallery, build the index, open the database.

A folder belongs to one model and one data set. Embeddings are stored there, so a later start does not
compute them again, and a start that was interrupted continues.
"""

from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path

import torch

from rankproof.data import Dataset
from rankproof.errors import RankproofError
from rankproof.indexes import HNSW_FROM, Index
from rankproof.indexes.faiss import FaissIndex
from rankproof.indexes.pgvector import PgvectorIndex
from rankproof.ranking import Ranker
from rankproof.service.batching import batch_invariant_multiple
from rankproof.service.limits import Limits
from rankproof.service.search_service import SearchService
from rankproof.service.storage import Database, Items, Sqlite
from rankproof.service.storage.postgres import Postgres, start_embedded
from rankproof.system import LoadedTask, Stage, no_display
from rankproof.types import ProgressCallback

SQLITE_FILE, POSTGRES_FOLDER = "service.sqlite", "postgres"
FINGERPRINT, FILLED = "made by", "filled"  # names of metadata


def open_service(
    subject: LoadedTask,
    folder: Path,
    *,
    index: str = "faiss",
    limits: Limits | None = None,
    exact: bool = False,
    anonymous: bool = True,
    stage: Stage = no_display,
) -> SearchService:
    """Open a search service over a data set; embeds what is not embedded yet.

    Args:
        subject: the model, and the gallery's images.
        folder: where items, keys and quotas are stored.
        index: "faiss", "pgvector" (starts a PostgreSQL in the folder) or the address postgresql://...
        limits: what callers may do; None for the published limits.
        exact: always scan all items, however many there are.
        anonymous: whether callers without a key may search as long as no key exists.
        stage: opens a progress display for one stage of the work, given its name.
    """
    ranker, dataset = subject.ranker, subject.dataset.one_size()
    limits, hnsw_from = limits or Limits(), None if exact else HNSW_FROM
    with ExitStack() as stack:
        database = open_database(index, folder)
        stack.callback(database.close)
        ranker.begin(dataset.images)
        items = Items(database, ranker.embed_all(dataset.images[:1]).shape[1])
        with stage("embedding the gallery") as progress:
            fill(items, ranker, dataset, fingerprint(subject), progress)
        with stage("building the index") as progress:
            nearest = _open_index(items, ranker, folder, hnsw_from, progress)
        with stage("trying batch sizes") as progress:
            shape = dataset.images.shape[1:]
            batch_multiple = batch_invariant_multiple(ranker, shape, limits.batch, progress)
        stack.pop_all()
    return SearchService(
        ranker=ranker,
        dataset=dataset,
        items=items,
        index=nearest,
        limits=limits,
        batch_multiple=batch_multiple,
        anonymous=anonymous,
    )


def open_database(index: str, folder: Path) -> Database:
    """The database that goes with an index; it also holds keys and quotas."""
    if index == "faiss":
        return Sqlite(folder / SQLITE_FILE)
    if index == "pgvector":
        return start_embedded(folder / POSTGRES_FOLDER)
    if index.startswith(("postgresql://", "postgres://")):
        return Postgres(index)
    raise RankproofError(f"--index {index!r} is unknown; known: faiss, pgvector, postgresql://...")


def fingerprint(subject: LoadedTask) -> str:
    """A hash of everything that the gallery's embeddings depend on."""
    source = subject.source
    settings = (
        source.distance, source.mean, source.std, repr(subject.ranker.preprocess), subject.dataset.sha256
    )  # fmt: skip
    digest = sha256(repr(settings).encode())
    for name, value in source.encoder.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def fill(items: Items, ranker: Ranker, dataset: Dataset, made_by: str, progress: ProgressCallback) -> None:
    """Embed the images of a data set that are not in the table yet. An item's id is its position.

    Args:
        items: the table.
        ranker: embeds images.
        dataset: the gallery's images.
        made_by: a fingerprint of model and data.
        progress: called with (images embedded, images in all).
    Raises:
        RankproofError: the items were embedded by another model or from other data.
    """
    if items.metadata.get(FINGERPRINT) not in (None, made_by):
        raise RankproofError(
            "the items stored there were embedded by another model, with other settings or from other data; "
            "choose another --folder or database, or delete that one"
        )
    items.metadata.put(FINGERPRINT, made_by)
    if items.metadata.get(FILLED) is not None:
        return
    for start in range(len(items), len(dataset), ranker.chunk):
        chunk = dataset.images[start : start + ranker.chunk]
        ids = [str(start + place) for place in range(len(chunk))]
        items.add(ids, ranker.distance.prepare(ranker.embed_all(chunk)), [None] * len(chunk))
        progress(start + len(chunk), len(dataset))
    items.metadata.put(FILLED, "yes")


def _open_index(
    items: Items, ranker: Ranker, folder: Path, hnsw_from: int | None, progress: ProgressCallback
) -> Index:
    """The index that goes with the database of the items."""
    database, distance = items.database, ranker.distance
    if isinstance(database, Postgres):
        return PgvectorIndex(items, database.connection, distance, hnsw_from=hnsw_from, progress=progress)
    return FaissIndex(items, distance, folder, hnsw_from=hnsw_from, progress=progress)
