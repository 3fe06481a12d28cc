"""The losses that training minimises: triplet, contrastive, and all of pytorch-metric-learning."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from rankproof.errors import RankproofError
from rankproof.io import JsonObject
from rankproof.parameters import Weight
from rankproof.ranking.distances import Distance
from rankproof.rng import generator
from rankproof.training.global_rng import global_rng
from rankproof.training.settings import RecipePart

PML = "pml:"


@runtime_checkable
class Loss(Protocol):
    """A function of one batch of embeddings, possibly with parameters and a state of its own."""

    @property
    def name(self) -> str:
        """Used on the command line and in records."""
        ...

    @property
    def of_triplets(self) -> bool:
        """Whether a batch without triplets has no loss."""
        ...

    def __call__(self, z: Tensor, labels: Tensor, triplets: Tensor, distance: Distance) -> Tensor:
        """One value for each term of the loss.

        Args:
            z: (b, d) embeddings of a batch, each image embedded once.
            labels: (b,) their classes.
            triplets: (t, 3) positions of anchor, positive and negative in the batch.
            distance: how embeddings are compared.
        """
        ...

    def settings(self) -> JsonObject:
        """All parameters, for the record."""
        ...

    def parameters(self) -> list[nn.Parameter]:
        """What is trained together with the encoder, such as class proxies."""
        ...

    def state(self) -> dict[str, Tensor]:
        """All tensors that change during training, by name."""
        ...

    def restore(self, state: dict[str, Tensor]) -> None:
        """Load what `state` returned."""
        ...


@dataclass(frozen=True, kw_only=True)
class MarginLoss(RecipePart):
    """Base of the losses that have a margin and nothing to train.

    Args:
        margin: how much farther than the same class other classes should be.
    """

    margin: Weight

    def parameters(self) -> list[nn.Parameter]:
        """None."""
        return []

    def state(self) -> dict[str, Tensor]:
        """Empty."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """There is nothing to load."""


@dataclass(frozen=True, kw_only=True)
class Triplet(MarginLoss):
    """Triplet loss of each triplet (ECCV eq. 3): [margin + d(a, p) - d(a, n)]+.

    Args:
        margin: 0.2 for cosine and 1.0 for Euclidean distance in the papers (28x28 images).
    """

    name = "triplet"
    of_triplets: ClassVar[bool] = True

    def __call__(self, z: Tensor, labels: Tensor, triplets: Tensor, distance: Distance) -> Tensor:
        """(t,) one loss per triplet."""
        # The gradient of index_select is faster than that of plain indexing.
        rows = z.index_select(0, triplets.flatten())  # (3 t, d)
        anchor, positive, negative = rows.view(*triplets.shape, -1).unbind(1)  # (t, d) each
        return self.of(distance.between(anchor, positive), distance.between(anchor, negative))

    def of(self, d_positive: Tensor, d_negative: Tensor) -> Tensor:
        """(t,) the loss from the anchor's distances to positive and negative, (t,) each."""
        return (self.margin + d_positive - d_negative).relu()  # eq. 3


@dataclass(frozen=True, kw_only=True)
class Contrastive(MarginLoss):
    """Contrastive loss of every pair of the batch: d within a class, [margin - d]+ between classes.

    Args:
        margin: 0.2 for cosine and 1.0 for Euclidean distance in the papers.
    """

    name = "contrastive"
    of_triplets: ClassVar[bool] = False

    def __call__(self, z: Tensor, labels: Tensor, triplets: Tensor, distance: Distance) -> Tensor:
        """(b (b - 1) / 2,) one loss per pair."""
        first, second = torch.triu_indices(len(z), len(z), offset=1, device=z.device)
        d = distance.pairwise(z, z)[first, second]
        return torch.where(labels[first] == labels[second], d, (self.margin - d).relu())


