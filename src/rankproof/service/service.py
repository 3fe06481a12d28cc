"""A model and a gallery that answer strangers: everything but the HTTP."""

from io import BytesIO
from threading import Lock

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from rankproof.data import Dataset
from rankproof.data.images import Form
from rankproof.ranking import Ranker
from rankproof.service.index import Index
from rankproof.service.intake import take_in
from rankproof.service.items import Items
from rankproof.service.keys import ANONYMOUS, Caller, Keys
from rankproof.service.limits import Limits
from rankproof.service.quota import Quota
from rankproof.service.refusal import RefusedError
from rankproof.types import Embeddings


class Service:
    """What the web application, and anything beside it, asks; safe to use from several threads.

    Args:
        ranker: how pictures become embeddings.
        dataset: the pictures that the gallery was made from.
        items: all items, those that were added since too.
        index: where the nearest ones are found.
        keys: who may call; while there are none, anybody may if `anonymous`.
        quota: how often.
        limits: what is allowed.
        step: passes of a multiple of it round alike; see `steady_step`.
        anonymous: whether callers without a key share one quota as long as no key was made.
    """

    def __init__(
        self,
        *,
        ranker: Ranker,
        dataset: Dataset,
        items: Items,
        index: Index,
        keys: Keys,
        quota: Quota,
        limits: Limits,
        step: int,
        anonymous: bool = True,
    ) -> None:
        self.ranker, self.dataset, self.items, self.index = ranker, dataset, items, index
        self.keys, self.quota, self.limits, self.anonymous = keys, quota, limits, anonymous
        channels, height, width = (int(side) for side in dataset.pictures.shape[1:])
        self.form = Form(height=height, width=width, channels=channels)
        self.step = step
        self._encoder = Lock()

    def __len__(self) -> int:
        return len(self.index)

    def caller(self, key: str | None) -> Caller:
        """Whose key it is.

        Raises:
            RefusedError: nobody's.
        """
        if key is not None and (found := self.keys.find(key)) is not None:
            return found
        if key is None and self.anonymous and not len(self.keys):
            return Caller(ANONYMOUS)
        told = "a key is needed in the header X-Api-Key" if key is None else "this key is unknown"
        raise RefusedError(401, "key", f"{told}; ask whoever runs this service for one")

    def demand_admin(self, key: str | None) -> None:
        """Refuse whoever may not change items."""
        if not self.caller(key).admin:
            raise RefusedError(403, "admin", "this needs an admin key: rankproof keys add NAME --admin")

    def take_in(self, raw: bytes, declared: str) -> UInt8[Tensor, "c h w"]:
        """An upload as a picture of the gallery's form; see `intake.take_in`."""
        return take_in(raw, declared, self.limits, self.form)

    def admit(self, caller: Caller, raw: bytes, declared: str) -> UInt8[Tensor, "c h w"]:
        """An upload as a picture to search with; one that is good counts as a call of its caller.

        Raises:
            RefusedError: the upload is refused, or the caller's calls are spent.
        """
        picture = self.take_in(raw, declared)
        self.quota.take(caller.name)
        return picture

    def embed(self, pictures: UInt8[Tensor, "b c h w"]) -> Embeddings:
        """Embeddings that depend on each picture alone.

        Encoders round otherwise in passes of other sizes, but those of a multiple of `step` pictures round
        alike: the last picture is repeated up to the next one.
        """
        spare = pictures[-1:].expand(-len(pictures) % self.step, *pictures.shape[1:])
        with self._encoder:
            return self.ranker.embed_all(torch.cat([pictures, spare]))[: len(pictures)]

    def search(self, pictures: UInt8[Tensor, "b c h w"]) -> list[list[str]]:
        """The ids of the first N results of each picture, nearest first."""
        return self.index.search(self.embed(pictures), self.limits.visible)

    def put(self, name: str, picture: UInt8[Tensor, "c h w"]) -> None:
        """Add an item, or replace the one of that id."""
        self.index.add([name], self.embed(picture[None]), [as_png(picture)])

    def remove(self, name: str) -> None:
        """Remove an item.

        Raises:
            RefusedError: there is none of that id.
        """
        if not self.index.remove(name):
            raise _no_item()

    def image(self, name: str) -> bytes:
        """The picture of an item as a PNG file.

        Raises:
            RefusedError: there is none of that id.
        """
        found = self.items.picture(name)
        if found is None:
            raise _no_item()
        return found[0] or as_png(self.dataset.pictures[int(name)])

    def close(self) -> None:
        """Keep what is not kept yet, and let go of the database."""
        self.index.close()
        self.items.database.close()


def as_png(picture: UInt8[Tensor, "c h w"]) -> bytes:
    """A picture of one or three channels as a PNG file."""
    file = BytesIO()
    pixels = picture[0] if len(picture) == 1 else picture.permute(1, 2, 0)  # (h, w) or (h, w, c)
    Image.fromarray(pixels.numpy()).save(file, "PNG")
    return file.getvalue()


def _no_item() -> RefusedError:
    return RefusedError(404, "item", "there is no item of this id")
