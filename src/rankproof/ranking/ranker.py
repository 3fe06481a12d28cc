"""A ranker: an encoder, the pixel statistics it expects and the distance its embeddings are compared by."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rankproof.errors import NotFiniteError, RankproofError
from rankproof.ranking.distances import Distance, distance_by_name
from rankproof.types import ProgressCallback, no_progress

CHUNK = 500  # images in one pass; about the fastest on a CPU and small enough for any GPU
PASS_VALUES = 2_500_000  # pixel values in one pass: more, and what a deep encoder remembers fills the memory

FAILURES = (RuntimeError, ValueError, TypeError, IndexError, AssertionError)  # of images that do not fit
SAID = 200  # characters of the encoder's own words in a message


def pass_size(channels: int, height: int, width: int) -> int:
    """How many images of that form go through an encoder in one pass: at least 1 and at most `CHUNK`."""
    return max(1, min(CHUNK, PASS_VALUES // (channels * height * width)))


class Ranker:
    """Any torch module as an image ranker; eval mode and gradient policy live here and nowhere else.

    Args:
        encoder: a module that maps (b, c, h, w) to (b, d) embeddings.
        distance: "cosine", "euclidean" or a `Distance`.
        mean, std: one value per channel, subtracted and divided inside the ranker, so that attacks
            live in [0, 1]; leave out when the encoder wants plain [0, 1] pixels.
        preprocess: what is done to pixels in [0, 1] before mean and std, such as `rankproof.Preprocess`: part
            of what is attacked. It has neither modes nor parameters.
        name: how reports call it.
        chunk: images embedded in one pass.
    """

    def __init__(
        self,
        encoder: nn.Module,
        distance: str | Distance = "cosine",
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        preprocess: Callable[[Tensor], Tensor] | None = None,
        name: str = "encoder",
        chunk: int = CHUNK,
    ) -> None:
        self.encoder = encoder
        self.distance = distance_by_name(distance) if isinstance(distance, str) else distance
        self.preprocess = preprocess
        self.name = name
        self.chunk = chunk
        reference = next(iter(encoder.parameters()), torch.empty(0))
        self.device, self.dtype = reference.device, reference.dtype
        self._mean = self._per_channel(mean)
        self._std = self._per_channel(std)
        if self._std is not None and not bool((self._std > 0).all()):
            raise RankproofError("std: every channel's value must be above 0")

    def _per_channel(self, values: Sequence[float] | None) -> Tensor | None:
        if values is None:
            return None
        return torch.tensor(list(values), device=self.device, dtype=self.dtype).view(1, -1, 1, 1)

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
        z = self.encode(images)
        if not isinstance(z, Tensor) or z.dim() != 2 or len(z) != len(images):
            shape = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
            raise RankproofError(
                f"{self.name}: the encoder must return (batch, dimensions) embeddings, it returned {shape}"
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
        """What the encoder gives for images (b, c, h, w) in [0, 1]; not checked and not prepared."""
        pixels = images if self.preprocess is None else self.preprocess(images)
        for statistic in (self._mean, self._std):
            if statistic is not None and statistic.shape[1] not in (1, pixels.shape[1]):
                raise RankproofError(
                    f"{self.name}: mean and std are for {statistic.shape[1]} channels, the images have "
                    f"{pixels.shape[1]}; give images that the encoder was made for"
                )
        pixels = pixels if self._mean is None else pixels - self._mean
        pixels = pixels if self._std is None else pixels / self._std
        try:
            return self.encoder(pixels)
        except (torch.OutOfMemoryError, RankproofError):
            raise
        except FAILURES as error:
            raise RankproofError(
                f"{self.name}: the encoder fails on images of (b, c, h, w) = {tuple(pixels.shape)}; is that "
                f"the form it was made for? It says: {' '.join(str(error).split())[:SAID]}"
            ) from error

    def embed_all(self, images: Tensor, progress: ProgressCallback = no_progress) -> Tensor:
        """Embeddings of many images in passes of `chunk`, without gradients.

        Args:
            images: (n, c, h, w) floats in [0, 1], or 8-bit values.
            progress: called with images done and images in all.
        Returns:
            (n, d) embeddings on the encoder's device.
        """
        with self.frozen(), torch.inference_mode():
            parts: list[Tensor] = []
            for start in range(0, max(1, len(images)), self.chunk):
                part = images[start : start + self.chunk]
                parts.append(self.embed(self.as_input(part)))
                progress(start + len(part), len(images))
        return torch.cat(parts).clone()

    def as_input(self, images: Tensor) -> Tensor:
        """Floats in [0, 1] or 8-bit values, as the encoder's own precision and device want them."""
        if images.dtype == torch.uint8:
            return images.to(self.device).to(self.dtype) / 255
        return images.to(device=self.device, dtype=self.dtype)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Eval mode and parameters without gradients, put back as they were on leaving."""
        modes = [(module, module.training) for module in self.encoder.modules()]
        learning = [parameter for parameter in self.encoder.parameters() if parameter.requires_grad]
        self.encoder.eval()
        for parameter in learning:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in learning:
                parameter.requires_grad_(True)
            for module, mode in modes:
                module.training = mode
