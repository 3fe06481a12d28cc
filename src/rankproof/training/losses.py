"""What an encoder is trained to lower."""

import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from rankproof.errors import RankproofError
from rankproof.ranking.distances import Distance

PML = "pml:"


@runtime_checkable
class Loss(Protocol):
    """What is lowered, as a function of one batch."""

    @property
    def name(self) -> str:
        """The word used for it on the command line and in records."""
        ...

    def __call__(self, z: Tensor, labels: Tensor, triplets: Tensor, distance: Distance) -> Tensor:
        """One value per term of the loss.

        Args:
            z: (b, d) embeddings of a batch, each picture embedded once.
            labels: (b,) their classes.
            triplets: (t, 3) positions of anchor, positive and negative in the batch.
            distance: how embeddings are compared.
        """
        ...

    def settings(self) -> dict[str, Any]:
        """Everything that defines it, for the record."""
        ...

    def parameters(self) -> list[nn.Parameter]:
        """What it learns itself, such as proxies of the classes."""
        ...


@dataclass(frozen=True, kw_only=True)
class Triplet:
    """Triplet loss of every triplet (ECCV eq. 3): [margin + d(a, p) - d(a, n)]+.

    Args:
        margin: 0.2 for cosine and 1.0 for Euclidean distance in the papers (28x28 pictures).
    """

    margin: float

    name = "triplet"

    def __call__(self, z: Tensor, labels: Tensor, triplets: Tensor, distance: Distance) -> Tensor:
        """(t,) one loss per triplet."""
        anchor, positive, negative = z[triplets].unbind(1)  # (t, d) each
        return self.of(distance.between(anchor, positive), distance.between(anchor, negative))

    def of(self, near: Tensor, far: Tensor) -> Tensor:
        """The loss from the distances to positive and negative, each (t,)."""
        return (self.margin + near - far).relu()

    def settings(self) -> dict[str, Any]:
        """The margin."""
        return {"name": self.name, **asdict(self)}

    def parameters(self) -> list[nn.Parameter]:
        """None."""
        return []


@dataclass(frozen=True, kw_only=True)
class Contrastive:
    """Contrastive loss of every pair of the batch: d for one class, [margin - d]+ for two.

    Args:
        margin: 0.2 for cosine and 1.0 for Euclidean distance in the papers.
    """

    margin: float

    name = "contrastive"

    def __call__(self, z: Tensor, labels: Tensor, triplets: Tensor, distance: Distance) -> Tensor:
        """(b (b - 1) / 2,) one loss per pair."""
        first, second = torch.triu_indices(len(z), len(z), offset=1, device=z.device)
        d = distance.pairwise(z, z)[first, second]
        return torch.where(labels[first] == labels[second], d, (self.margin - d).relu())

    def settings(self) -> dict[str, Any]:
        """The margin."""
        return {"name": self.name, **asdict(self)}

    def parameters(self) -> list[nn.Parameter]:
        """None."""
        return []


class MetricLearningLoss:
    """Any loss of pytorch-metric-learning, with a miner if wanted, unchanged.

    Args:
        loss: name of a class in `pytorch_metric_learning.losses`.
        options: its arguments; `num_classes` and `embedding_size` are filled in where it wants them.
        miner: name of a class in `pytorch_metric_learning.miners`, or None.
        miner_options: the miner's arguments.
        classes: number of classes of the training split.
        dimensions: of the embedding.
        device: where what it learns itself lives.
    """

    def __init__(
        self,
        loss: str,
        options: Mapping[str, Any] | None = None,
        *,
        miner: str | None = None,
        miner_options: Mapping[str, Any] | None = None,
        classes: int,
        dimensions: int,
        device: str | torch.device = "cpu",
    ) -> None:
        from pytorch_metric_learning import losses, miners

        self.name = PML + loss
        filled = {"num_classes": classes, "embedding_size": dimensions}
        self.options, self.miner_name, self.miner_options = (
            dict(options or {}),
            miner,
            dict(miner_options or {}),
        )
        self.module = _built(losses, loss, self.options, filled).to(device)
        self.miner = None if miner is None else _built(miners, miner, self.miner_options, {})

    def __call__(self, z: Tensor, labels: Tensor, triplets: Tensor, distance: Distance) -> Tensor:
        """() the library has averaged already."""
        mined = None if self.miner is None else self.miner(z, labels)
        value: Tensor = self.module(z, labels, mined)
        return value

    def settings(self) -> dict[str, Any]:
        """Names and options."""
        return {
            "name": self.name,
            "options": self.options,
            "miner": self.miner_name,
            "miner_options": self.miner_options,
        }

    def parameters(self) -> list[nn.Parameter]:
        """Such as the proxies of the classes."""
        return list(self.module.parameters())


def _built(library: Any, name: str, options: dict[str, Any], filled: dict[str, int]) -> nn.Module:
    """A class of the library, made with the options and with what it cannot do without."""
    made = getattr(library, name, None)
    kind = library.__name__.rpartition(".")[2]
    if not (inspect.isclass(made) and issubclass(made, nn.Module)):
        raise RankproofError(
            f"{PML}{name}: pytorch-metric-learning has no such class in `{kind}`; see its documentation"
        )
    wanted = inspect.signature(made.__init__).parameters
    needed = {word: value for word, value in filled.items() if word in wanted}
    unknown = [word for word in options if word not in wanted and not _takes_more(made)]
    if unknown:
        known = ", ".join(word for word in wanted if word not in ("self", "args", "kwargs"))
        raise RankproofError(f"{PML}{name}: no option {unknown[0]!r}; it has {known}")
    try:
        module: nn.Module = made(**{**needed, **options})
    except (TypeError, ValueError, AssertionError) as error:
        raise RankproofError(f"{PML}{name}: cannot be made with these options ({error})") from None
    return module


def _takes_more(made: type) -> bool:
    """Whether the class hands unknown arguments on to the one it is made of."""
    wanted = inspect.signature(made.__init__).parameters.values()  # type: ignore[misc]
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in wanted)
