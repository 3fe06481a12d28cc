"""Strips as plain values, and back: what a figure is drawn from."""

import base64
import io
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rankproof.audit.result import Strip, Tile
from rankproof.audit.strips import order_strip, strip_of
from rankproof.ranking import Gallery
from rankproof.result import AttackResult

# The most pixels along a side of the attacked picture and of a place in a ranking: as they are drawn.
SIDES = (224, 112)
MARKS = ("rank", "label", "chosen", "attacked", "mark", "unseen")


def attack_strips(result: AttackResult, gallery: Gallery, classes: tuple[str, ...]) -> list[Strip]:
    """Every attack of a result as a strip."""
    found = [strip_of(_one(result, row), gallery, classes) for row in range(len(result))]
    return [strip for strip in found if strip is not None]


def best_order(
    result: AttackResult, gallery: Gallery, visible: int | None, budget: int | None
) -> Strip | None:
    """The attack of a result that came nearest to the wanted order."""
    row = int(result.headline().argmax())
    return order_strip(
        result.original[row],
        result.adversarial[row],
        result.targets[row],
        gallery,
        eps=result.eps,
        visible=visible,
        budget=budget,
    )


def as_values(strip: Strip) -> dict[str, Any]:
    """A strip as it is kept: pictures as PNG in base64, no larger than they are drawn."""
    return {
        **{name: getattr(strip, name) for name in ("goal", "eps", "wanted", "visible", "budget")},
        "original": _packed(strip.original, SIDES[0]),
        "adversarial": _packed(strip.adversarial, SIDES[0]),
        "query": None if strip.query is None else _packed(strip.query, SIDES[0]),
        **{
            name: [
                {"image": _packed(tile.image, SIDES[1]), **{mark: getattr(tile, mark) for mark in MARKS}}
                for tile in getattr(strip, name)
            ]
            for name in ("before", "after", "order")
        },
    }


def from_values(values: dict[str, Any]) -> Strip:
    """The strip that was kept."""
    pictures = {
        name: None if values[name] is None else _unpacked(values[name])
        for name in ("original", "adversarial", "query")
    }
    rows = {
        name: tuple(Tile(**{**tile, "image": _unpacked(tile["image"])}) for tile in values[name])
        for name in ("before", "after", "order")
    }
    return Strip(**{**values, **pictures, **rows})


def _one(result: AttackResult, row: int) -> AttackResult:
    """One attack of a result."""
    part = slice(row, row + 1)
    return replace(
        result,
        original=result.original[part],
        adversarial=result.adversarial[part],
        targets=result.targets[part],
        preserved=result.preserved[part],
        before={name: values[part] for name, values in result.before.items()},
        after={name: values[part] for name, values in result.after.items()},
    )


def _packed(picture: Tensor, side: int) -> str:
    """A picture (c, h, w) in [0, 1] as text."""
    pixels = np.rint(255 * np.moveaxis(picture.float().cpu().numpy(), 0, -1)).astype(np.uint8)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    image.thumbnail((side, side))
    stream = io.BytesIO()
    image.save(stream, format="png")
    return base64.b64encode(stream.getvalue()).decode()


def _unpacked(text: str) -> Tensor:
    """The picture (c, h, w) in [0, 1]."""
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))), dtype=np.float32) / 255
    return torch.from_numpy(np.atleast_3d(pixels).transpose(2, 0, 1).copy())
