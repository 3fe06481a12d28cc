"""How a model and its data are opened: the options of every command that takes them."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

import torch

from rankproof.cache import GalleryCache
from rankproof.data.image_list import Keep, SplitBy
from rankproof.errors import RankproofError
from rankproof.models import Preprocess
from rankproof.types import ProgressCallback, no_progress

Stage = Callable[[str], AbstractContextManager[ProgressCallback]]


def no_display(what: str) -> AbstractContextManager[ProgressCallback]:
    """A stage that shows nothing."""
    return nullcontext(no_progress)


@dataclass(frozen=True, kw_only=True)
class SystemOptions:
    """How a model and its data are opened.

    Args:
        device: "auto" (a GPU where there is one), "cpu" or "cuda".
        size: side every image is resized to, or "keep": each is attacked at its own, and what makes it fit
            the encoder is part of the attack; None takes the model's own where it has one, unless
            `preprocess` gives images another size.
        split_by: who gets which image of a data set without splits.
        root: folder that holds data sets by name.
        trust: whether a model that is a program may be opened, which can run code.
        preprocess: what is done to images before the encoder, as part of what is attacked.
        draws: passes of which an embedding is the mean; None is 8 for a random encoder, else 1.
        embed_batch: images in one pass; None is as many as suit their size.
        weights: a file of weights for the network that the model names.
        mean, std: per channel, in place of those of the model's record; None keeps these.
        bgr: whether the encoder takes colours in the order blue, green, red.
        cache: where embeddings are kept between commands; None keeps nothing.
        output: of an ONNX file, the tensor that is the embedding; see `open_encoder`.
        queries: images that are searched for among the data and are no part of them, as for
            `rankproof.data.load_queries`; None: those that the data set has, if any.
    """

    device: str = "auto"
    size: int | Keep | None = None
    split_by: str = "auto"
    root: Path | None = None
    trust: bool = False
    preprocess: Preprocess | None = None
    draws: int | None = None
    embed_batch: int | None = None
    weights: Path | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    bgr: bool = False
    cache: GalleryCache | None = None
    output: str | None = None
    queries: str | None = None


DEFAULTS = SystemOptions()


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


def as_split_by(word: str) -> SplitBy:
    """The checked value of `--divide`."""
    if word not in get_args(SplitBy):
        raise RankproofError(f"--divide must be one of {', '.join(get_args(SplitBy))}, got {word!r}")
    return cast(SplitBy, word)


def preprocess_of(resize: int | None, crop: int | None, jpeg: int | None) -> Preprocess | None:
    """What `--resize`, `--crop` and `--jpeg` ask for; None where they ask for nothing."""
    return None if (resize, crop, jpeg) == (None, None, None) else Preprocess(resize, crop, jpeg)
