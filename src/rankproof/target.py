"""What a command line names - a model, a data set, a device - as a gallery that can be attacked."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import torch
from torch import Tensor

from rankproof.audit.suite import draw
from rankproof.data import Dataset, load
from rankproof.data.listing import Divide
from rankproof.errors import RankproofError
from rankproof.models import load_checkpoint
from rankproof.models.checkpoint import RECORD
from rankproof.ranking import Gallery, Ranker

Tell = Callable[[int, int], None]
Stage = Callable[[str], AbstractContextManager[Tell]]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A model and the test split it ranks.

    Args:
        gallery: the embedded test split.
        dataset: its pictures, in the same order.
        record: what is known of the model.
    """

    gallery: Gallery
    dataset: Dataset
    record: dict[str, Any]

    @property
    def positions(self) -> Tensor:
        """(n,) the position of every item."""
        return torch.arange(len(self.gallery))

    def draw(self, trials: int, seed: int) -> Tensor:
        """(min(trials, n),) random positions in the gallery without replacement; see `audit.draw`."""
        return draw(len(self.gallery), trials, seed)


def open_target(
    model: str,
    data: str | None,
    *,
    device: str = "auto",
    size: int | None = None,
    divide: str = "auto",
    root: Path | None = None,
    stage: Stage = lambda what: nullcontext(lambda done, total: None),
) -> Target:
    """Load a model, the test split of a data set, and embed it.

    Args:
        model: a folder with a checkpoint, or "zoo:" and a name.
        data: as for `rankproof.load`; None is the embedded digits.
        device: "auto" (a GPU where there is one), "cpu" or "cuda".
        size: side every picture is resized to.
        divide: who gets which picture of a data set without splits.
        root: folder that holds data sets by name.
        stage: given a name, opens a display of progress for one stage of the work.
    """
    place = find_device(device)
    checkpoint = load_checkpoint(model)
    distance = checkpoint.record.get("distance")
    if distance not in ("cosine", "euclidean"):
        raise RankproofError(
            f"{model}: the distance in {RECORD} must be cosine or euclidean, not {distance!r}"
        )
    with stage("reading pictures") as tell:
        dataset = load(data, "test", size=size, divide=as_divide(divide), root=root, progress=tell)
    _check_form(dataset, checkpoint.record.get("input"), model)
    encoder = checkpoint.encoder.to(place)
    encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster convolutions
    ranker = Ranker(encoder, distance, name=model)
    with stage("embedding the gallery") as tell:
        gallery = Gallery.build(ranker, dataset.pictures, dataset.labels, tell)
    return Target(gallery=gallery, dataset=dataset, record=checkpoint.record)


def find_device(word: str) -> str:
    """The device a word stands for.

    Raises:
        RankproofError: the word is unknown or there is no such device.
    """
    if word not in ("auto", "cpu", "cuda"):
        raise RankproofError(f"--device must be auto, cpu or cuda, got {word!r}")
    available = word != "cpu" and torch.cuda.is_available()
    if word == "cuda" and not available:
        raise RankproofError("--device cuda: no CUDA device can be used here; leave it at auto")
    return "cuda" if available else "cpu"


def as_divide(word: str) -> Divide:
    """The checked value of `--divide`."""
    if word not in get_args(Divide):
        raise RankproofError(f"--divide must be one of {', '.join(get_args(Divide))}, got {word!r}")
    return cast(Divide, word)


def _check_form(dataset: Dataset, wanted: object, model: str) -> None:
    """Raise where the model was trained on pictures of another form."""
    form = list(dataset.pictures.shape[1:])
    if not isinstance(wanted, list) or wanted == form:
        return
    shape, expected = ("x".join(map(str, sides)) for sides in (form, wanted))
    hint = f"try --size {wanted[-1]}" if wanted[:1] == form[:1] else "choose other data or another model"
    raise RankproofError(f"{model}: wants pictures of {expected}, {dataset.name} has {shape}; {hint}")
