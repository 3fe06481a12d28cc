"""One attack in pictures."""

from dataclasses import replace
from string import ascii_uppercase

import torch
from torch import Tensor

from rankproof.attacks.result import AttackResult
from rankproof.audit.result import Strip, Tile
from rankproof.ranking.gallery import Gallery
from rankproof.ranking.metrics import short_range_tau

TOP = 6  # places shown from the first on
AROUND = 1  # places shown on either side of a chosen item


def strip_of(result: AttackResult, gallery: Gallery, classes: tuple[str, ...] = ()) -> Strip | None:
    """The first attack of a result as a strip; None where the gallery's pictures are unknown."""
    if gallery.pictures is None or result.metric == "shift":
        return None
    row, picture = 0, _Pictures(gallery, classes)
    original, adversarial = result.original[row].float().cpu(), result.adversarial[row].float().cpu()
    chosen = result.targets[row, :1] if result.goal.startswith("ca") else result.targets[row]
    with torch.no_grad(), gallery.ranker.frozen():
        z = gallery.ranker.embed(torch.stack([result.original[row], result.adversarial[row]]))
    if result.goal.startswith("ca"):
        query = int(chosen[0])
        distances = _distances(gallery, gallery.embeddings[query, None])  # (n,)
        # The verdict's own ranks: embedded again, a candidate may change places with its clean copy.
        own = [
            round(float(when["rank"][row, 0]) * len(gallery) / 100) for when in (result.before, result.after)
        ]
        rows = [
            _with_candidate(picture, distances, own[i], (original, adversarial)[i], i == 1) for i in (0, 1)
        ]
        seen: Tensor | None = picture.image(query)
    else:
        rows = [_ranking(picture, _distances(gallery, z[i, None]), chosen) for i in (0, 1)]
        seen = None
    return Strip(
        goal=result.goal,
        eps=result.eps,
        original=original,
        adversarial=adversarial,
        query=seen,
        before=rows[0],
        after=rows[1],
        wanted=_wanted(result),
    )


def order_strip(
    original: Tensor,
    adversarial: Tensor,
    targets: Tensor,
    gallery: Gallery,
    *,
    eps: float,
    visible: int | None,
    budget: int | None,
) -> Strip | None:
    """A black-box order attack: the chosen results before, as wanted and after; None without pictures.

    Args:
        original, adversarial: (c, h, w) in [0, 1].
        targets: (k,) the chosen in wanted order.
    """
    if gallery.pictures is None:
        return None
    pictures, size = _Pictures(gallery, ()), len(gallery)
    letters = "\N{NO-BREAK SPACE}".join(ascii_uppercase[: len(targets)])
    with torch.no_grad(), gallery.ranker.frozen():
        both = gallery.ranker.as_input(torch.stack([original, adversarial]))
        places = gallery.rank_of(gallery.ranker.embed(both), targets.expand(2, -1), ties="order")

    def tiles(ranks: list[int]) -> tuple[Tile, ...]:
        found = sorted(zip(ranks, range(len(ranks)), strict=True))
        return tuple(
            replace(
                pictures.tile(int(targets[number]), rank, True),
                mark=ascii_uppercase[number],
                unseen=rank >= (size if visible is None else visible),
            )
            for rank, number in found
        )

    return Strip(
        goal="oa",
        eps=eps,
        original=original.float().cpu(),
        adversarial=adversarial.float().cpu(),
        query=None,
        before=tiles(places[0].tolist()),
        after=tiles(places[1].tolist()),
        wanted=f"The attacker wanted these {len(targets)} results in the order {letters}, drawn at random. "
        f"tau_S went from {_tau(places[0], visible)} to {_tau(places[1], visible)}.",
        order=tiles(list(range(len(targets)))),
        visible=visible,
        budget=budget,
    )


def _tau(places: Tensor, visible: int | None) -> str:
    return f"{float(short_range_tau(places, visible)):.2f}".replace("-", "−")


def _distances(gallery: Gallery, z: Tensor) -> Tensor:
    """The distances (n,) of one embedding (1, d) in double precision, as the verdict is taken."""
    return torch.cat([distances[0] for _, _, distances in gallery.blocks(z)])


class _Pictures:
    """Gallery items as tiles."""

    def __init__(self, gallery: Gallery, classes: tuple[str, ...]) -> None:
        self.gallery, self.classes = gallery, classes

    def image(self, position: int) -> Tensor:
        assert self.gallery.pictures is not None
        picture = self.gallery.pictures[position].cpu()
        return picture.float() / 255 if picture.dtype == torch.uint8 else picture.float()

    def tile(self, position: int, rank: int, chosen: bool) -> Tile:
        label = None
        if self.gallery.labels is not None and self.classes:
            label = self.classes[int(self.gallery.labels[position])]
        return Tile(image=self.image(position), rank=rank, label=label, chosen=chosen)


def _ranking(pictures: _Pictures, distances: Tensor, chosen: Tensor) -> tuple[Tile, ...]:
    """The first places of a ranking and the chosen items with their neighbours."""
    order = distances.argsort(stable=True)
    places = torch.empty_like(order)
    places[order] = torch.arange(len(order), device=order.device)
    wanted = {int(item) for item in chosen}
    shown = _window([int(places[item]) for item in wanted], len(order))
    return tuple(pictures.tile(int(order[rank]), rank, int(order[rank]) in wanted) for rank in shown)


def _with_candidate(
    pictures: _Pictures, distances: Tensor, rank: int, image: Tensor, attacked: bool
) -> tuple[Tile, ...]:
    """The ranking of a query with the candidate put in at its place; its clean copy stays."""
    order = distances.argsort(stable=True)
    tiles = []
    for place in _window([rank], len(order) + 1):
        if place == rank:
            tiles.append(Tile(image=image, rank=rank, chosen=True, attacked=attacked))
        else:
            tiles.append(pictures.tile(int(order[place - (place > rank)]), place, False))
    return tuple(tiles)


def _window(places: list[int], size: int) -> list[int]:
    around = {place + step for place in places for step in range(-AROUND, AROUND + 1)}
    return sorted(place for place in around | set(range(TOP)) if 0 <= place < size)


def _wanted(result: AttackResult) -> str:
    """What the attacker wanted, in one sentence."""
    if result.metric == "tau":
        return "The attacker wanted the marked results in another order, drawn at random."
    moved = "rise to the top" if result.goal.removesuffix("-distance").endswith("+") else "sink to the end"
    if result.goal.startswith("ca"):
        return f"The attacker changed the marked item itself and wanted it to {moved} for this query."
    kept = " while the other top results stay" if result.goal.startswith("sp-") else ""
    return f"The attacker changed the query and wanted the marked item to {moved}{kept}."
