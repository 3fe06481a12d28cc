"""Embeddings of galleries, kept on disk between commands.

The key of a file is a digest of everything its embeddings depend on. When it is opened, its sha256 is checked
and eight of its images are embedded again: what a key cannot see, such as a file that an encoder reads, shows
there.
"""

import json
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rankproof.cache.fingerprint import UnreadableError, fingerprint
from rankproof.cache.folder import KEY_LENGTH, CacheFolder, default_folder, default_size
from rankproof.cache.listing import EMBEDDINGS, KeptFile, listing
from rankproof.cache.pixels import PixelCache
from rankproof.cache.settings import torch_settings
from rankproof.cache.tensor_file import FORMAT, decoded, encoded
from rankproof.checks import check_images
from rankproof.errors import RankproofError
from rankproof.modes import ordinary_modes
from rankproof.ranking import Gallery, Ranker
from rankproof.ranking.examination import Examination, examination_from_json
from rankproof.ranking.mixed_images import MixedImages
from rankproof.types import ImagesLike, IntegersLike, ProgressCallback, no_progress

TRIED = "tried"  # the tensor of a file that holds the items which are embedded again
TRIED_ITEMS = 8  # embedded again whenever a file is opened
SHARE = 1e-4  # of the median distance: how far an item may be from itself when embedded again
ROUNDING = 16  # units in the last place of an embedding's length, which are rounding
NOISE = 4  # times what the examination found, as much may a batch change an item's embedding
FIRST_DISTANCE = 1e-3  # of the median distance, which counts as no difference anyway

Log = Callable[[str], None]


def warn(text: str) -> None:
    """Say one line as a warning of Python."""
    warnings.warn(text, stacklevel=3)


class GalleryCache:
    """Galleries on disk, each embedded once.

    Args:
        folder: where they are kept; None is $RANKPROOF_CACHE, or else the platform's folder for such files.
        size: bytes that all of them may take; None is $RANKPROOF_CACHE_SIZE, or else 2 GB. The least recently
            used are removed first.
        log: called with one line where a gallery cannot be kept or is embedded again.
    """

    def __init__(self, folder: str | Path | None = None, size: int | None = None, log: Log = warn) -> None:
        self.folder = CacheFolder(
            default_folder() if folder is None else Path(folder), default_size() if size is None else size
        )
        self._log = log
        self._said: set[str] = set()

    @ordinary_modes()
    def build(
        self,
        ranker: Ranker,
        images: ImagesLike,
        labels: IntegersLike | None = None,
        progress: ProgressCallback = no_progress,
    ) -> Gallery:
        """The gallery that `Gallery.build` returns, embedded only if it is not kept.

        Args:
            images: (n, c, h, w) floats in [0, 1] or 8-bit values.
            labels: (n,) class of each item, as integers; a list will do.
            progress: called with images embedded and images in all.
        Raises:
            RankproofError: the images or labels are something else, or are fewer than two.
        """
        pixels = check_images("images", images)
        entry = self.entry(ranker, pixels)
        if len(pixels) > 1 and (z := entry.read()) is not None:
            return Gallery(ranker, z, labels if labels is None else torch.as_tensor(labels), pixels)
        gallery = Gallery.build(ranker, images, labels, progress)
        entry.write(gallery.embeddings)
        return gallery

    def entry(
        self,
        ranker: Ranker,
        images: Tensor | MixedImages,
        *,
        data: str = "",
        files: Iterable[Path] = (),
    ) -> "Entry":
        """The place of the embeddings of some images by some ranker; nothing is read yet.

        Args:
            images: (n, c, h, w) as they are given to the ranker, or images of several sizes.
            data: what the images are called.
            files: Python files whose text belongs to the encoder, with those that they import.
        """
        pixels = images.sha256 if isinstance(images, MixedImages) else images
        try:
            with ranker.frozen():
                key = fingerprint(
                    FORMAT, ranker.embedded_from, torch_settings(ranker.device), pixels, files=files
                )
        except UnreadableError as error:
            self.say(f"{ranker.name}: its gallery is not kept on disk, since {error} cannot be read")
            return Entry(self, ranker, images, None, data)
        return Entry(self, ranker, images, key[:KEY_LENGTH], data)

    @property
    def pixels(self) -> PixelCache:
        """Where decoded pixels are kept beside the galleries; for `rankproof.load(kept=)`."""
        return PixelCache(self.folder, self.say)

    def list(self) -> list[KeptFile]:
        """All that is kept, the most recently used first."""
        return listing(self.folder)

    def clear(self, key: str | None = None) -> int:
        """Remove what is kept, or the one gallery whose key begins with `key`; the bytes that were freed.

        Raises:
            RankproofError: no key, or more than one, begins so; or a file cannot be removed.
        """
        keys = [file.stem for file in self.folder.files()]
        if key is not None:
            keys = [known for known in keys if known.startswith(key)]
            if len(keys) != 1 or not key:
                count = "no key begins" if not keys else f"{len(keys)} keys begin"
                raise RankproofError(f"{key or 'a key'}: {count} so; `rankproof cache` lists them")
        return sum(self.folder.remove(known) for known in keys)

    def say(self, text: str) -> None:
        """Log a line, once."""
        if text not in self._said:
            self._said.add(text)
            self._log(text)


