"""A service from a model with the pictures of its gallery, an index, a folder.

The folder belongs to one model and one data set. What was embedded once is found there again, and a start
that was stopped goes on.
"""

from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path

import torch

from rankproof.data import Dataset
from rankproof.errors import RankproofError
from rankproof.ranking import Ranker
from rankproof.service.database import Database, Sqlite
from rankproof.service.database.postgres import Postgres, start_embedded
from rankproof.service.facts import Facts
from rankproof.service.index import Index
from rankproof.service.index.base import HNSW_FROM
from rankproof.service.index.faiss_index import FaissIndex
from rankproof.service.index.postgres import PostgresIndex
from rankproof.service.items import Items
from rankproof.service.keys import Keys
from rankproof.service.limits import Limits
from rankproof.service.quota import Quota
from rankproof.service.service import Service
from rankproof.service.steady import steady_step
from rankproof.target import Stage, Subject, Tell, silent

FILE, EMBEDDED = "service.sqlite", "postgres"
MADE_BY, FILLED = "made by", "filled"


def open_service(
    subject: Subject,
    folder: Path,
    *,
    index: str = "faiss",
    limits: Limits | None = None,
    exact: bool = False,
    anonymous: bool = True,
    stage: Stage = silent,
) -> Service:
    """Embed what is not embedded yet, and open the rest of a service.

    Args:
        subject: the model and the gallery's pictures.
        folder: where everything is kept that must survive a restart.
        index: "faiss", "pgvector" (with its own PostgreSQL) or postgresql://...
        limits: what is allowed; None are the published limits.
        exact: whether every item is looked at however many there are.
        anonymous: whether callers without a key may call as long as no key was made.
        stage: given a name, opens a display of progress for one stage of the work.
    """
    ranker, dataset = subject.ranker, subject.dataset
    limits, hnsw_from = limits or Limits(), None if exact else HNSW_FROM
    with ExitStack() as stack:
        database = open_database(index, folder)
        stack.callback(database.close)
        items = Items(database, ranker.embed_all(dataset.pictures[:1]).shape[1])
        with stage("embedding the gallery") as tell:
            fill(items, ranker, dataset, fingerprint(subject), tell)
        with stage("building the index") as tell:
            found = _index(items, database, ranker, folder, hnsw_from, tell)
        with stage("trying sizes of passes") as tell:
            step = steady_step(ranker, dataset.pictures.shape[1:], limits.batch, tell)
        stack.pop_all()
    return Service(
        ranker=ranker,
        dataset=dataset,
        items=items,
        index=found,
        keys=Keys(database),
        quota=Quota(database, limits),
        limits=limits,
        step=step,
        anonymous=anonymous,
    )


def open_database(index: str, folder: Path) -> Database:
    """Where an index keeps its items, and the service its keys and quotas."""
    if index == "faiss":
        return Sqlite(folder / FILE)
    if index == "pgvector":
        return start_embedded(folder / EMBEDDED)
    if index.startswith(("postgresql://", "postgres://")):
        return Postgres(index)
    raise RankproofError(f"--index {index!r} is unknown; known: faiss, pgvector, postgresql://...")


def fingerprint(subject: Subject) -> str:
    """A hash that is equal where every picture of the gallery has the same embedding."""
    source = subject.source
    told = (source.distance, source.mean, source.std, repr(subject.ranker.preprocess), subject.dataset.sha256)
    digest = sha256(repr(told).encode())
    for name, value in source.encoder.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def fill(items: Items, ranker: Ranker, dataset: Dataset, made_by: str, tell: Tell) -> None:
    """Embed the pictures of a data set that are not among the items yet; their ids are their places.

    Raises:
        RankproofError: the items were made by another model or from other data.
    """
    facts = Facts(items.database)
    if facts.get(MADE_BY) not in (None, made_by):
        raise RankproofError(
            "the items kept there were made by another model, other settings or from other data; choose "
            "another --folder or database, or remove that one"
        )
    facts.put(MADE_BY, made_by)
    if facts.get(FILLED) is not None:
        return
    for start in range(len(items), len(dataset), ranker.chunk):
        pictures = dataset.pictures[start : start + ranker.chunk]
        names = [str(start + place) for place in range(len(pictures))]
        items.add(names, ranker.embed_all(pictures), [None] * len(pictures))
        tell(start + len(pictures), len(dataset))
    facts.put(FILLED, "yes")


def _index(
    items: Items, database: Database, ranker: Ranker, folder: Path, hnsw_from: int | None, tell: Tell
) -> Index:
    """The index that goes with a database."""
    if isinstance(database, Postgres):
        return PostgresIndex(items, database, ranker.distance, hnsw_from=hnsw_from, progress=tell)
    return FaissIndex(items, ranker.distance, folder, hnsw_from=hnsw_from, progress=tell)
