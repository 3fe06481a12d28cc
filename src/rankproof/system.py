"""What a command line names - a model, a data set, a device - as a gallery that can be attacked."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast, get_args

import torch
from torch import Tensor, nn

from rankproof.data import Dataset, MixedDataset, load, load_queries
from rankproof.data.image_list import KEEP, Keep, SplitBy
from rankproof.errors import RankproofError
from rankproof.io import JsonObject
from rankproof.models import GreyToColour, Preprocess, Source, open_encoder
from rankproof.models.source import COLOUR
from rankproof.ranking import Gallery, Ranker
from rankproof.ranking.distances import distance_by_name
from rankproof.ranking.mixed_images import MixedImages
from rankproof.ranking.ranker import pass_size
from rankproof.ranking.separate_queries import SeparateQueries
from rankproof.rng import draw
from rankproof.types import ProgressCallback, no_progress

QUERIES_ATTACKED = "attacks start from its queries, and their ranks count all gallery images"

Stage = Callable[[str], AbstractContextManager[ProgressCallback]]


def no_display(what: str) -> AbstractContextManager[ProgressCallback]:
    """A stage that shows nothing."""
    return nullcontext(no_progress)


@dataclass(frozen=True, kw_only=True)
class LoadedTask:
    """A model and the test split it is to rank, with nothing embedded yet.

    Args:
        source: the encoder as it was opened.
        ranker: the same with its distance and all that happens to images before it.
        dataset: the images.
        notes: what happens to the images on their way to the encoder.
    """

    source: Source
    ranker: Ranker
    dataset: Dataset | MixedDataset
    notes: tuple[str, ...]

    def embedded(self, stage: Stage = no_display) -> "RetrievalSystem":
        """The task with its gallery."""
        with stage("examining the encoder") as tell:
            self.ranker.begin(self.dataset.images, progress=tell)
        with stage("embedding the gallery") as tell:
            gallery = Gallery.build(self.ranker, self.dataset.images, self.dataset.labels, tell)
        return RetrievalSystem(
            gallery=gallery,
            dataset=self.dataset,
            record=self.source.record,
            notes=self.notes,
            queries=self._embedded_queries(stage),
        )

    def _embedded_queries(self, stage: Stage) -> SeparateQueries | None:
        """The queries that the data set has beside its gallery, if any."""
        queries = self.dataset.queries
        if queries is None:
            return None
        with stage("embedding the queries") as tell:
            z = self.ranker.embed_all(queries.images, tell)
        return SeparateQueries(
            embeddings=z,
            labels=queries.labels,
            cameras=queries.cameras,
            gallery_cameras=None if queries.cameras is None else self.dataset.cameras,
        )


@dataclass(frozen=True, kw_only=True)
class RetrievalSystem:
    """A model and the test split it ranks.

    Args:
        gallery: the embedded test split.
        dataset: its images, in the same order.
        record: what is known of the model.
        notes: what happens to the images on their way to the encoder.
        queries: the embedded queries of a data set that has some beside its gallery.
    """

    gallery: Gallery
    dataset: Dataset | MixedDataset
    record: JsonObject
    notes: tuple[str, ...] = ()
    queries: SeparateQueries | None = None

    @property
    def attacked(self) -> Dataset | MixedDataset:
        """The images that attacks start from: the gallery's, or queries that are no part of it."""
        return self.dataset if self.dataset.queries is None else self.dataset.queries

    def draw(self, trials: int, seed: int) -> Tensor:
        """(min(trials, n),) random positions in `attacked` without replacement; see `rng.draw`."""
        return draw(len(self.attacked), trials, seed)

    def gallery_ids(self, positions: Tensor) -> Tensor | None:
        """The gallery positions of attacked images; None where these are no items of the gallery."""
        return positions if self.dataset.queries is None else None


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
    queries: str | None = None


DEFAULTS = SystemOptions()


