"""One attack in images, as plain values: what was changed, and the ranking before and after it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from string import ascii_uppercase

import torch
from jaxtyping import Float
from torch import Tensor

from rankproof.attacks.result import AttackResult
from rankproof.goals.base import GoalSpec
from rankproof.goals.order import Reorder
from rankproof.goals.registry import spec
from rankproof.ranking.gallery import Gallery
from rankproof.ranking.metrics import short_range_tau
from rankproof.report.format import minus

TOP = 6  # places shown from the first on
AROUND = 1  # places shown on either side of a chosen item
MOVES = {"raise": "rise to the top", "lower": "sink to the end"}


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One image of a ranking: the item, its rank, and whether the attacker chose it.

    Args:
        image: (c, h, w) in [0, 1].
        rank: its place, counted from 0.
        label: its class.
        chosen: whether the attacker chose it.
        attacked: whether it is the adversarial image itself.
        mark: a letter that tells it from the other chosen ones; A is the one wanted first.
        unseen: whether it stands behind the visible results.
    """

    image: Float[Tensor, "c h w"]
    rank: int
    label: str | None = None
    chosen: bool = False
    attacked: bool = False
    mark: str | None = None
    unseen: bool = False


@dataclass(frozen=True, kw_only=True)
class Strip:
    """One attack in images, in the manner of the papers' figures.

    Args:
        goal: the goal's name, such as "qa+".
        eps: perturbation budget in [0, 1].
        original, adversarial: (c, h, w) in [0, 1].
        query: the query whose ranking is shown, which may have another size; None where it is the attacked
            image itself.
        before, after: the ranking as shown before and after the attack, nearest first; a gap in the
            ranks is a cut.
        wanted: one sentence on what the attacker wanted.
        order: the ranking the attacker wanted, shown between before and after; none but for a black box.
        visible: N of a black-box attack; None in a white box.
        budget: Q of a black-box attack; None in a white box.
        role: which of the attacks it is: "easiest", "median" or "hardest" by the smallest budget; else empty.
    """

    goal: str
    eps: float
    original: Float[Tensor, "c h w"]
    adversarial: Float[Tensor, "c h w"]
    query: Float[Tensor, "c hq wq"] | None
    before: tuple[Tile, ...]
    after: tuple[Tile, ...]
    wanted: str
    order: tuple[Tile, ...] = ()
    visible: int | None = None
    budget: int | None = None
    role: str = ""

    @property
    def title(self) -> str:
        """The goal as pages print it."""
        return spec(self.goal).title

    @property
    def unchanged(self) -> bool:
        """Whether no change did better than none."""
        return bool((self.original == self.adversarial).all())


