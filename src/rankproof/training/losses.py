"""What an encoder is trained to lower."""

import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from rankproof.errors import RankproofError
from rankproof.rng import generator
from rankproof.ranking.distances import Distance
from rankproof.training.borrowed import global_numbers

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

    @property
    def of_triplets(self) -> bool:
        """Whether a batch without triplets teaches it nothing."""
        ...

    def parameters(self) -> list[nn.Parameter]:
        """What it learns itself, such as proxies of the classes."""
        ...

    def state(self) -> dict[str, Tensor]:
        """All that changes while it is used, by name."""
        ...

    def restore(self, state: dict[str, Tensor]) -> None:
        """Put back what `state` gave."""
        ...


@dataclass(frozen=True, kw_only=True)
class Margin:
    """What losses with a margin and nothing to learn share.

    Args:
        margin: how much farther other classes should be.
    """

    margin: float

    name: ClassVar[str]

    def settings(self) -> dict[str, Any]:
        """The margin."""
        return {"name": self.name, **asdict(self)}

    def parameters(self) -> list[nn.Parameter]:
        """None."""
        return []

    def state(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Nothing."""


@dataclass(frozen=True, kw_only=True)
class Triplet(Margin):
    """Triplet loss of every triplet (ECCV eq. 3): [margin + d(a, p) - d(a, n)]+.

    Args:
        margin: 0.2 for cosine and 1.0 for Euclidean distance in the papers (28x28 pictures).
    """

    name = "triplet"
    of_triplets = True

    def __call__(self, z: Tensor, labels: Tensor, triplets: Tensor, distance: Distance) -> Tensor:
        """(t,) one loss per triplet."""
        # index_select, since the gradient of plain indexing is slower.
        rows = z.index_select(0, triplets.flatten())  # (3 t, d)
        anchor, positive, negative = rows.view(*triplets.shape, -1).unbind(1)  # (t, d) each
        return self.of(distance.between(anchor, positive), distance.between(anchor, negative))

    def of(self, near: Tensor, far: Tensor) -> Tensor:
        """The loss from the distances to positive and negative, each (t,)."""
        return (self.margin + near - far).relu()


@dataclass(frozen=True, kw_only=True)
class Contrastive(Margin):
    """Contrastive loss of every pair of the batch: d for one class, [margin - d]+ for two.

    Args:
        margin: 0.2 for cosine and 1.0 for Euclidean distance in the papers.
    """

    name = "contrastive"
    of_triplets = False

    def __call__(self, z: Tensor, labels: Tensor, triplets: Tensor, distance: Distance) -> Tensor:
        """(b (b - 1) / 2,) one loss per pair."""
        first, second = torch.triu_indices(len(z), len(z), offset=1, device=z.device)
        d = distance.pairwise(z, z)[first, second]
        return torch.where(labels[first] == labels[second], d, (self.margin - d).relu())


class MetricLearningLoss:
    """Any loss of pytorch-metric-learning, with a miner if wanted, unchanged.

    Args:
        loss: name of a class in `pytorch_metric_learning.losses`.
        options: its arguments; `num_classes`, `embedding_size` and `descriptors_dim` are filled in where it
            wants them, and for raw Euclidean embeddings a `distance` that does not scale them.
        miner: name of a class in `pytorch_metric_learning.miners`, or None.
        miner_options: the miner's arguments.
        classes: number of classes of the training split.
        dimensions: of the embedding.
        distance: how the encoder's embeddings are compared.
        seed: of what it learns itself.
        device: where that lives.
    """

    of_triplets = False

    def __init__(
        self,
        loss: str,
        options: Mapping[str, Any] | None = None,
        *,
        miner: str | None = None,
        miner_options: Mapping[str, Any] | None = None,
        classes: int,
        dimensions: int,
        distance: str = "cosine",
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        from pytorch_metric_learning import losses, miners

        self.name = PML + loss
        self.options, self.miner_options = dict(options or {}), dict(miner_options or {})
        self.miner_name = miner
        filled: dict[str, Any] = {"num_classes": classes, "embedding_size": dimensions}
        filled |= {"descriptors_dim": dimensions, **_plain(distance)}
        with global_numbers(generator(seed, 0, "loss")):
            self.module = _built(losses, loss, self.options, filled).to(device)
            self.miner = (
                None if miner is None else _built(miners, miner, self.miner_options, _plain(distance))
            )

    def __call__(self, z: Tensor, labels: Tensor, triplets: Tensor, distance: Distance) -> Tensor:
        """() the library has averaged already."""
        try:
            mined = None if self.miner is None else self.miner(z, labels)
            value: Tensor = self.module(z, labels, mined)
        except (TypeError, ValueError, KeyError, AssertionError, RuntimeError, NotImplementedError) as error:
            first = str(error).strip().partition("\n")[0]
            raise RankproofError(
                f"{self.name}: does not work with embeddings and classes alone ({first}); take another loss"
            ) from error
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

    def state(self) -> dict[str, Tensor]:
        """Of the loss and of the miner."""
        parts = {"loss": self.module, "miner": self.miner}
        return {
            f"{part}.{name}": value
            for part, module in parts.items()
            if module is not None
            for name, value in module.state_dict().items()
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Of the loss and of the miner."""
        for part, module in (("loss.", self.module), ("miner.", self.miner)):
            own = {name.removeprefix(part): value for name, value in state.items() if name.startswith(part)}
            if module is not None:
                module.load_state_dict(own)


def _plain(distance: str) -> dict[str, Any]:
    """The library's distance for raw Euclidean embeddings; all its own scale to unit length."""
    if distance != "euclidean":
        return {}
    from pytorch_metric_learning.distances import LpDistance

    return {"distance": LpDistance(normalize_embeddings=False)}


def _built(library: Any, name: str, options: dict[str, Any], filled: dict[str, Any]) -> nn.Module:
    """A class of the library, made with the options and with what it cannot do without."""
    made = getattr(library, name, None)
    kind = library.__name__.rpartition(".")[2]
    if not (inspect.isclass(made) and issubclass(made, nn.Module)):
        raise RankproofError(
            f"{PML}{name}: pytorch-metric-learning has no such class in `{kind}`; see its documentation"
        )
    # Classes hand what they do not know on to those they are made of.
    own = (vars(part)["__init__"] for part in made.__mro__ if "__init__" in vars(part))
    wanted = [word for init in own if inspect.isfunction(init) for word in inspect.signature(init).parameters]
    unknown = [word for word in options if word not in wanted]
    if unknown:
        known = ", ".join(dict.fromkeys(word for word in wanted if word not in ("self", "args", "kwargs")))
        raise RankproofError(f"{PML}{name}: no option {unknown[0]!r}; it has {known}")
    try:
        module: nn.Module = made(
            **{word: value for word, value in filled.items() if word in wanted} | options
        )
    except (TypeError, ValueError, KeyError, AssertionError, NotImplementedError) as error:
        first = str(error).strip().partition("\n")[0]
        raise RankproofError(f"{PML}{name}: cannot be made with these options ({first})") from None
    return module
