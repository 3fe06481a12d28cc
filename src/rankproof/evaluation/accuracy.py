"""How well a gallery retrieves: recall, mean average precision and clusters, before anybody attacks it."""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from rankproof.checks import check_kind
from rankproof.evaluation.precision import average_precisions
from rankproof.evaluation.queries import retrieve
from rankproof.io import JsonObject
from rankproof.modes import ordinary_modes
from rankproof.parameters import Range, check_integer
from rankproof.ranking.exact import LengthFrame
from rankproof.ranking.gallery import GALLERY, Gallery
from rankproof.ranking.metrics import MeanInterval, Scale, known_labels, mean_interval, recalls_at
from rankproof.ranking.separate_queries import SeparateQueries
from rankproof.types import ProgressCallback, no_progress

SEEDS = Range(low=0.0, high=2.0**32 - 1)  # of scikit-learn
KS = (1, 2, 4, 8)
SHARE, PERCENT = Scale(low=0.0, high=100.0, binary=True), Scale(low=0.0, high=100.0)
RESTARTS = 3  # k-means runs, of which the tightest counts
LARGE = 1e9  # values beyond which, and below whose inverse, sums of their squares are not safe
MANY, ROUNDS = 1000, 20  # above so many clusters one short run from random items: more would take hours


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Retrieval within a gallery, leave-one-out or by separate queries.

    Args:
        values: (n,) one value per item or query in %, by name: "recall_at_1", "recall_at_2", "recall_at_4",
            "recall_at_8", "map" and "map_at_r".
        nmi: normalised mutual information of clusters and classes in %; a figure of the whole gallery. None
            with separate queries, whose protocol has no clusters.
        seed: of the clusters.
        notes: what a reader should know.
        queries: number of separate queries; None: every item is a query for all others.
    """

    values: dict[str, Tensor]
    nmi: float | None
    seed: int
    notes: tuple[str, ...] = ()
    queries: int | None = None

    def mean(self, name: str) -> MeanInterval:
        """The mean of a figure over all items, in %, with its 95 % interval."""
        return mean_interval(self.values[name], SHARE if name.startswith("recall") else PERCENT)

    def as_dict(self) -> JsonObject:
        """The means and "nmi" by name in %, "queries", the intervals in "ci95", and "notes"."""
        means = {name: self.mean(name) for name in self.values}
        return {
            **{name: mean.mean for name, mean in means.items()},
            "nmi": self.nmi,
            "queries": self.queries,
            "ci95": {name: mean.ends for name, mean in means.items()},
            "notes": list(self.notes),
        }


@ordinary_modes()
def accuracy(
    gallery: Gallery,
    seed: int = 0,
    *,
    queries: SeparateQueries | None = None,
    progress: ProgressCallback = no_progress,
) -> Accuracy:
    """Recall@1, 2, 4, 8, mAP, mAP@R and NMI of a gallery; each item is searched for among all the others.

    Recalls as in `recalls_at`, precisions as in `average_precisions`; NMI as in `mutual_information`. With
    separate queries recalls and precisions as in `retrieve`, and no NMI.

    Args:
        gallery: embeddings with labels.
        seed: of the clusters, 0 or more.
        queries: queries that are no items of the gallery.
        progress: called with queries done and queries in all.
    Raises:
        RankproofError: the gallery has no labels.
    """
    check_kind("gallery", gallery, Gallery, GALLERY)
    seed = check_integer("seed", seed, SEEDS)
    if queries is not None:
        return _by_queries(gallery, queries, seed, progress)
    labels = known_labels(gallery)
    recalls = 100 * recalls_at(gallery, KS).double().cpu()
    precisions = 100 * average_precisions(gallery, progress).cpu()
    lone = int((labels.unique(return_counts=True)[1] == 1).sum())
    note = f"{lone} of {len(gallery)} items are alone in their class: nothing can be found for them"
    nmi = 100 * mutual_information(gallery, seed)
    return Accuracy(values=_named(recalls, precisions), nmi=nmi, seed=seed, notes=(note,) if lone else ())


def _by_queries(
    gallery: Gallery, queries: SeparateQueries, seed: int, progress: ProgressCallback
) -> Accuracy:
    found = retrieve(gallery, queries, KS, progress)
    notes = [f"each of the {len(queries)} queries is searched for in the gallery, which they are no part of"]
    if queries.cameras is not None:
        notes.append("gallery items of a query's own class and camera do not count for it")
    if found.without_match:
        notes.append(f"{found.without_match} queries have no match in the gallery and are left out")
    return Accuracy(
        values=_named(100 * found.recalls, 100 * found.precisions),
        nmi=None,
        seed=seed,
        notes=tuple(notes),
        queries=len(queries),
    )


def _named(recalls: Tensor, precisions: Tensor) -> dict[str, Tensor]:
    """Recalls (n, len(KS)) and precisions (n, 2) by the names of the figures."""
    values = {f"recall_at_{k}": recalls[:, column] for column, k in enumerate(KS)}
    return values | {"map": precisions[:, 0], "map_at_r": precisions[:, 1]}


def mutual_information(gallery: Gallery, seed: int = 0) -> float:
    """Normalised mutual information of k-means clusters and classes, in [0, 1].

    NMI = 2 I(clusters; classes) / (H(clusters) + H(classes))

    with as many clusters as classes, found among the embeddings as the distance prepares them; computed by
    pytorch-metric-learning.

    Args:
        seed: of the clusters.
    Raises:
        RankproofError: the gallery has no labels.
    """
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator  # takes seconds

    classes = known_labels(gallery).unique(return_inverse=True)[1]  # exact as the floats they are made into
    calculator = AccuracyCalculator(
        include=("NMI",),
        device=torch.device("cpu"),
        knn_func=_no_search,
        kmeans_func=lambda z, count: clusters(z, count, seed),
    )
    return float(calculator.get_accuracy(_points(gallery), classes)["NMI"])


def _points(gallery: Gallery) -> Tensor:
    """(n, d) the embeddings among which clusters are found.

    They are as the distance prepares them. Where single precision loses their differences or their squares,
    they are taken from their centre in double precision, which scales all distances alike.
    """
    z, frame = gallery.ranker.distance.prepare(gallery.embeddings), gallery.frame
    largest = float(z.abs().max())
    if not isinstance(frame, LengthFrame) or (not gallery.narrow and 1 / LARGE < largest < LARGE):
        return z
    if not frame.spread:
        return torch.zeros_like(z)
    return frame.points(gallery.embeddings).vectors / frame.spread


def clusters(z: Tensor, count: int, seed: int) -> Tensor:
    """(n,) the k-means cluster of each embedding (n, d), reproducible by its seed.

    The tightest of three runs from spread-out starts; above 1,000 clusters one run of 20 rounds from random
    items.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    seed = check_integer("seed", seed, SEEDS)
    means = KMeans(count, n_init=RESTARTS, random_state=seed)
    if count > MANY:
        means.set_params(init="random", n_init=1, max_iter=ROUNDS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different embeddings than classes
        return torch.from_numpy(means.fit_predict(z.cpu().numpy()))


def _no_search(*_: object) -> None:
    """Stands where the calculator would otherwise ask for faiss, which clusters do not need."""
    raise NotImplementedError
