"""Everything that decides how an encoder is trained, and the papers' choices."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from rankproof.errors import RankproofError
from rankproof.ranking.distances import distance_by_name
from rankproof.training.augment import Augment
from rankproof.training.defenses import Defense, EmbeddingShift, Undefended, triplet_loss
from rankproof.training.inner import Inner, later_inner, published_inner
from rankproof.training.later_defenses import AntiCollapse, Hardness
from rankproof.training.losses import Contrastive, Loss, Triplet
from rankproof.training.samplers import Balanced, FromSet, InBatch, Sampler

Decay = Literal["constant", "cosine"]

PUBLISHED_BATCH = {"cosine": 1000, "euclidean": 500, "sphere": 500}
PUBLISHED_MARGIN = {"cosine": 0.2, "euclidean": 1.0, "sphere": 0.2}
PUBLISHED_SIZE = 28  # side of the pictures these are for
EPOCHS = 30
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 1e-7


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train.

    Args:
        loss: what is lowered.
        sampler: what makes a batch.
        distance: "cosine", "euclidean" or "sphere".
        defense: how attacks get into it.
        augment: how pictures are varied.
        epochs: how often every picture is seen.
        learning_rate, weight_decay: of Adam.
        decay: "constant", as published, or "cosine": the learning rate falls to 0 at the end.
        warm_up: epochs over which the eps of the defence grows; 0 as published.
        precision: "single", or "bf16" for the encoder's passes.
        seed: all random numbers come from it.
        schedule: "published", "fast" or "own": which kind of schedule this is.
    """

    loss: Loss
    sampler: Sampler
    distance: str = "cosine"
    defense: Defense = field(default_factory=Undefended)
    augment: Augment = field(default_factory=Augment)
    epochs: int = EPOCHS
    learning_rate: float = LEARNING_RATE
    weight_decay: float = WEIGHT_DECAY
    decay: Decay = "constant"
    warm_up: float = 0.0
    precision: Literal["single", "bf16"] = "single"
    seed: int = 0
    schedule: Literal["published", "fast", "own"] = "own"

    def __post_init__(self) -> None:
        try:
            distance_by_name(self.distance)
        except ValueError as error:
            raise RankproofError(str(error)) from None
        if self.epochs < 1 or not self.learning_rate > 0:
            raise RankproofError("epochs must be at least 1 and the learning rate above 0")
        if self.defense.of_triplets:
            triplet_loss(self.loss, self.defense.name)
        if self.defense.name in ("act", "hm") and isinstance(self.sampler, FromSet):
            raise RankproofError(
                f"defense {self.defense.name} pairs the pictures of a batch, {self.sampler.name} makes pairs "
                "of its own; take balanced or in-batch"
            )

    def settings(self) -> dict[str, Any]:
        """All of it as plain values, for the record."""
        return {
            "distance": self.distance,
            "loss": self.loss.settings(),
            "sampler": self.sampler.settings(),
            "defense": self.defense.settings(),
            "augment": self.augment.settings(),
            "epochs": self.epochs,
            "learning_rate": self.learning_rate,
            "weight_decay": self.weight_decay,
            "decay": self.decay,
            "warm_up": self.warm_up,
            "precision": self.precision,
            "seed": self.seed,
            "schedule": self.schedule,
        }

    @property
    def words(self) -> str:
        """Loss, distance and defence in a few words."""
        start = f"{self.loss.name} loss with {self.distance} distance"
        return start if self.defense.name == "none" else f"{start} and defense {self.defense.name}"


def published(
    distance: str = "cosine", loss: str = "triplet", *, defended: bool = False, size: int = 28, seed: int = 0
) -> Recipe:
    """The ECCV paper's recipe for 28x28 pictures: one of CC, CT, EC, ET and, defended, CCD to ETD.

    Args:
        distance: "cosine" or "euclidean".
        loss: "contrastive" or "triplet".
        defended: with the paper's defence.
        size: side of a picture, which decides the defence's eps.
    """
    margin = PUBLISHED_MARGIN[distance]
    return Recipe(
        loss=Triplet(margin=margin) if loss == "triplet" else Contrastive(margin=margin),
        sampler=InBatch(batch=PUBLISHED_BATCH[distance]),
        distance=distance,
        defense=EmbeddingShift(inner=published_inner(size)) if defended else Undefended(),
        seed=seed,
        schedule="published",
    )


def later(defense: Literal["act", "hm"], *, batch: int, per_class: int = 2, size: int = 28) -> Recipe:
    """A later defence as its authors train it: unit sphere, margin 0.2, the same number of each class."""
    inner: Inner = later_inner(size)
    return Recipe(
        loss=Triplet(margin=0.2),
        sampler=Balanced(batch=batch, per_class=per_class),
        distance="sphere",
        defense=AntiCollapse(inner=inner) if defense == "act" else Hardness(inner=inner),
    )


def is_published(recipe: Recipe, size: int) -> bool:
    """Whether a recipe for 28x28 pictures differs from the published one in seed and precision at most."""
    known = recipe.distance in ("cosine", "euclidean") and recipe.loss.name in ("triplet", "contrastive")
    if size != PUBLISHED_SIZE or not known:
        return False
    paper = published(
        recipe.distance, recipe.loss.name, defended=recipe.defense.name == "est", size=size, seed=recipe.seed
    )
    plain = replace(recipe, schedule="published", precision="single")
    return plain.settings() == paper.settings()
