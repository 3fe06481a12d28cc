"""Decoded pixels of image files, kept on disk between commands."""

from collections.abc import Callable
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version

import PIL
from PIL import features
from torch import Tensor

from rankproof.cache.folder import KEY_LENGTH, CacheFolder
from rankproof.cache.listing import PIXELS
from rankproof.cache.source_files import own_source
from rankproof.cache.tensor_file import decoded, encoded
from rankproof.errors import RankproofError

DECODERS = ("jpg", "libjpeg_turbo", "zlib", "libtiff", "webp", "avif")
ROOMS = ("data",)
SHARE = 2  # pixels of one data set may take one half of what is kept: embeddings take longer to make


class PixelCache:
    """Decoded pixels by a digest of the files they come from.

    Args:
        folder: where they are kept.
        say: called with one line where they cannot be.
    """

    def __init__(self, folder: CacheFolder, say: Callable[[str], None]) -> None:
        self.folder, self._say = folder, say

    def read(self, content: str) -> Tensor | None:
        """The (n, c, h, w) 8-bit pixels of some content, if they are kept."""
        key = _key(content)
        try:
            tensors, metadata = decoded(self.folder.read(key))
            if metadata["key"] != key:
                raise ValueError
            pixels = tensors[PIXELS]
        except OSError:
            return None
        except (ValueError, KeyError):
            self._say(f"{self.folder.file(key)}: damaged; the images are decoded again")
            return None
        self.folder.used(key)
        return pixels

    def write(self, content: str, pixels: Tensor, name: str) -> None:
        """Keep the pixels of some content of the data set `name`, unless they are too many; never raises."""
        if pixels.nbytes * SHARE > self.folder.size:
            return
        key = _key(content)
        try:
            self.folder.write(key, encoded({PIXELS: pixels}, {"key": key, "data": name}))
        except RankproofError as error:
            self._say(f"{error}; nothing is kept on disk")


def _key(content: str) -> str:
    """The key of some content as it is decoded here: by these libraries, and by the code in `data`."""
    # Not all builds of Pillow know all of these names.
    known = {*features.modules, *features.codecs, *features.features}
    decoders = [(name, str(features.version(name))) for name in DECODERS if name in known]
    made_by = (PIL.__version__, decoders, _heif(), own_source(*ROOMS))
    return sha256(f"{content} {made_by}".encode()).hexdigest()[:KEY_LENGTH]


def _heif() -> str | None:
    try:
        return version("pillow-heif")
    except PackageNotFoundError:
        return None
