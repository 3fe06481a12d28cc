"""The attack inside a defence: what the encoder of this moment is most hurt by."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.methods import PGD
from rankproof.ranking.ranker import Ranker
from rankproof.threat import Threat
from rankproof.types import Evaluation

SMALL_PICTURE = 32  # side up to which the papers' settings for 28x28 pictures apply


@dataclass(frozen=True, kw_only=True)
class Inner:
    """Projected sign steps from a random place near the clean pictures.

    The encoder is in eval mode meanwhile: running statistics of batch norms see no attack in progress.

    Args:
        eps: largest change of a pixel, in [0, 1].
        steps: forward and gradient evaluations.
        step: step size in [0, 1].
        start: the search starts within this distance of the clean picture; at the picture itself the shift
            has no gradient.
    """

    eps: float
    steps: int
    step: float
    start: float = 1 / 255

    def __post_init__(self) -> None:
        Threat(self.eps)
        if self.steps < 1:
            raise RankproofError(f"a defence needs at least 1 inner step, got {self.steps}")

    def seek(
        self,
        ranker: Ranker,
        images: Tensor,
        loss: Callable[[Tensor], Tensor],
        *,
        source: torch.Generator,
        strength: float = 1.0,
    ) -> Tensor:
        """Pictures within eps whose embeddings have a low loss.

        Args:
            images: (b, c, h, w) in [0, 1].
            loss: embeddings (b, d) to one loss each (b,).
            source: where the search starts.
            strength: share of eps and of the step that is used, in [0, 1].
        """
        threat = Threat(self.eps * strength)
        noise = torch.rand(images.shape, generator=source).mul_(2).sub_(1).to(images)
        initial = images + noise * min(self.start, threat.eps)

        def objective(images: Tensor, penalty_weight: Tensor | None = None) -> Evaluation:
            value = loss(ranker.embed(images))
            return Evaluation(value, -value.detach())

        method = PGD(steps=self.steps, step=self.step * strength)
        with ranker.frozen():
            found = method.run(images, initial, objective, threat, seed=0, rng_keys=range(len(images)))
        return found.images.detach()

    def settings(self) -> dict[str, Any]:
        """For the record."""
        return asdict(self)


def shifted(
    inner: Inner, ranker: Ranker, images: Tensor, *, source: torch.Generator, strength: float = 1.0
) -> Tensor:
    """The pictures (b, c, h, w) that shift most: max over r of d(x + r, x) (ECCV section 3.3)."""
    clean = ranker.embed_all(images)
    return inner.seek(
        ranker, images, lambda z: -ranker.distance.between(z, clean), source=source, strength=strength
    )


def published_inner(size: int) -> Inner:
    """ECCV section 4: eps 0.3, 30 steps of 0.01 for 28x28 pictures; else 0.06, 20 steps of 0.006."""
    if size <= SMALL_PICTURE:
        return Inner(eps=0.3, steps=30, step=0.01)
    return Inner(eps=0.06, steps=20, step=0.006)


def later_inner(size: int) -> Inner:
    """What the later defences are measured with: 77/255 or, for larger pictures, 8/255; 32 steps."""
    if size <= SMALL_PICTURE:
        return Inner(eps=77 / 255, steps=32, step=3 / 255)
    return Inner(eps=8 / 255, steps=32, step=1 / 255)
