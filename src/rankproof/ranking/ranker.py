"""A ranker: an encoder, the pixel statistics it expects and the distance its embeddings are compared by."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from copy import copy
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from rankproof.errors import NotFiniteError, RankproofError
from rankproof.parameters import AT_LEAST_ONE, check_integer
from rankproof.ranking.distances import Distance, distance_by_name
from rankproof.ranking.encoder_function import EncoderFunction
from rankproof.ranking.encoder_rng import EncoderRng
from rankproof.ranking.examination import (
    DRAWS,
    IMAGES,
    TF32,
    Examination,
    Examined,
    batch_message,
    examine,
    gradient_of,
    graph_difference,
    sample_of,
)
from rankproof.ranking.inference_graph import InferenceGraph, inference_graph
from rankproof.ranking.mixed_images import MixedImages
from rankproof.types import ProgressCallback, no_progress

CHUNK = 500  # images in one pass; about the fastest on a CPU and small enough for any GPU
PASS_VALUES = 2_500_000  # pixel values in one pass: more, and what a deep encoder remembers fills the memory

SINGLE = (torch.float32, torch.float64)  # precisions that pixels are kept in and embeddings compared in
WEIGHTS = (*SINGLE, torch.float16, torch.bfloat16)  # floating types an encoder computes in
MOST_MEAN, MOST_STD = 1.0, 10.0  # of pixels in [0, 1]; what is larger was meant for 0 .. 255
CUT = "no_grad, inference_mode or detach inside?"
SAID = 200  # characters of the encoder's own words in a message


def pass_size(channels: int, height: int, width: int) -> int:
    """How many images of that form go through an encoder in one pass: at least 1 and at most `CHUNK`."""
    return max(1, min(CHUNK, PASS_VALUES // (channels * height * width)))


class Ranker:
    """Any torch module or function as an image ranker; eval mode and gradient policy live here alone.

    Pixels and embeddings are in single precision, or in double where the encoder's weights are; an encoder in
    half precision gets pixels in its own, after mean and std.

    Args:
        encoder: a module or function that maps (b, c, h, w) to (b, d) embeddings.
        distance: "cosine", "euclidean" or a `Distance`.
        mean, std: one value per channel, subtracted and divided inside the ranker, so that attacks
            live in [0, 1]; leave out when the encoder wants plain [0, 1] pixels. Divide statistics of
            pixels in 0 .. 255 by 255; undivided ones are an error.
        preprocess: what is done to pixels in [0, 1] before mean and std, such as `rankproof.Preprocess`: part
            of what is attacked. It has neither modes nor parameters.
        name: how reports call it.
        chunk: images embedded in one pass; with 1 every image passes alone, in attacks, too.
        draws: passes of which an embedding is the mean; None is 8 for an encoder that `examine` finds to be
            random, and 1 for any other.
    """

    def __init__(
        self,
        encoder: nn.Module | Callable[[Tensor], Tensor],
        distance: str | Distance = "cosine",
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        preprocess: Callable[[Tensor], Tensor] | None = None,
        name: str = "encoder",
        chunk: int = CHUNK,
        draws: int | None = None,
    ) -> None:
        for option, value in (("chunk", chunk), ("draws", draws)):
            if value is not None:
                check_integer(option, value, AT_LEAST_ONE)
        self.encoder = encoder if isinstance(encoder, nn.Module) else EncoderFunction(encoder)
        self.distance = distance_by_name(distance) if isinstance(distance, str) else distance
        self.preprocess = preprocess
        self.name = name
        self.chunk = chunk
        self.device = _device_of(self.encoder)
        self._weights = next(iter(_types_of(self.encoder)), torch.float32)
        self.dtype = self._weights if self._weights in SINGLE else torch.float32
        self.examination: Examination | None = None
        self._draws = draws
        self._rng = EncoderRng(self.device)
        self._graph: InferenceGraph | None = None
        self._layout = torch.preserve_format  # of the pixels that reach the encoder
        self._mean = self._per_channel("mean", mean, MOST_MEAN)
        self._std = self._per_channel("std", std, MOST_STD)
        if self._std is not None and not bool((self._std > 0).all()):
            raise RankproofError("std: every channel's value must be above 0")

    def _per_channel(self, name: str, values: Sequence[float] | None, most: float) -> Tensor | None:
        """A statistic of pixels as (1, c, 1, 1); one of pixels in 0 .. 255 would make all images alike."""
        if values is None:
            return None
        plain: Any = values  # a tensor will do
        try:
            given = np.ravel(plain.tolist() if isinstance(plain, Tensor) else plain).astype(np.float64)
        except (TypeError, ValueError):
            given = np.empty(0)
        if not given.size or not np.isfinite(given).all():
            raise RankproofError(f"{name}: expected one number for each channel, got {values!r:.60}")
        if given.max() > most:
            raise RankproofError(
                f"{name}: got {given.max():g}, but pixels are in [0, 1] here; divide mean and std by 255"
            )
        return torch.tensor(given, device=self.device, dtype=self.dtype).view(1, -1, 1, 1)

    @property
    def draws(self) -> int:
        """Passes of which an embedding is the mean."""
        return self._draws or (DRAWS if self.random else 1)

    @property
    def random(self) -> bool:
        """Whether an image has many embeddings, as far as the examination found."""
        return self.examination is not None and self.examination.kind == "random"

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of a figure should know of an encoder that is no function of its image."""
        if not self.random:
            return ()
        mean = f"its mean over {self.draws} draws" if self.draws > 1 else "one draw"
        return (
            f"the encoder is random: it was attacked and ranked by {mean}, and `unchanged` is the figure of "
            f"untouched images under new random numbers",
        )

    @property
    def parts(self) -> tuple[object, ...]:
        """What makes an embedding out of an image, wherever it runs."""
        return (self.encoder, self.preprocess, self._mean, self._std, self.distance)

    @property
    def embedded_from(self) -> tuple[object, ...]:
        """All that an embedding depends on beside its image, for whoever keeps embeddings."""
        return (*self.parts, self.chunk, self._draws, self.dtype, self.device.type)

    def begin(
        self,
        images: Tensor | MixedImages,
        seed: int = 0,
        progress: ProgressCallback = no_progress,
        known: Examination | None = None,
    ) -> Examination:
        """Examine the encoder unless it was, and start its random numbers from a seed.

        Args:
            images: (n, c, h, w) floats in [0, 1], or 8-bit values; the encoder is examined on a few of them.
                Of images of several sizes these few are stretched to one.
            progress: called with steps done and steps in all.
            known: what an examination of the same encoder on the same images found.
        Raises:
            RankproofError: an embedding depends on the other images of its batch, or is none.
        """
        if self.examination is None:
            if known is not None:
                self._weights = getattr(torch, known.dtype)
            few = images.sample(IMAGES) if isinstance(images, MixedImages) else images
            sample = self.as_input(sample_of(few))
            found = self._examined(sample.clone(), progress) if known is None else self._taken(known, sample)
            self.examination = self._with_graph(replace(found, graph=None, folded=0), sample)
        self._rng.begin(seed)
        return self.examination

    def _taken(self, known: Examination, images: Tensor) -> Examination:
        """An examination taken over, but for the gradient, of which equal embeddings say nothing."""
        self.examination = known
        try:
            with self.frozen():
                return replace(known, gradient=gradient_of(self._draw, images[:1]))
        finally:
            self.examination = None

    def for_search(self) -> "Ranker":
        """The ranker by which an attack looks for better images.

        It is one on the encoder's inference graph (`rankproof.ranking.inference_graph`) where `begin` found
        that its embeddings are the same up to rounding, and this ranker otherwise or where the weights were
        changed since. Figures are always taken from the encoder as it is given.
        """
        if self._graph is None or not self._graph.weights.hold(self.encoder):
            return self
        return self._on(self._graph)

    def graph_holds(self, *images: Tensor | MixedImages) -> bool:
        """Whether the inference graph, if there is one, embeds a few of these images as the encoder does.

        `for_search` sees changed weights; this sees all else that may have changed since `begin`, such as an
        attribute or a hook, and encoders that do something else for some images. Where they differ, the graph
        is given up and the examination says so.
        """
        if self._graph is None:
            return True
        parts = (each.sample(IMAGES) if isinstance(each, MixedImages) else each for each in images)
        sample = torch.cat([self.as_input(sample_of(part)) for part in parts])
        difference = self._difference(self._graph, sample)
        if difference is None:
            self._graph = None
            if self.examination is not None:
                self.examination = replace(self.examination, graph=None, folded=0)
        return difference is not None

    def _difference(self, graph: InferenceGraph, images: Tensor) -> float | None:
        """How far a graph embeds images from where the encoder does; see `graph_difference`."""
        with self.frozen(), torch.no_grad():
            passes = (self._draw, self._on(graph)._draw)
            return graph_difference(*passes, lambda z: self.distance.prepare(z.double()), images)

    def _on(self, graph: InferenceGraph) -> "Ranker":
        """This ranker with the encoder's inference graph in its place."""
        ranker = copy(self)
        ranker.encoder, ranker._graph, ranker._layout = graph.encoder, None, torch.channels_last
        return ranker

    def _with_graph(self, found: Examination, images: Tensor) -> Examination:
        """Look for the inference graph of an encoder that is a function of its image, and try it on a few."""
        if found.kind != "function" or found.draws_numbers or found.changes_state or found.draws > 1:
            return found
        with self.frozen(), torch.no_grad():
            graph = inference_graph(self.encoder, lambda: self._pass(images[: min(2, self.chunk)].clone()))
        if graph is None or (difference := self._difference(graph, images)) is None:
            return found
        self._graph = graph
        return replace(found, folded=graph.folded, graph=difference)

    def forget(self) -> None:
        """Examine the encoder again when it is needed next."""
        self.examination, self._graph = None, None
        self._weights = next(iter(_types_of(self.encoder)), torch.float32)

    def _examined(self, images: Tensor, progress: ProgressCallback) -> Examination:
        """The examination of the encoder on a few images, which may be overwritten."""
        with self.frozen(), torch.no_grad():
            self.examination = self._habits(images[: min(2, self.chunk)])  # followed from here on
            try:
                eps = max(torch.finfo(self._weights).eps, TF32 if self.device.type == "cuda" else 0.0)
                found = examine(
                    Examined(
                        encode=lambda part: self.checked(self._draw(part), len(part)),
                        prepare=lambda z: self.distance.prepare(z.double()),
                        rng=self._rng,
                        chunk=self.chunk,
                        eps=eps,
                        draws_numbers=self.examination.draws_numbers,
                    ),
                    images,
                    progress,
                )
                if found.kind == "batch":
                    raise RankproofError(f"{self.name}: {batch_message(found)}")
                gradient = gradient_of(self._draw, images[:1])
                progress(1, 1)
            finally:
                habits, self.examination = self.examination, None
        return replace(
            found,
            draws=self._draws or (DRAWS if found.kind == "random" else 1),
            gradient=gradient,
            dtype=str(self._weights).removeprefix("torch."),
            draws_numbers=habits.draws_numbers,
            changes_input=habits.changes_input,
            shares_output=habits.shares_output,
            changes_state=habits.changes_state,
            implementation=_implementation(self.encoder),
        )

    def _habits(self, images: Tensor) -> Examination:
        """What the encoder does beside embedding: an examination without its kind."""
        negative = 1 - images[:1]  # of black images, which multiplying in place leaves alone
        given, other = images.clone(), negative.clone()
        default = torch.get_default_dtype()
        self._rng.begin(0)
        with self._rng.in_place(), self._copied_buffers() as changed:
            z = self.checked(self._first_pass(given), len(given))
            kept = z.clone()
            with suppress(RankproofError):  # of an encoder that takes no image alone, which is found later
                self._pass(other)
            changes_state = changed()
        if torch.get_default_dtype() != default:
            torch.set_default_dtype(default)
            raise RankproofError(
                f"{self.name}: the encoder changes torch's default type; take that out of it"
            )
        return Examination(
            draws_numbers=self._rng.drawn,
            changes_input=not (torch.equal(given, images) and torch.equal(other, negative)),
            shares_output=not torch.equal(kept, z),
            changes_state=changes_state,
        )

    def _first_pass(self, images: Tensor) -> Any:
        """A pass that settles the type of the pixels: that of the first weights, or of others if it fails."""
        first, others = self._weights, _types_of(self.encoder)
        for weights in dict.fromkeys((first, *others)):
            self._weights = weights
            try:
                return self._pass(images)
            except RankproofError as error:
                failure = error
        self._weights = first
        raise failure

    def check_gradient(self) -> None:
        """Raise where the encoder was found to give no gradient, which a white box needs.

        Raises:
            RankproofError: no gradient flows from an embedding to the pixels.
        """
        if self.examination is not None and self.examination.gradient == "none":
            raise RankproofError(
                f"{self.name}: no gradient flows through the encoder "
                f"({self.examination.implementation or CUT}), and a white box needs it; attack it as a black "
                f"box: --goal oa --visible 50, in Python LocalOracle(gallery, visible=50)"
            )

    def embed(self, images: Tensor) -> Tensor:
        """Embeddings of a batch in one pass; the gradient flows to the images.

        Args:
            images: (b, c, h, w) in [0, 1].
        Returns:
            (b, d) embeddings as the encoder returns them.
        Raises:
            RankproofError: the encoder does not take such images, or returns something that is no finite
                (b, d) embedding.
        """
        return self.checked(self.encode(images), len(images))

    def checked(self, z: Any, count: int) -> Tensor:
        """What an encoder gave for `count` images, if it is one finite embedding (b, d) for each.

        Raises:
            RankproofError: it is not.
        """
        if isinstance(z, Tensor) and z.is_meta:
            raise RankproofError(f"{self.name}: the encoder is on the meta device; load its weights first")
        if not isinstance(z, Tensor) or z.dim() != 2 or len(z) != count or z.shape[1] == 0:
            shape = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
            raise RankproofError(
                f"{self.name}: the encoder must return (batch, dimensions) embeddings, it returned {shape}"
            )
        if not z.is_floating_point() or z.layout != torch.strided:
            kind = str(z.dtype if z.layout == torch.strided else z.layout).removeprefix("torch.")
            raise RankproofError(
                f"{self.name}: the encoder must return dense embeddings of floating numbers, not of {kind}"
            )
        if not bool(torch.isfinite(z).all()):
            raise NotFiniteError(
                f"{self.name}: the encoder returns NaN or infinite embeddings; check its weights"
            )
        return z

    def embed_prepared(self, images: Tensor) -> Tensor:
        """`embed`, prepared for the distance: what losses compare."""
        return self.distance.prepare(self.embed(images))

    def encode(self, images: Tensor) -> Any:
        """What the encoder gives for images (b, c, h, w) in [0, 1]; not prepared.

        It is what the encoder returns where that is one pass; means of several draws, and passes of one image
        each, are checked.
        """
        if self.draws == 1:
            return self._draw(images)
        drawn = [self.checked(self._draw(images), len(images)) for _ in range(self.draws)]
        return torch.stack(drawn).mean(0)

    def _draw(self, images: Tensor) -> Any:
        """Embeddings in one draw, by passes of one image each where `chunk` is 1."""
        known = self.examination
        with self._rng.in_place() if known is not None and known.draws_numbers else nullcontext():
            if self.chunk > 1 or len(images) < 2:
                return self._pass(images)
            return torch.cat([self.checked(self._pass(image), 1) for image in images.split(1)])

    def _pass(self, images: Tensor) -> Any:
        """One pass through the encoder, which gets pixels in its own precision; see `encode`."""
        known = self.examination
        pixels = images if known is None or not known.changes_input else images.clone()
        pixels = pixels if self.preprocess is None else self.preprocess(pixels)
        for statistic in (self._mean, self._std):
            if statistic is not None and statistic.shape[1] not in (1, pixels.shape[1]):
                raise RankproofError(
                    f"{self.name}: mean and std are for {statistic.shape[1]} channels, the images have "
                    f"{pixels.shape[1]}; give images that the encoder was made for"
                )
        pixels = pixels if self._mean is None else pixels - self._mean
        pixels = pixels if self._std is None else pixels / self._std
        pixels = pixels if self._weights == self.dtype else pixels.to(self._weights)
        if self._layout == torch.channels_last and pixels.dim() == 4:
            pixels = pixels.contiguous(memory_format=self._layout)
        copied = self._copied_buffers() if known is not None and known.changes_state else nullcontext()
        try:
            # An encoder may switch gradients off for good; the mode is put back.
            with torch.set_grad_enabled(torch.is_grad_enabled()), copied:
                z = self.encoder(pixels)
        except (torch.OutOfMemoryError, MemoryError, RankproofError):
            raise
        except Exception as error:  # an encoder may be no more careful than a function in a notebook
            raise RankproofError(
                f"{self.name}: the encoder fails on images of (b, c, h, w) = {tuple(pixels.shape)}; is that "
                f"the form it was made for? It says: {' '.join(str(error).split())[:SAID]}"
            ) from error
        if not isinstance(z, Tensor):
            return z
        z = z.float() if z.is_floating_point() and z.dtype not in SINGLE else z
        return z.clone() if known is not None and known.shares_output else z

    @contextmanager
    def _copied_buffers(self) -> Iterator[Callable[[], bool]]:
        """Give the encoder copies of its buffers, and put its own back.

        Yields:
            whether the copies were changed since.
        """
        buffers = [
            (module, name, buffer)
            for module in self.encoder.modules()
            for name, buffer in module.named_buffers(recurse=False)
            if not is_lazy(buffer)
        ]
        for module, name, buffer in buffers:
            setattr(module, name, buffer.clone())  # a backward pass may need what the pass left in it
        try:
            yield lambda: not all(_equal(getattr(module, name), own) for module, name, own in buffers)
        finally:
            for module, name, buffer in buffers:
                setattr(module, name, buffer)

    def embed_all(self, images: Tensor | MixedImages, progress: ProgressCallback = no_progress) -> Tensor:
        """Embeddings of many images in passes of `chunk`, without gradients.

        Args:
            images: (n, c, h, w) floats in [0, 1], or 8-bit values; images of several sizes pass one size at
                a time, in smaller numbers where they are large.
            progress: called with images done and images in all.
        Returns:
            (n, d) embeddings on the encoder's device.
        """
        if isinstance(images, MixedImages):
            return self._embed_mixed(images, progress)
        # Not inference_mode: what an encoder keeps of a pass, as position codes, must serve a gradient later.
        with self.frozen(), torch.no_grad():
            parts: list[Tensor] = []
            for start in range(0, max(1, len(images)), self.chunk):
                part = images[start : start + self.chunk]
                parts.append(self.embed(self.as_input(part)))
                progress(start + len(part), len(images))
        return torch.cat(parts).clone()

    def _embed_mixed(self, images: MixedImages, progress: ProgressCallback) -> Tensor:
        rows: list[Tensor] = []
        parts: list[Tensor] = []
        for places, part in images.groups(PASS_VALUES):
            with self.passes_of(pass_size(*part.shape[1:])):
                parts.append(self.embed_all(part))
            if parts[-1].shape[1] != parts[0].shape[1]:
                first, other = (
                    "x".join(map(str, images[int(row[0])].shape[1:])) for row in (rows[0], places)
                )
                raise RankproofError(
                    f"{self.name}: embeddings have {parts[0].shape[1]} dimensions for images of {first} and "
                    f"{parts[-1].shape[1]} for {other}: this encoder does not pool; give images one size"
                )
            rows.append(places)
            progress(sum(map(len, rows)), len(images))
        return torch.cat(parts)[torch.cat(rows).argsort().to(self.device)]

    @contextmanager
    def passes_of(self, count: int) -> Iterator[None]:
        """At most so many images in a pass while this is open, as large images need."""
        before, self.chunk = self.chunk, min(self.chunk, count)
        try:
            yield
        finally:
            self.chunk = before

    def as_input(self, images: Tensor) -> Tensor:
        """Floats in [0, 1] or 8-bit values, as the encoder's own precision and device want them."""
        if images.dtype == torch.uint8:
            return images.to(self.device).to(self.dtype) / 255
        return images.to(device=self.device, dtype=self.dtype)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Eval mode and parameters without gradients, put back as they were on leaving."""
        # A frozen TorchScript module has no mode at all.
        modes = [(part, part.training) for part in self.encoder.modules() if hasattr(part, "training")]
        learning = [(parameter, parameter.requires_grad) for parameter in self.encoder.parameters()]
        try:
            self.encoder.eval()
        except NotImplementedError:  # a program of torch.export, whose mode is fixed, somewhere inside
            for module, _ in modes:
                module.training = False
        for parameter, _ in learning:
            parameter.requires_grad = False
        try:
            yield
        finally:
            for parameter, learns in learning:
                parameter.requires_grad = learns
            for module, mode in modes:
                module.training = mode


def _types_of(encoder: nn.Module) -> list[torch.dtype]:
    """The floating types an encoder can compute in, in the order of its parameters and buffers."""
    values = chain(encoder.parameters(), encoder.buffers())
    return list(dict.fromkeys(value.dtype for value in values if value.dtype in WEIGHTS))


def _implementation(encoder: nn.Module) -> str | None:
    """What an encoder, or the first part of it that does, says of how it is computed."""
    said = (getattr(module, "implementation", None) for module in encoder.modules())
    return next((each for each in said if isinstance(each, str)), None)


def _equal(buffer: Any, before: Tensor) -> bool:
    """Whether a buffer is still as it was, NaN included."""
    try:
        if not isinstance(buffer, Tensor) or buffer.shape != before.shape:
            return False
        if not before.is_floating_point():
            return torch.equal(buffer, before)
        return torch.equal(buffer.nan_to_num(), before.nan_to_num())
    except (RuntimeError, NotImplementedError):  # sparse, nested, of 8-bit floats: nothing compares them
        return False


def _device_of(encoder: nn.Module) -> torch.device:
    values = chain(encoder.parameters(), encoder.buffers())
    return next((value.device for value in values), torch.device("cpu"))
