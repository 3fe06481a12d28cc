"""The maximum-shift attack: move the embedding as far as possible."""

from dataclasses import dataclass

from torch import Tensor

from rankproof.goals.base import Bound, Goal, Scene
from rankproof.types import Embeddings, Ids, Outcome


@dataclass(frozen=True, kw_only=True)
class MaxShift(Goal):
    """Push an embedding as far from its clean place as possible (ECCV section 3.3).

    L(x) = -d(x + r, x)

    At the clean image itself this is stationary: its gradient there is zero or rounding noise, so an
    optimiser has to start elsewhere (`stationary`).
    """

    whole_gallery = False  # only with its own clean place

    @property
    def metric(self) -> str:
        """Measured by the distance moved."""
        return "shift"

    def bind(self, scene: Scene) -> Bound:
        """Nothing is chosen."""
        return BoundShift(scene)


class BoundShift:
    """Clean embeddings to get away from."""

    stationary = True

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.targets: Ids = scene.clean.new_empty(len(scene.clean), 0).long()
        self.preserved: Ids = self.targets

    def outcome(self, z: Embeddings, emphasis: Tensor | None = None) -> Outcome:
        """Loss: minus the distance moved; merit: that distance."""
        moved = self.scene.gallery.ranker.distance.between(z, self.scene.clean)
        return Outcome(-moved, moved.detach())

    def verdict(self, z: Embeddings) -> dict[str, Tensor]:
        """The distance moved."""
        distance = self.scene.gallery.ranker.distance
        return {"shift": distance.between(z.double(), self.scene.clean.double())}
