"""How long trainings and cells will take, roughly: one pass is timed and multiplied out."""

from dataclasses import dataclass

import torch

from rankproof.cost import bare_seconds, look_seconds
from rankproof.experiments.reproduce.cell import Cell
from rankproof.experiments.reproduce.model_cache import Planned
from rankproof.experiments.reproduce.universal import SEEN_SHARE
from rankproof.experiments.reproduce.words import descent_of, goal_of
from rankproof.methods.universal import Universal
from rankproof.models import new_encoder
from rankproof.ranking import Gallery, Ranker

SAMPLE = 50  # pictures in the pass that is timed
VERDICT_PASSES = 5  # choosing targets and taking the verdict cost about as much as so many passes
TRAINING = 1.5  # one step of learning in passes: gradients of all weights, and the optimiser's step
RANKING = 2.0  # a query with its places in queries without


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Seconds for one picture.

    Args:
        encoder: a forward and backward pass.
        evaluation: the same with the comparison with the whole gallery.
        query: a picture sent to a black box.
    """

    encoder: float
    evaluation: float
    query: float


def pace_of(planned: Planned, device: str) -> Pace:
    """Time an untrained encoder of the same form against a gallery of the same size."""
    ranker = Ranker(new_encoder(planned.spec.arch).to(device), planned.spec.distance)
    images = planned.splits.test.take(torch.arange(min(SAMPLE, len(planned.splits.test))))
    z = ranker.embed_all(images)
    copies = -(-len(planned.splits.test) // len(z))
    gallery = Gallery(ranker, z.repeat(copies, 1)[: len(planned.splits.test)])
    return Pace(
        encoder=bare_seconds(gallery, images, 1, whole_gallery=False) / len(images),
        evaluation=bare_seconds(gallery, images, 1, whole_gallery=True) / len(images),
        query=RANKING * look_seconds(gallery, images, 1),
    )


def cell_seconds(cell: Cell, pace: Pace, size: int) -> float:
    """An estimate of one cell.

    Args:
        size: |X|.
    """
    if cell.run in ("src", "weights"):
        return 1.0
    one = pace.evaluation if goal_of(cell).whole_gallery else pace.encoder
    match cell.run:
        case "universal":
            return cell.trials * Universal().passes(cell.eps) * SEEN_SHARE * size * one
        case "black-box" | "service" | "seconds" | "order-strip":
            return cell.trials * max(1, cell.budget or 0) * pace.query
        case _:
            passes = descent_of(cell).passes(cell.eps) if cell.eps else 0
            return cell.trials * (passes * one + VERDICT_PASSES * pace.evaluation)


def training_seconds(planned: Planned, pace: Pace) -> float:
    """An estimate of one training."""
    passes = TRAINING + float(planned.recipe.defense.settings().get("steps", 0))
    return planned.recipe.epochs * len(planned.splits.train) * passes * pace.encoder
