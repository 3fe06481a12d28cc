"""Decoding of image files from untrusted sources into 8-bit pixels, and resizing."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from rankproof.data.image_formats import formats_for, why_not_opened
from rankproof.errors import RankproofError

MAX_PIXELS = 50_000_000
MAX_BYTES = 256 * 2**20
DEEP_MODES = frozenset({"I;16", "I;16B", "I;16L", "I;16N"})  # grey of 16 bits
GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "F", *DEEP_MODES})
TRANSPOSED = frozenset({5, 6, 7, 8})  # EXIF orientations that exchange height and width

PNG_DEPTH, PNG_KIND = (
    24,
    25,
)  # where a PNG says how many bits a value has, and whether it is grey (0) or RGB (2)
SUBFILE, BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT = 254, 258, 262, 339  # tags of TIFF
REDUCED, WHITE_IS_ZERO, SIGNED = 1, 0, 2


@dataclass(frozen=True, kw_only=True)
class Form:
    """Height, width and number of channels of an image."""

    height: int
    width: int
    channels: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return self.channels, self.height, self.width

    @property
    def values(self) -> int:
        """The number of its pixel values."""
        return self.channels * self.height * self.width


def as_size(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """A size as (height, width); a single number is the side of a square."""
    if size is None:
        return None
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1 or height * width > MAX_PIXELS:
        raise RankproofError(f"size {height}x{width}: give between 1 and {MAX_PIXELS:,} pixels")
    return height, width


@contextmanager
def opened(raw: bytes, file: str) -> Iterator[Image.Image]:
    """An image whose header is read and whose pixels are not yet; errors raised inside name `file`."""
    try:
        with warnings.catch_warnings():
            # Pillow warns of flaws that it can handle, and raises for others.
            warnings.simplefilter("ignore")
            with Image.open(BytesIO(raw), formats=formats_for(raw)) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                yield image
    except Image.DecompressionBombError:
        limit = f"{MAX_PIXELS // 1_000_000} megapixels"
        raise RankproofError(f"{file}: claims more than {limit}; shrink or remove it") from None
    except UnidentifiedImageError:
        raise RankproofError(f"{file}: {why_not_opened(raw)}") from None
    except RankproofError:
        raise
    except Exception as error:  # decoders may raise anything for a damaged file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RankproofError(f"{file}: damaged image ({reason}); replace or remove it") from None


def peek(raw: bytes, file: str) -> Form:
    """The form an image will have when decoded and turned upright, from its header alone."""
    with opened(raw, file) as image:
        height, width = image.height, image.width
        # Pillow applies the orientation of TIFF itself.
        if image.format != "TIFF" and _orientation(image) in TRANSPOSED:
            height, width = width, height
        return Form(height=height, width=width, channels=1 if image.mode in GREY_MODES else 3)


def decode(raw: bytes, file: str, form: Form) -> UInt8[np.ndarray, "c h w"]:
    """The image upright, on white where it is transparent, stretched to `form`.

    Of an image of several frames or pages the first counts. Colour profiles are ignored. Of 16-bit values the
    upper 8 bits are kept.

    Raises:
        RankproofError: the image is damaged, or its values have no known range.
    """
    with opened(raw, file) as image:
        _check_range(image, raw, file)
        image.load()
        flat = _flatten(_upright(_without_unused_alpha(image)), file)
        if form.channels == 1 and flat.mode != "L":
            flat = flat.convert("RGB").convert("L")
        pixels = np.array(
            stretch(flat.convert("L" if form.channels == 1 else "RGB"), (form.height, form.width))
        )
    return pixels.reshape(form.height, form.width, form.channels).transpose(2, 0, 1)  # (c, h, w)


def stretch(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The image at exactly (height, width), whatever its aspect ratio."""
    height, width = size
    if (image.height, image.width) == (height, width):
        return image
    return image.resize((width, height), Image.Resampling.LANCZOS)


def resize(images: UInt8[Tensor, "n c h w"], size: tuple[int, int]) -> UInt8[Tensor, "n c H W"]:
    """Every image stretched to (height, width), one channel at a time."""
    if tuple(images.shape[2:]) == size:
        return images
    planes = images.flatten(0, 1).numpy()  # (n c, h, w)
    resized = np.empty((len(planes), *size), np.uint8)
    for position, plane in enumerate(planes):
        resized[position] = np.asarray(stretch(Image.fromarray(plane), size))
    return torch.from_numpy(resized.reshape(*images.shape[:2], *size))  # (n, c, H, W)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) where it is missing or damaged."""
    try:
        # The method of the base class, since that of PNG decodes the pixels.
        return int(Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF does not make an image unusable
        return 1


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # as above
        return image


def _check_range(image: Image.Image, raw: bytes, file: str) -> None:
    """Raise where it is not known which value is black and which is white; correct what Pillow misreads."""
    advice = "scale it to 0..255 and save it with 8 bits"
    if image.mode in ("I", "F"):
        what = "32-bit floats" if image.mode == "F" else "integers of 32 bits or with a sign"
        raise RankproofError(f"{file}: holds {what}, whose range is unknown; {advice}")
    if image.format == "TIFF":
        tags = vars(image)["tag_v2"]
        bits = tags.get(BITS_PER_SAMPLE, (1,))[0]
        if tags.get(SUBFILE, 0) & REDUCED:  # camera raw files open with their preview
            raise RankproofError(f"{file}: opens with a reduced preview of the image; save it as PNG")
        if SIGNED in tags.get(SAMPLE_FORMAT, ()):
            raise RankproofError(f"{file}: holds values with a sign; {advice}")
        if image.mode in DEEP_MODES and (tags.get(PHOTOMETRIC) == WHITE_IS_ZERO or bits != 16):
            raise RankproofError(f"{file}: a grey TIFF of {bits} bits or with 0 for white; save it as PNG")
    if image.format == "PNG" and "transparency" in image.info:
        depth, kind = raw[PNG_DEPTH], raw[PNG_KIND]
        if (depth, kind) == (16, 2):  # Pillow drops the lower bits, which the key needs
            raise RankproofError(f"{file}: has 16 bits and a transparent colour; save it with 8 bits")
        key, most = image.info["transparency"], 2**depth - 1
        if kind == 0 and depth in (2, 4) and key <= most:  # the pixels are scaled to 8 bits, the key is not
            image.info["transparency"] = key * 255 // most


def _flatten(image: Image.Image, file: str) -> Image.Image:
    """The image in 8 bits, without transparency."""
    if image.mode in DEEP_MODES:
        return _eight_bit(image, file)
    if not image.has_transparency_data:
        return image
    mode = "L" if image.mode in GREY_MODES else "RGB"
    white = Image.new(mode, image.size, "white")
    rgba = image.convert("RGBA")
    white.paste(rgba.convert(mode), mask=rgba.getchannel("A"))
    return white


def _without_unused_alpha(image: Image.Image) -> Image.Image:
    """The image; a BMP whose fourth channel was left at 0 is opaque, as every viewer shows it."""
    if image.format == "BMP" and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        return image.convert("RGB")
    return image


def _eight_bit(image: Image.Image, file: str) -> Image.Image:
    """A 16-bit grey image in 8 bits; Pillow's own conversion would clip all values above 255 to white."""
    deep = np.asarray(image).astype(np.int64)
    if 0 < deep.max() < 256:
        raise RankproofError(
            f"{file}: has 16 bits but no value above {deep.max()}, which is black; save it with 8 bits"
        )
    clear = deep == image.info["transparency"] if "transparency" in image.info else False
    return Image.fromarray(np.where(clear, 255, deep >> 8).astype(np.uint8))
