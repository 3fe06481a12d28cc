"""A model and its data, opened and embedded: what an attack or an audit is run on."""

from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from rankproof.cache import Entry, GalleryCache
from rankproof.data import Dataset, MixedDataset, load, load_queries
from rankproof.data.groceries import GROCERIES
from rankproof.data.image_list import KEEP
from rankproof.data.load import DIGITS
from rankproof.errors import RankproofError
from rankproof.io import JsonObject
from rankproof.models import Source, open_encoder
from rankproof.models.open import USER_CODE
from rankproof.models.statistics import with_statistics
from rankproof.ranking import Gallery, Ranker
from rankproof.ranking.distances import distance_by_name
from rankproof.ranking.separate_queries import SeparateQueries
from rankproof.rng import draw
from rankproof.system.input_chain import input_chain, pass_images, statistics_notes, stretched_note
from rankproof.system.options import DEFAULTS, Stage, SystemOptions, as_split_by, find_device, no_display

QUERIES_ATTACKED = "attacks start from its queries, and their ranks count all gallery images"


@dataclass(frozen=True, kw_only=True)
class LoadedTask:
    """A model and the test split it is to rank, with nothing embedded yet.

    Args:
        source: the encoder as it was opened.
        ranker: the same with its distance and all that happens to images before it.
        dataset: the images.
        notes: what happens to the images on their way to the encoder.
        cache: where embeddings are kept between commands; None keeps nothing.
    """

    source: Source
    ranker: Ranker
    dataset: Dataset | MixedDataset
    notes: tuple[str, ...]
    cache: GalleryCache | None = None

    def embedded(self, stage: Stage = no_display) -> "RetrievalSystem":
        """The task with its gallery."""
        return RetrievalSystem(
            gallery=self._gallery(stage),
            dataset=self.dataset,
            record=self.source.record,
            notes=self.notes,
            queries=self._embedded_queries(stage),
        )

    def _gallery(self, stage: Stage) -> Gallery:
        """The gallery, embedded unless its embeddings are kept."""
        images, labels = self.dataset.images, self.dataset.labels
        entry = self.entry(self.dataset, stage)
        if entry is not None and (z := entry.read()) is not None:
            return Gallery(self.ranker, z, labels, images)
        with stage("examining the encoder") as tell:
            self.ranker.begin(images, progress=tell)
        with stage("embedding the gallery") as tell:
            gallery = Gallery.build(self.ranker, images, labels, tell)
        if entry is not None:
            entry.write(gallery.embeddings)
        return gallery

    def entry(self, dataset: Dataset | MixedDataset, stage: Stage = no_display) -> Entry | None:
        """Where the embeddings of some images are kept; None if nothing is kept."""
        if self.cache is None:
            return None
        with stage("looking for kept embeddings"):
            files = [Path(own[1])] if (own := USER_CODE.fullmatch(self.source.name)) else []
            return self.cache.entry(self.ranker, dataset.images, data=dataset.name, files=files)

    def _embedded_queries(self, stage: Stage) -> SeparateQueries | None:
        """The queries that the data set has beside its gallery, if any."""
        queries = self.dataset.queries
        if queries is None:
            return None
        entry = self.entry(queries, stage)
        z = None if entry is None else entry.read()
        if z is None:
            with stage("embedding the queries") as tell:
                z = self.ranker.embed_all(queries.images, tell)
            if entry is not None:
                entry.write(z)
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
        data: as for `rankproof.load`; None is the embedded groceries, or the digits for an encoder of grey
            images.
        options: how they are opened.
        stage: given a name, opens a display of progress for one stage of the work.
    """
    size, preprocess = options.size, options.preprocess
    place = find_device(options.device)
    source = open_encoder(
        model, weights=options.weights, output=options.output, trust=options.trust, device=place
    )
    source = with_statistics(source, options.mean, options.std, bgr=options.bgr)
    try:
        distance = distance_by_name(source.distance)
    except ValueError as error:
        raise RankproofError(f"{model}: {error}") from None
    reshaped = preprocess is not None and (preprocess.resize or preprocess.crop)
    native = None if size is not None or reshaped or source.input is None else source.input[1:]
    wanted = size if native is None else native
    with stage("reading images") as tell:
        dataset = load(
            (DIGITS if source.channels == 1 else GROCERIES) if data is None else data,
            "test",
            size=wanted,
            split_by=as_split_by(options.split_by),
            root=options.root,
            progress=tell,
            kept=None if options.cache is None else options.cache.pixels,
        )
    if options.queries is not None:
        dataset = _with_queries(dataset, options, stage)
    stretched = stretched_note(source, native, dataset)
    if native is not None:
        dataset = replace(dataset, note=dataset.note.replace(" as asked", f", the size of {model}"))
    chain = input_chain(dataset, source, preprocess, keep=size == KEEP, bgr=options.bgr)
    notes = (*source.notes, *stretched, *chain.notes, *statistics_notes(source, options))
    if dataset.queries is not None:
        asked = () if options.queries is None else (f"queries: {dataset.queries.note}",)
        notes = (*notes, *asked, QUERIES_ATTACKED)
    dataset = replace(dataset, note="; ".join((dataset.note, *notes)))
    ranker = Ranker(
        source.encoder,
        distance,
        mean=source.mean,
        std=source.std,
        preprocess=chain.module,
        name=model,
        chunk=options.embed_batch or pass_images(dataset, chain.form),
        draws=options.draws,
    )
    return LoadedTask(source=source, ranker=ranker, dataset=dataset, notes=notes, cache=options.cache)


def without_attacks(task: LoadedTask) -> LoadedTask:
    """The task for what does not attack its queries: without the remark that says so."""
    note = task.dataset.note.removesuffix(f"; {QUERIES_ATTACKED}")
    notes = tuple(note for note in task.notes if note != QUERIES_ATTACKED)
    return replace(task, dataset=replace(task.dataset, note=note), notes=notes)


def _with_queries(
    dataset: Dataset | MixedDataset, options: SystemOptions, stage: Stage
) -> Dataset | MixedDataset:
    """The data set with the queries that were asked for."""
    size = KEEP if options.size == KEEP else None
    with stage("reading queries") as tell:
        try:
            queries = load_queries(str(options.queries), dataset, size=size, root=options.root, progress=tell)
        except RankproofError as error:
            raise RankproofError(f"--queries {error}") from None
    return replace(dataset, queries=queries)
