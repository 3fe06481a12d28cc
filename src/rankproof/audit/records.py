"""The attacks of one unit of an audit as a JSON object that gives exactly the same values again."""

import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankproof.attacks.result import AttackResult, QueryLog
from rankproof.attacks.smallest_budget import SmallestBudgets
from rankproof.io import JsonObject
from rankproof.threat import LEVELS

PACKED = 1000  # values of a tensor above which it is compressed: the scores of all queries
UNTOLD = ("examination", "versions")  # the same in all units of an audit, which knows them


@dataclass(frozen=True, kw_only=True)
class Attacks:
    """Attacks on some images, without the images.

    Args:
        result: their figures.
        size: (b,) the largest change of a pixel of each; NaN where the wish of a smallest budget was not
            reached.
        reached: (b,) whether what was wanted has come true; None where the goal has no yes or no.
        images: the adversarial images of the first attacks of an audit, as text; None of others.
        smallest: the search for the smallest budgets that they come from, or None.
        exact: of a black box the figures that one who sees all distances takes of the same images, else None.
    """

    result: AttackResult
    size: Tensor
    reached: Tensor | None
    images: tuple[str | None, ...]
    smallest: SmallestBudgets | None = None
    exact: AttackResult | None = None

    def __len__(self) -> int:
        return len(self.size)

    def to_json(self) -> JsonObject:
        """The object that `from_json` reads."""
        return {
            "result": _encoded(self.result),
            "size": _encoded(self.size),
            "reached": _encoded(self.reached),
            "images": list(self.images),
            "smallest": _encoded(self.smallest),
            "exact": _encoded(self.exact),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Attacks":
        """The attacks of an object that `to_json` made."""
        read = {name: _decoded(value) for name, value in values.items()}
        result, smallest, exact = read["result"], read["smallest"], read["exact"]
        if result["log"] is not None:
            result["log"] = QueryLog(**result["log"])
        return cls(
            result=AttackResult(**result),
            size=read["size"],
            reached=read["reached"],
            images=tuple(read["images"]),
            smallest=None if smallest is None else SmallestBudgets(**smallest),
            exact=None if exact is None else AttackResult(**exact),
        )

    @classmethod
    def concat(cls, parts: Sequence["Attacks"]) -> "Attacks":
        """The attacks of several units of one measurement, in their order."""
        searches = [part.smallest for part in parts if part.smallest is not None]
        reached = [part.reached for part in parts if part.reached is not None]
        exact = [part.exact for part in parts if part.exact is not None]
        return cls(
            result=AttackResult.concat([part.result for part in parts]),
            size=torch.cat([part.size for part in parts]),
            reached=torch.cat(reached) if reached else None,
            images=tuple(image for part in parts for image in part.images),
            smallest=SmallestBudgets.concat(searches) if searches else None,
            exact=AttackResult.concat(exact) if exact else None,
        )


# -- images ----------------------------------------------------------------------------------------


def image_text(image: Tensor) -> str:
    """An image as text, every pixel exact; an 8-bit image in 8 bits."""
    levels = torch.round(image * LEVELS)
    kind, pixels = str(image.dtype).removeprefix("torch."), image
    if torch.equal(levels / LEVELS, image):
        kind, pixels = "uint8", levels.to(torch.uint8)
    data = zlib.compress(pixels.detach().cpu().contiguous().numpy().tobytes())
    return f"{kind}:{b64encode(data).decode()}"


def image_of(text: str, like: Tensor) -> Tensor:
    """The image of a text, in the type and shape of another."""
    kind, _, data = text.partition(":")
    pixels = np.frombuffer(zlib.decompress(b64decode(data)), dtype=kind).copy()
    image = torch.from_numpy(pixels).to(like.dtype).view(like.shape)
    return image / LEVELS if kind == "uint8" else image


# -- values ----------------------------------------------------------------------------------------


def _encoded(value: Any) -> Any:
    """A value of a result as JSON knows it."""
    match value:
        case Tensor():
            plain = value.detach().cpu()
            kind = str(plain.dtype).removeprefix("torch.")
            if plain.numel() <= PACKED:
                return {"dtype": kind, "shape": list(plain.shape), "values": plain.flatten().tolist()}
            data = b64encode(zlib.compress(plain.contiguous().numpy().tobytes())).decode()
            return {"dtype": kind, "shape": list(plain.shape), "packed": data}
        case AttackResult() | SmallestBudgets() | QueryLog():
            names = [each.name for each in fields(value) if each.name not in UNTOLD]
            return {name: _encoded(getattr(value, name)) for name in names}
        case Mapping():
            return {key: _encoded(item) for key, item in value.items()}
        case tuple() | list():
            return [_encoded(item) for item in value]
        case _:
            return value


def _decoded(value: Any) -> Any:
    """The value of what `_encoded` made; lists are tuples."""
    match value:
        case {"dtype": str(kind), "shape": list(shape), **rest}:
            if "packed" in rest:
                data = np.frombuffer(zlib.decompress(b64decode(str(rest["packed"]))), dtype=kind)
                return torch.from_numpy(data.copy()).view(shape)
            return torch.tensor(rest["values"], dtype=getattr(torch, kind)).view(shape)
        case dict():
            return {key: _decoded(item) for key, item in value.items()}
        case list():
            return tuple(_decoded(item) for item in value)
        case _:
            return value
