"""The maximum-shift attack: move the embedding as far as possible."""

from dataclasses import dataclass

from torch import Tensor

from rankproof.goals.base import AttackContext, BoundGoal, Goal, GoalSpec
from rankproof.types import Embeddings, Evaluation, Ids


@dataclass(frozen=True, kw_only=True)
class MaxShift(Goal):
    """Push an embedding as far from its clean place as possible (ECCV section 3.3).

    L(x) = -d(x + r, x)

    At the clean image itself this is stationary: its gradient there is zero or rounding noise, so an
    optimiser has to start elsewhere (`stationary`).
    """

    SPEC = GoalSpec(
        name="shift",
        title="Shift",
        family="embedding",
        direction="push",
        paper="ECCV 2020",
        metric="shift",
        larger_is_stronger=True,
        clean_value=0.0,
        describe=lambda values: "An image is changed so that its embedding moves as far as it can.",
        figure_label="distance moved",
        standard_audit=9,
    )
    whole_gallery = False  # only with its own clean place

    def bind(self, context: AttackContext) -> BoundGoal:
        """Nothing is chosen."""
        return BoundShift(context)


class BoundShift:
    """Clean embeddings to get away from."""

    stationary = True

    def __init__(self, context: AttackContext) -> None:
        self.context, self._gallery = context, context.gallery
        self._clean = context.gallery.prepare(context.clean)
        self.targets: Ids = context.clean.new_empty(len(context.clean), 0).long()
        self.preserved: Ids = self.targets

    def evaluate(self, z: Embeddings, penalty_weight: Tensor | None = None) -> Evaluation:
        """Loss: minus the distance moved; fitness: that distance."""
        moved = self._gallery.between(self._gallery.prepare(z), self._clean)
        return Evaluation(-moved, moved.detach())

    def metrics(self, z: Embeddings) -> dict[str, Tensor]:
        """The distance moved."""
        return {"shift": self._gallery.exact_between(z, self.context.clean)}
