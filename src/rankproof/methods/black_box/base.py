"""The interface of a black-box method: it proposes points of its subspace and learns from the feedback.

A method is a frozen set of hyper-parameters. Its state is a value: tensors whose first dimension is the
attack. Random numbers of a round come from the seed, the attack's key and the number of the round, which is
part of the state, so that a search stopped anywhere and continued gives the same bytes.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from rankproof.methods.black_box.subspace import Latents, Subspace, published_subspace
from rankproof.rng import generator
from rankproof.types import Feedback, Rows

Same = TypeVar("Same", bound="AttackTensors")


@dataclass(frozen=True)
class AttackTensors:
    """Tensors whose first dimension is the attack."""

    def take(self: Same, rows: Tensor) -> Same:
        """The tensors of some of the attacks."""
        return replace(self, **{name: tensor[rows] for name, tensor in self.arrays().items()})

    def arrays(self) -> dict[str, Tensor]:
        """The tensors by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What a method knows of a batch of attacks.

    Args:
        low, high: (b, c, s, s) bounds of the latents, in changes of a pixel.
        eps: largest change of a pixel, in [0, 1].
        rng_keys: (b,) names the random numbers of each attack.
        seed: all random numbers come from it.
        budget: Q, queries of each attack, the clean one included.
        visible: N, None where the whole ranking is shown.
        k: number of chosen items.
    """

    low: Tensor
    high: Tensor
    eps: float
    rng_keys: Rows
    seed: int
    budget: int
    visible: int | None
    k: int

    def take(self, rows: Tensor) -> "Problem":
        """The problem of some of the attacks."""
        return replace(self, low=self.low[rows], high=self.high[rows], rng_keys=self.rng_keys[rows])

    @property
    def shape(self) -> tuple[int, ...]:
        """(c, s, s), the shape of the latents of one attack."""
        return tuple(self.low.shape[1:])

    def clip(self, latents: Tensor) -> Tensor:
        """The nearest allowed latents (b, c, s, s) or (b, p, c, s, s)."""
        low, high = (bound if latents.dim() == 4 else bound[:, None] for bound in (self.low, self.high))
        return torch.maximum(torch.minimum(latents, high), low)

    def uniform(self, number: int, purpose: str, count: int) -> Latents:
        """(b, count, c, s, s) numbers uniform in [-1, 1) for one round."""
        return self.draw(
            number, purpose, lambda source: torch.rand(count, *self.shape, generator=source) * 2 - 1
        )

    def normal(self, number: int, purpose: str, count: int) -> Latents:
        """(b, count, c, s, s) standard normal numbers for one round."""
        return self.draw(number, purpose, lambda source: torch.randn(count, *self.shape, generator=source))

    def signs(self, number: int, purpose: str, count: int) -> Latents:
        """(b, count, c, s, s) numbers -1 or 1 for one round."""

        def numbers(source: torch.Generator) -> Tensor:
            return torch.randint(2, (count, *self.shape), generator=source, dtype=torch.int8)

        return self.draw(number, purpose, numbers) * 2 - 1

    def draw(self, number: int, purpose: str, numbers: Callable[[torch.Generator], Tensor]) -> Tensor:
        """What `numbers` draws from each attack's own generator for one round, stacked."""
        sources = (generator(self.seed, key, f"{purpose}/{number}") for key in self.rng_keys.tolist())
        return torch.stack([numbers(source) for source in sources]).to(self.low)


@runtime_checkable
class BlackBoxMethod(Protocol):
    """A black-box method: hyper-parameters, no state.

    Attributes:
        name: the word used for it on the command line and in files.
        grid: whether it searches among 8-bit images unless the caller says otherwise.
    """

    name: ClassVar[str]
    grid: ClassVar[bool] = False

    def subspace(self, shape: tuple[int, int, int]) -> Subspace:
        """Where it searches images (c, h, w) unless the caller says otherwise: the papers' rule."""
        return published_subspace(shape)

    def begin(self, problem: Problem, clean: Feedback) -> AttackTensors:
        """The state before the first round; `clean` (b, 1) is what the clean image showed."""
        ...

    def ask(self, problem: Problem, state: Any, number: int) -> Latents:
        """The points (b, p, c, s, s) of round `number`; equal arguments give equal points."""
        ...

    def tell(
        self, problem: Problem, state: Any, number: int, points: Latents, feedback: Feedback
    ) -> AttackTensors:
        """The state after round `number`."""
        ...
