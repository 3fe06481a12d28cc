"""The search service without its HTTP interface: authentication, uploads, embedding, search and items."""

from threading import Lock

import torch
from jaxtyping import UInt8
from torch import Tensor

from rankproof.data import Dataset
from rankproof.data.images import Form
from rankproof.indexes import Index
from rankproof.io import encode_png
from rankproof.ranking import Ranker
from rankproof.service.auth import ANONYMOUS, Caller, Keys
from rankproof.service.errors import RefusedError
from rankproof.service.limits import Limits, Quota
from rankproof.service.storage import Items
from rankproof.service.uploads import decode_upload
from rankproof.types import Embeddings


class SearchService:
    """Searches a gallery by image, for callers with a key; all methods are thread-safe.

    Keys and quotas are in the database of the items.

    Args:
        ranker: embeds images.
        dataset: the images that the gallery was made from.
        items: the gallery's items, including those added later.
        index: finds the nearest items.
        limits: what callers may do.
        batch_multiple: batches are padded to a multiple of this size; see `batch_invariant_multiple`.
        anonymous: whether callers without a key may search, on one shared quota, as long as no key exists.
    """

    def __init__(
        self,
        *,
        ranker: Ranker,
        dataset: Dataset,
        items: Items,
        index: Index,
        limits: Limits,
        batch_multiple: int,
        anonymous: bool = True,
    ) -> None:
        self.ranker, self.dataset, self.items, self.index = ranker, dataset, items, index
        self.limits, self.batch_multiple, self.anonymous = limits, batch_multiple, anonymous
        self.keys, self.quota = Keys(items.database), Quota(items.database, limits)
        channels, height, width = (int(side) for side in dataset.images.shape[1:])
        self.form = Form(height=height, width=width, channels=channels)
        self._encoder = Lock()

    def __len__(self) -> int:
        return len(self.index)

    def authenticate(self, key: str | None) -> Caller:
        """The owner of a key.

        Raises:
            RefusedError: the key is unknown, or missing where one is needed.
        """
        if key is not None and (owner := self.keys.owner(key)) is not None:
            return owner
        if key is None and self.anonymous and not len(self.keys):
            return Caller(ANONYMOUS)
        problem = "a key is needed in the header X-Api-Key" if key is None else "this key is unknown"
        raise RefusedError(401, "key", f"{problem}; ask the operator of this service for one")

    def require_admin(self, key: str | None) -> None:
        """Raise `RefusedError` unless the key is an admin key."""
        if not self.authenticate(key).admin:
            raise RefusedError(403, "admin", "this needs an admin key: rankproof keys add NAME --admin")

    def decode(self, raw: bytes, declared: str) -> UInt8[Tensor, "c h w"]:
        """Decode an upload to an image of the gallery's size and channels; see `decode_upload`."""
        return decode_upload(raw, declared, self.limits, self.form)

    def decode_query(self, caller: Caller, raw: bytes, declared: str) -> UInt8[Tensor, "c h w"]:
        """Decode an upload to search with; a valid one counts as a call.

        Raises:
            RefusedError: the upload fails a check, or the caller's quota is used up.
        """
        image = self.decode(raw, declared)
        self.quota.take(caller.name)
        return image

    def embed(self, batch: UInt8[Tensor, "b c h w"]) -> Embeddings:
        """Embed images, prepared for the distance as the index stores them.

        The batch is padded, so that an embedding does not depend on the rest of it.
        """
        padding = batch[-1:].expand(-len(batch) % self.batch_multiple, *batch.shape[1:])
        with self._encoder:
            z = self.ranker.embed_all(torch.cat([batch, padding]))[: len(batch)]
        return self.ranker.distance.prepare(z)

    def search(self, batch: UInt8[Tensor, "b c h w"]) -> list[list[str]]:
        """The ids of the first N results of each image, nearest first."""
        return self.index.search(self.embed(batch), self.limits.visible)

    def put(self, item_id: str, image: UInt8[Tensor, "c h w"]) -> None:
        """Add an item, or replace the item with this id."""
        self.index.add([item_id], self.embed(image[None]), [encode_png(image)])

    def remove(self, item_id: str) -> None:
        """Remove an item.

        Raises:
            RefusedError: there is no such item.
        """
        if not self.index.remove(item_id):
            raise _unknown_item()

    def image(self, item_id: str) -> bytes:
        """The image of an item, as a PNG file.

        Raises:
            RefusedError: there is no such item.
        """
        row = self.items.image_file(item_id)
        if row is None:
            raise _unknown_item()
        return row[0] or encode_png(self.dataset.images[int(item_id)])

    def close(self) -> None:
        """Write the index to disk and close the database."""
        self.index.close()
        self.items.database.close()


def _unknown_item() -> RefusedError:
    return RefusedError(404, "item", "there is no item with this id")