def open_system(
    model: str, data: str | None, options: SystemOptions = DEFAULTS, *, stage: Stage = no_display
) -> RetrievalSystem:
    """Load a model and the test split of a data set, and embed it; the arguments are those of `load_task`."""
    return load_task(model, data, options, stage=stage).embedded(stage)


def load_task(
    model: str, data: str | None, options: SystemOptions = DEFAULTS, *, stage: Stage = no_display
) -> LoadedTask:
    """Load a model and the test split of a data set.

    Args:
        model: a name for `open_encoder`: a folder with a checkpoint, "zoo:" and a name, and so on.
        data: as for `rankproof.load`; None is the embedded digits.
        options: how they are opened.
        stage: given a name, opens a display of progress for one stage of the work.
    """
    size, preprocess = options.size, options.preprocess
    place = find_device(options.device)
    source = open_encoder(model, trust=options.trust, device=place)
    try:
        distance = distance_by_name(source.distance)
    except ValueError as error:
        raise RankproofError(f"{model}: {error}") from None
    reshaped = preprocess is not None and (preprocess.resize or preprocess.crop)
    native = None if size is not None or reshaped or source.input is None else source.input[1:]
    wanted = size if native is None else native
    with stage("reading images") as tell:
        dataset = load(
            data,
            "test",
            size=wanted,
            split_by=as_split_by(options.split_by),
            root=options.root,
            progress=tell,
        )
    if native is not None:
        dataset = replace(dataset, note=dataset.note.replace(" as asked", f", the size of {model}"))
    if options.queries is not None:
        kept = KEEP if size == KEEP else None
        with stage("reading queries") as tell:
            queries = load_queries(options.queries, dataset, size=kept, root=options.root, progress=tell)
        dataset = replace(dataset, queries=queries)
    chain, notes, form = (_upload_chain if size == KEEP else _chain)(dataset, source, preprocess)
    if options.queries is not None and dataset.queries is not None:
        notes = (*notes, f"queries: {dataset.queries.note}")
    if dataset.queries is not None:
        notes = (*notes, QUERIES_ATTACKED)
    dataset = replace(dataset, note="; ".join((dataset.note, *notes)))
    ranker = Ranker(
        source.encoder,
        distance,
        mean=source.mean,
        std=source.std,
        preprocess=chain,
        name=model,
        chunk=options.embed_batch or min(_chunk(loaded, form) for loaded in _loaded(dataset, form)),
        draws=options.draws,
    )
    return LoadedTask(source=source, ranker=ranker, dataset=dataset, notes=notes)


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


def _chain(
    dataset: Dataset | MixedDataset, source: Source, preprocess: Preprocess | None
) -> tuple[nn.Module | None, tuple[str, ...], tuple[int, int, int]]:
    """What images pass before the encoder, what to tell about it, and the form (c, h, w) they come out in.

    Raises:
        RankproofError: the encoder was made for images of another form than comes out.
    """
    channels, height, width = (int(side) for side in dataset.images[0].shape)
    steps: list[nn.Module] = []
    notes: list[str] = []
    if preprocess is not None:
        height, width = preprocess.sides(height, width)
        steps.append(preprocess)
        notes.append(f"every image passes {preprocess.extra_repr()} before the encoder")
    if channels == 1 and source.channels == COLOUR:
        channels = COLOUR
        steps.append(GreyToColour())
        notes.append("grey images are given to the encoder in three equal channels")
    if source.input is not None and source.input != (channels, height, width):
        shape, expected = ("x".join(map(str, form)) for form in ((channels, height, width), source.input))
        option = "--size" if preprocess is None else "--resize"
        fits = source.input[0] == channels
        hint = f"try {option} {source.input[-1]}" if fits else "choose other data or another model"
        raise RankproofError(f"{source.name}: wants images of {expected}, {dataset.name} has {shape}; {hint}")
    return (nn.Sequential(*steps) if steps else None), tuple(notes), (channels, height, width)