@dataclass(frozen=True)
class Entry:
    """The place of one gallery's embeddings.

    Args:
        cache: what it belongs to.
        ranker: embeds the images.
        images: of the gallery.
        key: name of the file; None where the embeddings cannot be kept.
        data: what the images are called.
    """

    cache: GalleryCache
    ranker: Ranker
    images: Tensor | MixedImages
    key: str | None
    data: str

    def read(self) -> Tensor | None:
        """The kept embeddings (n, d), and the examination of the encoder taken over; None without any.

        A file that is damaged, or whose items are embedded otherwise now, is as none.
        """
        if self.key is None:
            return None
        try:
            content = self.cache.folder.read(self.key)
        except OSError:
            return None
        try:
            tensors, metadata = decoded(content)
            examination = examination_from_json(json.loads(metadata["examination"]))
            z, before = tensors[EMBEDDINGS], tensors[TRIED]
            if metadata["key"] != self.key or examination is None or len(z) != len(self.images):
                raise ValueError
            if z.dim() != 2 or z.shape[1:] != before.shape[1:] or z.dtype != before.dtype:
                raise ValueError
        except (ValueError, KeyError, TypeError):
            self.cache.say(f"{self.cache.folder.file(self.key)}: damaged; the gallery is embedded again")
            return None
        if not self._holds(before.to(self.ranker.device), examination):
            return None
        self.cache.folder.used(self.key)
        return z.to(self.ranker.device)

    def write(self, z: Tensor) -> None:
        """Keep embeddings (n, d) that were computed now, unless the encoder is random; never raises."""
        found = self.ranker.examination
        if self.key is None or found is None or found.kind != "function" or found.draws_numbers:
            return
        tried = self._tried()
        noise = max(FIRST_DISTANCE, NOISE * found.largest)
        if self._difference(tried, z[self._rows()], noise) is not None:
            self.cache.say(
                f"{self.ranker.name}: its gallery is not kept on disk, since an image that is embedded again "
                f"has another embedding"
            )
            return
        metadata = {
            "key": self.key,
            "model": self.ranker.name,
            "data": self.data,
            "examination": json.dumps(found.to_json()),
        }
        try:
            self.cache.folder.write(self.key, encoded({EMBEDDINGS: z, TRIED: tried}, metadata))
        except RankproofError as error:
            self.cache.say(f"{error}; nothing is kept on disk")

    def _holds(self, before: Tensor, examination: Examination) -> bool:
        """Whether the tried items are embedded as before; the ranker has the examination then."""
        known = self.ranker.examination
        try:
            self.ranker.begin(self.images, known=examination)
            difference = self._difference(self._tried(), before, SHARE)
        except RankproofError:  # the encoder does not take these images any more
            difference = "the encoder fails now"
        if difference is None:
            return True
        if known is None:
            self.ranker.forget()
        self.cache.say(
            f"{self.ranker.name}: the gallery kept on disk is not that of this encoder any more "
            f"({difference}); it is embedded again"
        )
        return False

    def _tried(self) -> Tensor:
        rows = self._rows()
        if isinstance(self.images, MixedImages):
            return self.ranker.embed_all(self.images.take(rows))
        return self.ranker.embed_all(self.images[rows.to(self.images.device)])

    def _rows(self) -> Tensor:
        """Positions of the items that are tried: the first, the last, and some drawn from the key."""
        count = len(self.images)
        if count <= TRIED_ITEMS:
            return torch.arange(count)
        random = torch.Generator().manual_seed(int(str(self.key)[:15], 16))
        drawn = 1 + torch.randperm(count - 2, generator=random)[: TRIED_ITEMS - 2]
        return torch.cat([torch.tensor([0, count - 1]), drawn]).sort().values

    def _difference(self, z: Tensor, before: Tensor, share: float) -> str | None:
        """What differs between embeddings of the same items (m, d), in words; None if nothing does.

        Args:
            share: of the median distance, below which a difference is rounding.
        """
        if z.shape != before.shape or z.dtype != before.dtype:
            return f"{z.shape[1]} dimensions of {z.dtype}, {before.shape[1]} of {before.dtype} before"
        now, then = (self.ranker.distance.prepare(each.double()) for each in (z, before))
        length = float(then.norm(dim=1).max())
        median = float(torch.pdist(then).median()) if len(then) > 1 else 0.0
        far = float((now - then).norm(dim=1).max())
        if far <= max(share * median, ROUNDING * torch.finfo(torch.float32).eps * length):
            return None
        return f"an item is {far / (median or length or 1.0):.1g} of the median distance away from itself"
