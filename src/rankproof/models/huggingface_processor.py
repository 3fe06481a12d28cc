"""What an image processor of the transformers library does to an upload.

Its normalisation is read from its settings. What it does to the size of an image is compared with it; see
`rankproof.models.processor`.
"""

from collections.abc import Iterator
from typing import Any

from PIL import Image
from PIL.Image import Resampling
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.models.pillow_resize import Resample
from rankproof.models.preprocess import Preprocess
from rankproof.models.processor import OWN_FUNCTION, reproduced, resample_by_name

DEFAULT_RESAMPLE = Resampling.BILINEAR  # the library's, where a processor has none
EXACT, SHORTER = {"height", "width"}, {"shortest_edge"}  # keys of the sizes that can be reproduced
LEVIT = 256 / 224  # by which LeViT enlarges the side that it is told


def input_settings(name: str, config: Any, processor: Any) -> dict[str, Any]:
    """The settings mean, std and input of a processor, for pixels in [0, 1].

    Raises:
        RankproofError: it does something else to the channels.
    """
    if getattr(processor, "do_flip_channel_order", False) or getattr(processor, "rescale_offset", False):
        raise RankproofError(f"{name}: its preprocessor reorders or offsets the channels; {OWN_FUNCTION}")
    # The library computes on 0 .. 255 with a rescale factor f:
    # (255 x f - mean) / std = (x - mean / 255 f) / (std / 255 f)
    scale = 255 * processor.rescale_factor if getattr(processor, "do_rescale", True) else 255.0
    normalises = getattr(processor, "do_normalize", False)
    mean = processor.image_mean if normalises else [0.0, 0.0, 0.0]
    std = processor.image_std if normalises else [1.0, 1.0, 1.0]
    if getattr(processor, "include_top", False):  # of EfficientNet, which divides by it once more
        std = [float(value) * float(more) for value, more in zip(std, processor.image_std, strict=True)]
    plain = not any(mean) and all(abs(scale / value - 1) < 1e-6 for value in std)
    size = processor.size
    if getattr(processor, "do_center_crop", False) and processor.crop_size:
        size = processor.crop_size
    return {
        "mean": None if plain else [float(value) / scale for value in mean],
        "std": None if plain else [float(value) / scale for value in std],
        "input": _form(config, size, len(mean)),
    }


def own_preprocess(
    name: str, processor: Any, settings: dict[str, Any]
) -> tuple[Preprocess | None, tuple[str, ...]]:
    """What a processor does to an upload before mean and std, and a note where that was not found.

    Args:
        name: of the encoder, for messages.
        processor: as the library loads it.
        settings: what `input_settings` says of it.
    Raises:
        RankproofError: it normalises otherwise than its settings say.
    """

    def process(image: Image.Image) -> Tensor:
        pixels: Tensor = processor(images=image, return_tensors="pt")["pixel_values"]
        return pixels

    what = f"the preprocessor of {name} ({type(processor).__name__})"
    return reproduced(what, process, _candidates(processor), settings)


def _candidates(processor: Any) -> Iterator[Preprocess]:
    """What a processor may do with its settings, which classes of the library read differently."""
    resample = _resample(processor)
    crops = getattr(processor, "do_center_crop", False)
    crop = _exact(_sides(processor.crop_size)) if crops else None
    if not getattr(processor, "do_resize", False):
        yield Preprocess(crop=crop, pad=True)
    elif resample is not None and not getattr(
        processor, "do_pad", False
    ):  # of images to the largest of a batch
        for resize, cropped in _forms(processor, crop):
            yield Preprocess(resize, cropped, resample=resample, pad=True)


def _forms(
    processor: Any, crop: tuple[int, int] | None
) -> Iterator[tuple[int | tuple[int, int], int | tuple[int, int] | None]]:
    """The sizes that images may be resized to, and cropped to afterwards."""
    sides = _sides(processor.size)
    if set(sides) not in (EXACT, SHORTER):
        return
    exact = _exact(sides)
    side = int(sides["shortest_edge"]) if exact is None else exact[0]
    yield side if exact is None else exact, crop
    if exact is not None and exact[0] != exact[1]:
        return
    if factor := getattr(processor, "crop_pct", None):
        enlarged = int(side / factor)
        yield from ((enlarged, crop), (enlarged, side), ((side, side), crop))  # PoolFormer, ConvNeXT
    yield int(LEVIT * side), crop


def _resample(processor: Any) -> Resample | None:
    """Pillow's name of a processor's filter, which it may hold as a number or as torchvision's mode."""
    code = getattr(processor, "resample", None)
    return resample_by_name(DEFAULT_RESAMPLE if code is None else code)


def _sides(size: Any) -> dict[str, Any]:
    """The sides that a size of the library has."""
    sides = size if isinstance(size, dict) else vars(size) if hasattr(size, "__dict__") else {}
    return {key: value for key, value in sides.items() if value}


def _exact(sides: dict[str, Any]) -> tuple[int, int] | None:
    return (int(sides["height"]), int(sides["width"])) if set(sides) == EXACT else None


def _form(config: Any, size: Any, channels: int) -> list[int] | None:
    """Channels, height and width, from the processor's size or else from the model's own."""
    sides = _sides(size)
    if "height" in sides and "width" in sides:
        return [channels, int(sides["height"]), int(sides["width"])]
    side = sides.get("shortest_edge") or getattr(getattr(config, "vision_config", config), "image_size", None)
    return [channels, int(side), int(side)] if isinstance(side, int) else None