def _upload_chain(
    dataset: Dataset | MixedDataset, source: Source, preprocess: Preprocess | None
) -> tuple[nn.Module | None, tuple[str, ...], tuple[int, int, int]]:
    """What uploads of any size pass before the encoder, and what `_chain` says beside it.

    The form that comes out is the largest. Resizing is what was asked for, else what the encoder's own
    processor does, else stretching to its input.

    Raises:
        RankproofError: the encoder was made for images of another form than comes out.
    """
    shapes = _shapes(dataset)
    steps: list[nn.Module] = []
    notes: list[str] = [_sizes_note(dataset)] if isinstance(dataset, MixedDataset) else []
    if preprocess is not None:
        steps.append(preprocess)
        notes.append(f"every image passes {preprocess.extra_repr()} before the encoder")
    if preprocess is None or not (preprocess.resize or preprocess.crop):
        if source.preprocess is not None:
            steps.append(source.preprocess)
            what = " ".join(str(source.preprocess).split())
            notes.append(f"every image is attacked at its own size, and passes the encoder's own {what}")
        elif source.input is not None:
            height, width = source.input[1:]
            steps.append(Preprocess(resize=(height, width)))
            notes.append(
                f"every image is attacked at its own size, and stretched to {height}x{width} (bilinear) "
                f"before the encoder, as what its own processor does is not known"
            )
        else:
            notes.append("every image reaches the encoder at its own size")
    if shapes[0][0] == 1 and source.channels == COLOUR:
        steps.append(GreyToColour())
        notes.append("grey images are given to the encoder in three equal channels")
    chain = nn.Sequential(*steps)
    forms = [_form_after(chain, shape) for shape in shapes]
    for shape, form in zip(shapes, forms, strict=True):
        if source.input is not None and form != source.input:
            loaded, reached, expected = ("x".join(map(str, each)) for each in (shape, form, source.input))
            hint = f"try --resize {min(source.input[1:])} --crop {min(source.input[1:])}"
            hint = hint if form[0] == source.input[0] else "choose other data or another model"
            raise RankproofError(
                f"{source.name}: wants images of {expected}, those of {loaded} come out as {reached}; {hint}"
            )
    return (chain if steps else None), tuple(notes), max(forms, key=lambda form: form[1] * form[2])


def _shapes(dataset: Dataset | MixedDataset) -> list[tuple[int, int, int]]:
    """The different forms (c, h, w) of the images of a data set and its queries, the smallest first."""
    parts = [dataset] if dataset.queries is None else [dataset, dataset.queries]
    found: set[tuple[int, int, int]] = set()
    for part in parts:
        images = part.images
        found |= set(images.shapes if isinstance(images, MixedImages) else MixedImages([images[0]]).shapes)
    return sorted(found, key=lambda shape: (shape[1] * shape[2], shape))


def _loaded(dataset: Dataset | MixedDataset, form: tuple[int, int, int]) -> Iterator[tuple[int, int, int]]:
    """The forms of images that pass by the ranker's chunk; those of several sizes limit theirs."""
    for part in (dataset, dataset.queries):
        if isinstance(part, Dataset):
            yield from MixedImages([part.images[0]]).shapes
    yield form


def _sizes_note(dataset: MixedDataset) -> str:
    sizes = len(set(dataset.images.shapes))
    return f"a batch holds images of one size, and these have {sizes}: this is slower than images of one size"


def _form_after(chain: nn.Module, shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """The form (c, h, w) in which images of a form come out of a chain: found by trying."""
    with torch.no_grad():
        channels, height, width = chain(torch.zeros(1, *shape)).shape[1:]
    return int(channels), int(height), int(width)


def _chunk(loaded: tuple[int, ...], reached: tuple[int, int, int]) -> int:
    """Images in one pass, by the form (c, h, w) in which they reach the encoder.

    What it remembers grows with that form. Images loaded larger count as they are loaded: attacks move
    them, and keep their gradients, before they are made smaller.
    """
    channels, height, width = loaded
    return min(pass_size(*reached), pass_size(channels, height, width))
