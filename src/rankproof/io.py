"""Atomic writing of files, JSON, arrays and PNG, and the versions of the software."""

import json
import os
import platform
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from rankproof.errors import RankproofError

JsonObject = dict[str, Any]
"""What a JSON file or message holds."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a temporary name in the same folder, then move: a reader sees all of the file or none."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise RankproofError(f"{path.parent}: cannot be written ({error.strerror})") from None
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise RankproofError(f"{path}: cannot be written ({error.strerror})") from None
    finally:
        Path(temporary).unlink(missing_ok=True)


def utf8(text: str) -> bytes:
    """A text in UTF-8; bytes of a file name that are none, which Python keeps as surrogates, are escaped."""
    return text.encode(errors="backslashreplace")


def write_json(path: Path, value: object, *, indent: int | None = None, allow_nan: bool = True) -> None:
    """Write a value as a JSON file that ends in a line break."""
    write_atomically(path, f"{json.dumps(value, indent=indent, allow_nan=allow_nan)}\n".encode())


def read_json_lines(path: Path) -> Iterator[JsonObject]:
    """The objects of a file with one on each line; a line that was not written to its end is left out."""
    for line in path.read_bytes().splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            yield value


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], *, compressed: bool = False) -> None:
    """Write a .npz file."""
    stream = BytesIO()
    save: Any = np.savez_compressed if compressed else np.savez
    save(stream, **arrays)
    write_atomically(path, stream.getvalue())


def read_arrays(path: Path) -> dict[str, Tensor]:
    """The arrays of a .npz file by name.

    Raises:
        ValueError: it is no such file, or it is damaged.
    """
    try:
        with np.load(BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            return {name: torch.from_numpy(stored[name]) for name in stored.files}
    except (OSError, ValueError, EOFError, BadZipFile, KeyError, TypeError, AttributeError) as error:
        raise ValueError(str(error)) from None


def encode_png(pixels: UInt8[Tensor, "c h w"], longest: int | None = None) -> bytes:
    """An image of one channel (grey) or three (colour) as a PNG file.

    Args:
        longest: side to which a larger image is shrunk.
    """
    plane = pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0)  # (h, w) or (h, w, c)
    stream, image = BytesIO(), Image.fromarray(plane.contiguous().numpy())
    if longest is not None:
        image.thumbnail((longest, longest))
    image.save(stream, format="PNG")
    return stream.getvalue()


def encode_jpeg(pixels: UInt8[Tensor, "c h w"], quality: int = 90) -> bytes:
    """An image of one channel (grey) or three (colour) as a JPEG file, colours at full resolution (4:4:4).

    Args:
        quality: as libjpeg counts it, 1 to 100.
    """
    plane = pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0)  # (h, w) or (h, w, c)
    stream = BytesIO()
    image = Image.fromarray(plane.contiguous().numpy())
    image.save(stream, format="JPEG", quality=quality, subsampling=0)
    return stream.getvalue()


def decode_pixels(raw: bytes) -> UInt8[Tensor, "c h w"]:
    """The pixels of a PNG or JPEG file that this program has written, grey as one channel."""
    with Image.open(BytesIO(raw), formats=("PNG", "JPEG")) as image:
        plane = np.array(image)
    return torch.from_numpy(plane if plane.ndim == 3 else plane[..., None]).permute(2, 0, 1)


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that can change a figure."""
    return dict(_versions())


@cache
def _versions() -> dict[str, str]:
    """Read once: each version is looked for in the metadata of its package."""
    return {
        "python": platform.python_version(),
        "rankproof": version("rankproof"),
        "torch": version("torch"),
        "numpy": version("numpy"),
    }