class MetricLearningLoss:
    """Any loss of pytorch-metric-learning, optionally with a miner; computed on the CPU until moved by `to`.

    Args:
        loss: name of a class in `pytorch_metric_learning.losses`.
        options: its arguments. `num_classes`, `embedding_size` and `descriptors_dim` are filled in where the
            class takes them, and for raw Euclidean embeddings a `distance` that does not normalise them.
        miner: name of a class in `pytorch_metric_learning.miners`, or None.
        miner_options: the miner's arguments.
        classes: number of classes of the training split.
        dimensions: of the embedding.
        distance: name of the distance that embeddings are compared by.
        seed: of the initial values of the loss's own parameters.
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
    ) -> None:
        from pytorch_metric_learning import losses, miners

        self.name = PML + loss
        self.options, self.miner_options = dict(options or {}), dict(miner_options or {})
        self.miner_name = miner
        compared = _raw_distance(distance)
        sizes = {"num_classes": classes, "embedding_size": dimensions, "descriptors_dim": dimensions}
        with global_rng(generator(seed, 0, "loss")):
            self.module = _build(losses, loss, self.options, {**sizes, **compared})
            self.miner = None if miner is None else _build(miners, miner, self.miner_options, compared)

    def to(self, device: str | torch.device) -> "MetricLearningLoss":
        """Move the parameters of the loss to a device."""
        self.module.to(device)
        return self

    def __call__(self, z: Tensor, labels: Tensor, triplets: Tensor, distance: Distance) -> Tensor:
        """() the loss as the library averages it."""
        try:
            mined = None if self.miner is None else self.miner(z, labels)
            value: Tensor = self.module(z, labels, mined)
        except (TypeError, ValueError, KeyError, AssertionError, RuntimeError, NotImplementedError) as error:
            raise RankproofError(
                f"{self.name}: cannot be computed from embeddings and classes alone ({_first_line(error)}); "
                f"take another loss"
            ) from error
        return value

    def settings(self) -> JsonObject:
        """Names and arguments of loss and miner."""
        return {
            "name": self.name,
            "options": self.options,
            "miner": self.miner_name,
            "miner_options": self.miner_options,
        }

    def parameters(self) -> list[nn.Parameter]:
        """The parameters of the loss, such as class proxies."""
        return list(self.module.parameters())

    def state(self) -> dict[str, Tensor]:
        """The tensors of loss and miner, their names beginning with "loss." and "miner."."""
        return {
            f"{part}.{name}": value
            for part, module in self._modules()
            for name, value in module.state_dict().items()
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Load what `state` returned."""
        for part, module in self._modules():
            prefix = f"{part}."
            module.load_state_dict(
                {name.removeprefix(prefix): state[name] for name in state if name.startswith(prefix)}
            )

    def _modules(self) -> list[tuple[str, nn.Module]]:
        modules = [("loss", self.module)]
        return modules if self.miner is None else [*modules, ("miner", self.miner)]


def _raw_distance(distance: str) -> dict[str, nn.Module]:
    """For raw Euclidean embeddings, the library's distance without its usual normalisation to unit length."""
    if distance != "euclidean":
        return {}
    from pytorch_metric_learning.distances import LpDistance

    return {"distance": LpDistance(normalize_embeddings=False)}


def _build(library: Any, name: str, options: Mapping[str, Any], defaults: Mapping[str, Any]) -> nn.Module:
    """An object of a class of the library, from the options and those of the defaults that it takes."""
    cls = getattr(library, name, None)
    if not (inspect.isclass(cls) and issubclass(cls, nn.Module)):
        module = library.__name__.rpartition(".")[2]
        raise RankproofError(
            f"{PML}{name}: pytorch-metric-learning has no such class in `{module}`; see its documentation"
        )
    # Constructors pass the arguments they do not know on to those of their base classes.
    inits = (vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base))
    accepted = [
        arg for init in inits if inspect.isfunction(init) for arg in inspect.signature(init).parameters
    ]
    if unknown := [option for option in options if option not in accepted]:
        names = ", ".join(dict.fromkeys(arg for arg in accepted if arg not in ("self", "args", "kwargs")))
        raise RankproofError(f"{PML}{name}: unknown option {unknown[0]!r}; its options are {names}")
    try:
        built: nn.Module = cls(**{arg: defaults[arg] for arg in defaults if arg in accepted} | dict(options))
    except (TypeError, ValueError, KeyError, AssertionError, NotImplementedError) as error:
        raise RankproofError(
            f"{PML}{name}: cannot be made with these options ({_first_line(error)})"
        ) from None
    return built


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