def strip_of(result: AttackResult, gallery: Gallery, classes: tuple[str, ...] = ()) -> Strip | None:
    """The first attack of a result as a strip; None without the gallery's images or without chosen items."""
    if gallery.images is None or result.targets.shape[1] == 0:
        return None
    goal, items = spec(result.goal), _Items(gallery, classes)
    original, adversarial = result.original[0], result.adversarial[0]
    ends = original.float().cpu(), adversarial.float().cpu()
    query: Tensor | None = None
    if goal.family == "candidate":
        item = int(result.targets[0, 0])
        query = items.image(item)
        order = _order(gallery, gallery.embeddings[item, None])
        # The ranks of the result itself: embedded again, a candidate may change places with its clean copy.
        ranks = [
            round(float(figures["rank"][0, 0]) * len(gallery) / 100)
            for figures in (result.before, result.after)
        ]
        name = None if result.gallery_ids is None else items.label(int(result.gallery_ids[0]))
        before, after = (
            items.with_candidate(order, ranks[i], ends[i], name, attacked=i == 1) for i in (0, 1)
        )
    else:
        with torch.no_grad(), gallery.ranker.frozen():
            z = gallery.ranker.embed(torch.stack([original, adversarial]))
        before, after = (items.ranking(_order(gallery, z[i, None]), result.targets[0]) for i in (0, 1))
    return Strip(
        goal=result.goal,
        eps=result.eps,
        original=ends[0],
        adversarial=ends[1],
        query=query,
        before=before,
        after=after,
        wanted=_wanted(goal, result),
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
    """A black-box order attack: the chosen results before, as wanted and after; None without images.

    Args:
        original, adversarial: (c, h, w) in [0, 1].
        targets: (k,) the chosen in wanted order.
    """
    if gallery.images is None:
        return None
    items, limit = _Items(gallery, ()), len(gallery) if visible is None else visible
    letters = "\N{NO-BREAK SPACE}".join(ascii_uppercase[: len(targets)])
    with torch.no_grad(), gallery.ranker.frozen():
        both = gallery.ranker.as_input(torch.stack([original, adversarial]))
        places = gallery.rank_of(gallery.ranker.embed(both), targets.expand(2, -1), ties="order")
    before, after = (minus(f"{float(short_range_tau(row, visible)):.2f}") for row in places)
    return Strip(
        goal=Reorder.SPEC.name,
        eps=eps,
        original=original.float().cpu(),
        adversarial=adversarial.float().cpu(),
        query=None,
        before=items.marked(targets, places[0].tolist(), limit),
        after=items.marked(targets, places[1].tolist(), limit),
        wanted=f"The attacker wanted these {len(targets)} results in the order {letters}, drawn at random. "
        f"tau_S went from {before} to {after}.",
        order=items.marked(targets, range(len(targets)), limit),
        visible=visible,
        budget=budget,
    )


class _Items:
    """Gallery items as tiles."""

    def __init__(self, gallery: Gallery, classes: tuple[str, ...]) -> None:
        self.gallery, self.classes = gallery, classes

    def image(self, position: int) -> Tensor:
        """The image of an item, in [0, 1]."""
        assert self.gallery.images is not None
        image = self.gallery.images[position].cpu()
        return image.float() / 255 if image.dtype == torch.uint8 else image.float()

    def label(self, position: int) -> str | None:
        """The name of an item's class, None where it is unknown."""
        if self.gallery.labels is None or not self.classes:
            return None
        return self.classes[int(self.gallery.labels[position])]

    def tile(self, position: int, rank: int, *, chosen: bool) -> Tile:
        """An item at its rank."""
        return Tile(image=self.image(position), rank=rank, label=self.label(position), chosen=chosen)

    def ranking(self, order: Tensor, chosen: Tensor) -> tuple[Tile, ...]:
        """The first places of a ranking (n,) and the chosen items with their neighbours."""
        places = torch.empty_like(order)
        places[order] = torch.arange(len(order), device=order.device)
        wanted = {int(item) for item in chosen}
        shown = _window([int(places[item]) for item in wanted], len(order))
        return tuple(self.tile(int(order[rank]), rank, chosen=int(order[rank]) in wanted) for rank in shown)

    def with_candidate(
        self, order: Tensor, rank: int, image: Tensor, label: str | None, *, attacked: bool
    ) -> tuple[Tile, ...]:
        """The ranking (n,) of a query with the candidate put in at its rank; its clean copy stays."""
        tiles = []
        for place in _window([rank], len(order) + 1):
            if place == rank:
                tiles.append(Tile(image=image, rank=rank, label=label, chosen=True, attacked=attacked))
            else:
                tiles.append(self.tile(int(order[place - (place > rank)]), place, chosen=False))
        return tuple(tiles)

    def marked(self, targets: Tensor, ranks: Sequence[int], limit: int) -> tuple[Tile, ...]:
        """The chosen items (k,) with their letters, by rank; from `limit` on they are out of sight."""
        return tuple(
            replace(
                self.tile(int(targets[number]), rank, chosen=True),
                mark=ascii_uppercase[number],
                unseen=rank >= limit,
            )
            for rank, number in sorted(zip(ranks, range(len(ranks)), strict=True))
        )


def _order(gallery: Gallery, z: Tensor) -> Tensor:
    """(n,) all items, the nearest to one embedding (1, d) first, as the figures are computed."""
    return gallery.search(z, len(gallery))[0]


def _window(places: list[int], size: int) -> list[int]:
    around = {place + step for place in places for step in range(-AROUND, AROUND + 1)}
    return sorted(place for place in around | set(range(TOP)) if 0 <= place < size)


def _wanted(goal: GoalSpec, result: AttackResult) -> str:
    """What the attacker wanted, in one sentence."""
    if goal.direction == "reorder":
        return "The attacker wanted the marked results in another order, drawn at random."
    if goal.direction not in MOVES:
        return goal.describe(result.parameters)
    move = MOVES[goal.direction]
    if goal.family == "candidate":
        return f"The attacker changed the marked item itself and wanted it to {move} for this query."
    preserved = " while the other top results stay" if goal.keeps else ""
    return f"The attacker changed the query and wanted the marked item to {move}{preserved}."
