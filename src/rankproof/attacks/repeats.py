"""Images asked again: whether a search system gives the same image the same answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from rankproof.oracles import BudgetedOracle, Cached, LocalOracle, Oracle, RepeatableOracle, TrackedItems
from rankproof.types import ImageSets, Places

RepeatFn = Callable[[ImageSets, TrackedItems], Places]
EQUAL = 1e-6  # tau_S of one answer, in single and in double precision


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """Answers to images that were asked a second time, outside the attacks' budget.

    The figure of the best image is the highest of many answers. Where answers are random it is too high, and
    `after` is not: that answer chose nothing.

    Args:
        count: (b,) queries sent for it.
        before, after: (b,) tau_S of the clean and of the best image, asked again.
        differs: (b,) whether one of the images got another answer.
    """

    count: Tensor
    before: Tensor
    after: Tensor
    differs: Tensor

    def arrays(self) -> dict[str, Tensor]:
        """The tensors by name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def take(self, rows: Tensor) -> "Repeats":
        """The attacks at some rows."""
        return Repeats(**{name: values[rows] for name, values in self.arrays().items()})

    @classmethod
    def concat(cls, parts: Sequence["Repeats"]) -> "Repeats":
        """Those of several parts of the same attack."""
        return cls(
            **{each.name: torch.cat([getattr(part, each.name) for part in parts]) for each in fields(cls)}
        )

    def note(self, tau_before: Tensor, tau: Tensor) -> str | None:
        """A warning where an answer differed; None where the same image always got the same answer.

        An answer that is a function of the image is the same to the last place when it is repeated. No chance
        is involved in it, so that a single difference is enough for the warning.

        Args:
            tau_before, tau: (b,) the figures that the attack's own queries showed.
        """
        if not bool(self.differs.any()):
            return None
        changes = torch.cat([self.before - tau_before, self.after - tau]).double().abs()
        told, again = float(tau.double().mean()), float(self.after.double().mean())
        return (
            f"the search system does not always answer the same image the same way: asked again, the answer "
            f"differed in {int(self.differs.sum())} of {len(self.differs)} attacks, tau_S by "
            f"{float(changes.mean()):.2f} on average; the best images, told {told:.2f}, have {again:.2f} "
            f"when asked again: trust {again:.2f}, the other is the highest of many random answers"
        )


def repeat_fn(oracle: Oracle) -> RepeatFn | None:
    """What asks an oracle again past stored answers and budgets.

    None behind a local gallery: the auditor embeds the images once more in any case, and the encoder itself
    can be examined.
    """
    match oracle:
        case LocalOracle():
            return None
        case BudgetedOracle() | Cached():
            return repeat_fn(oracle.oracle)
        case RepeatableOracle():
            return oracle.repeat
        case _:
            return oracle
