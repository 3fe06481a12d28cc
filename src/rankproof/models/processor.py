"""What an encoder's own image processor does to an upload, as a `Preprocess` that was compared with it.

A library documents its settings, but which of them a processor uses, and how, is in its code. So the settings
only make candidates; one counts as found when it gives the processor's own pixels, within one grey level, on
images of noise of several forms, larger and smaller than the encoder's input.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.Image import Resampling
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.models.pillow_resize import RESAMPLES, Resample
from rankproof.models.preprocess import Preprocess
from rankproof.models.source import COLOUR

Process = Callable[[Image.Image], Tensor]
"""A processor: from an image to normalised pixels (1, c, h, w), or (c, h, w)."""

OWN_FUNCTION = "write a function that does the same around the model, and name it as module.py:function"
UNKNOWN_FORM = (COLOUR, 224, 224)  # around which a processor without a size is tried
LEVEL = 1.01 / 255  # one grey level, and what single precision adds
COLOURS = ((0, 100, 255), (200, 30, 90))  # of images that any resizing leaves alone


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """What is subtracted from pixels in [0, 1], and by what they are divided, per channel."""

    mean: Sequence[float]
    std: Sequence[float]

    def worst(self, found: Tensor, pixels: Tensor) -> float:
        """The largest difference, in pixels in [0, 1], between what a processor gave and pixels (c, h, w)."""
        mean, std = (
            torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (self.mean, self.std)
        )
        return float((found.double() * std + mean - pixels.double()).abs().max())


def reproduced(
    what: str, process: Process, candidates: Iterable[Preprocess], settings: dict[str, Any]
) -> tuple[Preprocess | None, tuple[str, ...]]:
    """The candidate that gives a processor's pixels, and a note where none does.

    Args:
        what: how messages call the processor.
        process: the processor.
        candidates: what it may do before its normalisation.
        settings: the mean, std and input of its encoder, None for what it has not.
    Raises:
        RankproofError: it normalises otherwise than its settings say.
    """
    channels, height, width = settings["input"] or UNKNOWN_FORM
    normalisation = Normalisation(
        mean=settings["mean"] or [0.0] * channels, std=settings["std"] or [1.0] * channels
    )
    found = agreeing(process, candidates, normalisation, (height, width))
    if found is not None:
        return found, ()
    if not normalises_so(process, normalisation, (height, width)):
        raise RankproofError(f"{what} does more to pixels than its mean and std say; {OWN_FUNCTION}")
    return None, (f"how {what} resizes an upload is not reproduced",)


def resample_by_name(code: Any) -> Resample | None:
    """Pillow's filter by its number, its name, or a mode of torchvision; None where Pillow has none such."""
    code = getattr(code, "value", code)
    word = Resampling(code).name.lower() if code in list(Resampling) else str(code)
    return next((known for known in RESAMPLES if known == word), None)


def agreeing(
    process: Process,
    candidates: Iterable[Preprocess],
    normalisation: Normalisation,
    sides: tuple[int, int],
) -> Preprocess | None:
    """The first candidate that gives the processor's pixels; None where none does, or the processor fails.

    Args:
        process: the processor.
        candidates: what it may do before its normalisation.
        normalisation: what it does last.
        sides: height and width of the encoder's input, around which images are tried.
    """
    images = [_noise(len(normalisation.mean), *form) for form in _forms(*sides)]
    try:
        expected = [_processed(process, image) for image in images]
    except Exception:  # a processor may need more than an image, and raise anything
        return None
    pixels = [_pixels(image) for image in images]
    for candidate in candidates:
        if all(_agrees(candidate, *pair, normalisation) for pair in zip(pixels, expected, strict=True)):
            return candidate
    return None


def _agrees(candidate: Preprocess, pixels: Tensor, expected: Tensor, normalisation: Normalisation) -> bool:
    """Whether a candidate gives what the processor gave for an image (c, h, w)."""
    channels, height, width = pixels.shape
    if expected.shape != (channels, *candidate.sides(height, width)):
        return False
    return normalisation.worst(expected, candidate(pixels[None])[0]) <= LEVEL


def normalises_so(process: Process, normalisation: Normalisation, sides: tuple[int, int]) -> bool:
    """Whether a processor normalises in this way, tried on images of one colour; True where it fails on them.

    The median is compared, since a processor may add margins.
    """
    for colour in COLOURS:
        levels = colour[: len(normalisation.mean)]
        image = np.broadcast_to(np.array(levels, np.uint8), (*sides, len(levels)))
        try:
            found = _processed(process, _image(image))
        except Exception:  # as above
            return True
        if found.dim() != 3 or len(found) != len(levels):
            return True
        median = found.flatten(1).double().median(1).values[:, None, None]
        if normalisation.worst(median, torch.tensor(levels)[:, None, None] / 255) > LEVEL:
            return False
    return True


def _forms(height: int, width: int) -> list[tuple[int, int]]:
    """A wide image larger than the input, a tall smaller one, and a square."""
    return [
        (height + height // 3 + 1, 2 * width + 1),
        (height * 2 // 3 + 1, width // 2 + 1),
        (height, height),
    ]


def _noise(channels: int, height: int, width: int) -> Image.Image:
    random = np.random.default_rng(height * width)
    return _image(random.integers(0, 256, (height, width, channels), np.uint8))


def _image(levels: np.ndarray) -> Image.Image:
    return Image.fromarray(levels[:, :, 0] if levels.shape[2] == 1 else levels)


def _pixels(image: Image.Image) -> Tensor:
    """(c, h, w) in [0, 1]."""
    return torch.from_numpy(np.atleast_3d(np.asarray(image)).copy()).permute(2, 0, 1) / 255


def _processed(process: Process, image: Image.Image) -> Tensor:
    """(c, h, w)"""
    found = process(image)
    return found[0] if found.dim() == 4 and len(found) == 1 else found
