"""What adversarial images do elsewhere: in another model's ranking, or on images they were not made from."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.goals.base import Bound, Goal, Scene, Sum
from rankproof.goals.names import goal_name
from rankproof.ranking.gallery import Gallery
from rankproof.result import AttackResult
from rankproof.threat import Threat
from rankproof.types import Ids, Images, Kept


@dataclass(frozen=True)
class Chosen:
    """What a goal picks for some images.

    Args:
        targets: (b, m) chosen items.
        preserved: (b, g) items to keep in place.
    """

    targets: Ids
    preserved: Kept


def choose(
    gallery: Gallery,
    images: Images,
    goal: Goal | Sum,
    *,
    index: Tensor | None = None,
    seed: int = 0,
    own_copy: str = "keep",
) -> Chosen:
    """The items a goal would choose in a gallery, to attack them through another model.

    Args:
        images: (b, c, h, w) clean images in [0, 1].
        index: (b,) gallery positions of their own clean copies, or None.
        seed, own_copy: as for `rankproof.attack`.
    """
    empty = torch.empty(len(images), 0, dtype=torch.int64)
    bound, _ = _bound(gallery, images, goal, index, seed, own_copy, Chosen(empty, empty))
    return Chosen(bound.targets.cpu(), bound.preserved.cpu())


def transfer(
    result: AttackResult, gallery: Gallery, goal: Goal | Sum, *, own_copy: str = "keep"
) -> AttackResult:
    """The same images and items, ranked by another model with its own embeddings (ECCV section 5.1).

    Args:
        result: an attack on one model.
        gallery: the other model's, with the same items in the same places.
        goal: what was attacked.
        own_copy: as for `rankproof.attack`.
    Returns:
        the result with the figures of the other ranking.
    Raises:
        RankproofError: the galleries differ in size, or the goal is another one.
    """
    if len(gallery) != result.gallery_size:
        raise RankproofError(
            f"transfer: the gallery has {len(gallery)} items, the attacked one had {result.gallery_size}; "
            "both models must rank the same items"
        )
    return _ranked(result, gallery, goal, own_copy, f"made for another model ({result.method})")


def on_unseen(
    result: AttackResult,
    gallery: Gallery,
    goal: Goal | Sum,
    images: Images,
    *,
    index: Tensor | None = None,
    own_copy: str = "keep",
) -> AttackResult:
    """A shared perturbation on images it was not made from (ECCV section 5.2).

    Args:
        result: a universal attack, all of whose images had the same chosen items.
        images: (b, c, h, w) other clean images in [0, 1].
        index: (b,) gallery positions of their own clean copies, or None.
    Returns:
        the figures of the other images with the same perturbation and the same chosen items.
    Raises:
        RankproofError: the attack was not universal.
    """
    if result.perturbation is None:
        raise RankproofError("on_unseen needs a universal attack: attack with Threat(eps, shared=True)")
    first = result.targets[:1]
    if not bool((result.targets == first).all()):
        raise RankproofError("on_unseen: the seen images had different targets; give all of them the same")
    count = len(images)
    threat = Threat(result.eps, shared=True)
    images = gallery.ranker.as_input(images)
    other = replace(
        result,
        original=images,
        adversarial=threat.apply(result.perturbation.to(images), images),
        index=index,
        targets=first.expand(count, -1),
        preserved=first.new_empty(count, 0),
        silent=torch.zeros(count, dtype=torch.bool),
    )
    return _ranked(other, gallery, goal, own_copy, "images the perturbation was not made from")


def _ranked(
    result: AttackResult, gallery: Gallery, goal: Goal | Sum, own_copy: str, note: str
) -> AttackResult:
    """The figures of a result's images in a gallery."""
    if goal_name(goal) != result.goal:
        raise RankproofError(f"the attack was {result.goal}, not {goal_name(goal)}; give the same goal")
    chosen = Chosen(result.targets, result.preserved)
    bound, clean = _bound(gallery, result.original, goal, result.index, result.seed, own_copy, chosen)
    with torch.no_grad():
        before, after = bound.verdict(clean), bound.verdict(gallery.ranker.embed_all(result.adversarial))
    figures = [{name: values.cpu() for name, values in part.items()} for part in (before, after)]
    return replace(result, before=figures[0], after=figures[1], notes=(*result.notes, note), seconds=0.0)


def _bound(
    gallery: Gallery,
    images: Images,
    goal: Goal | Sum,
    index: Tensor | None,
    seed: int,
    own_copy: str,
    chosen: Chosen,
) -> tuple[Bound, Tensor]:
    """A goal in a gallery's scene, and the clean embeddings (b, d); empty columns are chosen as published."""
    device = gallery.embeddings.device
    clean = gallery.ranker.embed_all(images)
    place = None if index is None else index.to(device)
    keys = (torch.arange(len(images)) if index is None else index).tolist()
    targets, preserved = (
        ids.to(device) if ids.shape[1] else None for ids in (chosen.targets, chosen.preserved)
    )
    with torch.no_grad():
        scene = Scene(
            gallery=gallery,
            clean=clean,
            keys=keys,
            seed=seed,
            index=place,
            targets=targets,
            preserved=preserved,
            own_copy=own_copy,
        )
        return goal.bind(scene), clean
