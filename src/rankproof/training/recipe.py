"""Everything that determines how an encoder is trained, and the papers' choices."""

from dataclasses import asdict, dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from rankproof.errors import RankproofError
from rankproof.io import JsonObject
from rankproof.parameters import Checked, Count, Length, Positive, Weight
from rankproof.ranking.distances import distance_by_name
from rankproof.training.defenses import Defense, EmbeddingShift, Undefended, require_triplet_loss
from rankproof.training.inner_attack import eccv_inner_attack
from rankproof.training.losses import Contrastive, Loss, Triplet
from rankproof.training.samplers import FromSet, InBatch, Sampler

Decay = Literal["constant", "cosine"]

PUBLISHED_BATCH = {"cosine": 1000, "euclidean": 500, "sphere": 500}
PUBLISHED_MARGIN = {"cosine": 0.2, "euclidean": 1.0, "sphere": 0.2}
PUBLISHED_SIZE = 28  # side of the images that the published settings are for
EPOCHS = 30
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 1e-7


@dataclass(frozen=True, kw_only=True)
class Augment(Checked):
    """Random shifts and mirroring, drawn for each image.

    Args:
        pad: largest shift in pixels; the image is padded by reflection and cropped.
        flip: mirror images left to right with probability 1/2.
    """

    pad: Length = 0
    flip: bool = False

    def __call__(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """Augmented images of the same shape (b, c, h, w)."""
        count, _, height, width = images.shape
        if self.flip:
            mirrored = torch.rand(count, generator=rng) < 0.5
            images = torch.where(mirrored.view(-1, 1, 1, 1).to(images.device), images.flip(3), images)
        if self.pad:
            padded = functional.pad(images, (self.pad,) * 4, mode="reflect")
            down, right = torch.randint(2 * self.pad + 1, (2, count), generator=rng)  # (b,) each
            rows = down[:, None] + torch.arange(height)  # (b, h)
            columns = right[:, None] + torch.arange(width)  # (b, w)
            image = torch.arange(count)[:, None, None]  # (b, 1, 1)
            cropped = padded[image, :, rows[:, :, None], columns[:, None, :]]  # (b, h, w, c)
            images = cropped.permute(0, 3, 1, 2)  # (b, c, h, w)
        return images


@dataclass(frozen=True, kw_only=True)
class Recipe(Checked):
    """How to train.

    Args:
        loss: what is minimised.
        sampler: forms the batches.
        distance: "cosine", "euclidean" or "sphere".
        defense: how attacks enter the training.
        augment: random changes of the training images.
        epochs: number of passes over the training split.
        learning_rate, weight_decay: of Adam.
        decay: "constant", as published, or "cosine": the learning rate falls to 0 at the end.
        warm_up: epochs over which the eps of the defence grows; 0 as published.
        precision: "single", or "bf16" for the encoder's passes.
        seed: of all random numbers.
        schedule: "published", "fast" or "own": which kind of schedule this is.
    """

    loss: Loss
    sampler: Sampler
    distance: str = "cosine"
    defense: Defense = field(default_factory=Undefended)
    augment: Augment = field(default_factory=Augment)
    epochs: Count = EPOCHS
    learning_rate: Positive = LEARNING_RATE
    weight_decay: Weight = WEIGHT_DECAY
    decay: Decay = "constant"
    warm_up: Weight = 0.0
    precision: Literal["single", "bf16"] = "single"
    seed: int = 0
    schedule: Literal["published", "fast", "own"] = "own"

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            distance_by_name(self.distance)
        except ValueError as error:
            raise RankproofError(str(error)) from None
        if self.defense.of_triplets:
            require_triplet_loss(self.loss, self.defense.name)
        if self.defense.name in ("act", "hm") and isinstance(self.sampler, FromSet):
            raise RankproofError(
                f"defense {self.defense.name} pairs the images of a batch, while the sampler "
                f"{self.sampler.name} makes pairs of its own; use balanced or in-batch"
            )

    def settings(self) -> JsonObject:
        """All of it as plain values, for the record."""
        return {
            "distance": self.distance,
            "loss": self.loss.settings(),
            "sampler": self.sampler.settings(),
            "defense": self.defense.settings(),
            "augment": asdict(self.augment),
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
    def description(self) -> str:
        """Loss, distance and defence in a few words."""
        start = f"{self.loss.name} loss with {self.distance} distance"
        return start if self.defense.name == "none" else f"{start} and defense {self.defense.name}"


def published(
    distance: str = "cosine", loss: str = "triplet", *, defended: bool = False, size: int = 28, seed: int = 0
) -> Recipe:
    """The ECCV paper's recipe for 28x28 images: one of CC, CT, EC, ET and, defended, CCD to ETD.

    Args:
        distance: "cosine" or "euclidean".
        loss: "contrastive" or "triplet".
        defended: with the paper's defence.
        size: side of an image, which determines the defence's eps.
        seed: of all random numbers.
    """
    margin = PUBLISHED_MARGIN[distance]
    return Recipe(
        loss=Triplet(margin=margin) if loss == "triplet" else Contrastive(margin=margin),
        sampler=InBatch(batch=PUBLISHED_BATCH[distance]),
        distance=distance,
        defense=EmbeddingShift(inner=eccv_inner_attack(size)) if defended else Undefended(),
        seed=seed,
        schedule="published",
    )


def is_published(recipe: Recipe, size: int) -> bool:
    """Whether a recipe for images of that side is the published one, but for seed and precision."""
    in_papers = recipe.distance in ("cosine", "euclidean") and recipe.loss.name in ("triplet", "contrastive")
    if size != PUBLISHED_SIZE or not in_papers:
        return False
    paper = published(
        recipe.distance, recipe.loss.name, defended=recipe.defense.name == "est", size=size, seed=recipe.seed
    )
    same_labels = replace(recipe, schedule="published", precision="single")
    return same_labels.settings() == paper.settings()
