"""An attempt of the lab as a strip of pictures."""

from dataclasses import replace
from string import ascii_uppercase

import torch
from jaxtyping import Float
from torch import Tensor

from rankproof.audit.result import Strip, Tile
from rankproof.data.images import decode
from rankproof.service.attempt import Attempt
from rankproof.service.service import Service
from rankproof.threat import LEVELS


def strip_of(attempt: Attempt, service: Service) -> Strip:
    """The best of an attempt so far: the chosen before, as wanted, and after.

    Raises:
        RefusedError: one of the chosen is no longer in the gallery.
    """
    wish, best, visible = attempt.wish, attempt.best, service.limits.visible
    tiles = [
        Tile(image=_picture(service, name), rank=place, chosen=True, mark=letter)
        for place, (name, letter) in enumerate(zip(wish.wanted, ascii_uppercase, strict=False))
    ]

    def placed(ids: list[str]) -> tuple[Tile, ...]:
        places = [ids.index(name) if name in ids else visible for name in wish.wanted]
        moved = [
            replace(tile, rank=place, unseen=place == visible)
            for tile, place in zip(tiles, places, strict=True)
        ]
        return tuple(sorted(moved, key=lambda tile: tile.rank))

    return Strip(
        goal="oa",
        eps=wish.eps,
        original=attempt.picture / LEVELS,
        adversarial=best.picture / LEVELS,
        query=None,
        before=placed(attempt.before),
        after=placed(best.ids),
        wanted=f"The attacker wanted these {len(tiles)} results in another order.",
        order=tuple(tiles),
        visible=visible,
        budget=wish.budget,
    )


def _picture(service: Service, name: str) -> Float[Tensor, "c h w"]:
    """The picture of an item, in [0, 1]."""
    return torch.from_numpy(decode(service.image(name), f"item {name}", service.form)) / LEVELS
