"""Transfer: adversarial images ranked by another model, and a shared perturbation on other images."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rankproof.attacks.batch import AttackBatch, count_foreign, foreign_text, make_batch
from rankproof.attacks.result import AttackResult
from rankproof.checks import check_ids, check_images, check_kind
from rankproof.errors import RankproofError
from rankproof.goals.base import BoundGoal, Goal
from rankproof.modes import ordinary_modes
from rankproof.parameters import check_flag, check_integer
from rankproof.ranking.gallery import GALLERY, Gallery
from rankproof.threat import Threat
from rankproof.types import Ids, ImagesLike, IntegersLike, Kept


@dataclass(frozen=True)
class Chosen:
    """What a goal picks for some images.

    Args:
        targets: (b, m) chosen items.
        preserved: (b, g) items to keep in place.
    """

    targets: Ids
    preserved: Kept


@ordinary_modes()
def choose(
    gallery: Gallery,
    images: ImagesLike,
    goal: Goal,
    *,
    gallery_ids: IntegersLike | None = None,
    seed: int = 0,
    exclude_self: bool = False,
) -> Chosen:
    """The items a goal would choose in a gallery, to attack them through another model.

    Args:
        images: (b, c, h, w) clean images in [0, 1].
        gallery_ids: (b,) gallery positions of their own clean copies, or None.
        seed, exclude_self: as for `rankproof.attack`.
    """
    _check_kinds(gallery, goal)
    batch = make_batch(gallery, images, gallery_ids=gallery_ids, exclude_self=exclude_self)
    bound, _ = _bound(gallery, batch, goal, check_integer("seed", seed))
    return Chosen(bound.targets.cpu(), bound.preserved.cpu())


@ordinary_modes()
def transfer(
    result: AttackResult, gallery: Gallery, goal: Goal, *, exclude_self: bool = False
) -> AttackResult:
    """The same images and items, ranked by another model with its own embeddings (ECCV section 5.1).

    Args:
        result: an attack on one model.
        gallery: the other model's, with the same items in the same places.
        goal: what was attacked.
        exclude_self: as for `rankproof.attack`.
    Returns:
        the result with the figures of the other ranking.
    Raises:
        RankproofError: the galleries differ in size, or the goal is another one.
    """
    _check_kinds(gallery, goal)
    if len(gallery) != result.gallery_size:
        raise RankproofError(
            f"transfer: the gallery has {len(gallery)} items, the attacked one had {result.gallery_size}; "
            "both models must rank the same items"
        )
    return _ranked(result, gallery, goal, exclude_self, f"made for another model ({result.method})")


@ordinary_modes()
def on_unseen(
    result: AttackResult,
    gallery: Gallery,
    goal: Goal,
    images: ImagesLike,
    *,
    gallery_ids: IntegersLike | None = None,
    exclude_self: bool = False,
) -> AttackResult:
    """A shared perturbation on images it was not made from (ECCV section 5.2).

    Args:
        result: a universal attack, all of whose images had the same chosen items.
        images: (b, c, h, w) other clean images in [0, 1].
        gallery_ids: (b,) gallery positions of their own clean copies, or None.
        exclude_self: as for `rankproof.attack`.
    Returns:
        the figures of the other images with the same perturbation and the same chosen items.
    Raises:
        RankproofError: the attack was not universal.
    """
    _check_kinds(gallery, goal)
    if result.perturbation is None:
        raise RankproofError("on_unseen needs a universal attack: attack with Threat(eps, shared=True)")
    first = result.targets[:1]
    if not bool((result.targets == first).all()):
        raise RankproofError("on_unseen: the seen images had different targets; give all of them the same")
    threat = Threat(result.eps, shared=True)
    images = gallery.ranker.as_input(check_images("images", images))
    count = len(images)
    if gallery_ids is not None:
        gallery_ids = check_ids("gallery_ids", gallery_ids, (count,), len(gallery))
    other = replace(
        result,
        original=images,
        adversarial=threat.apply(result.perturbation.to(images), images),
        gallery_ids=gallery_ids,
        targets=first.expand(count, -1),
        preserved=first.new_empty(count, 0),
        zero_gradient=torch.zeros(count, dtype=torch.bool),
    )
    return _ranked(other, gallery, goal, exclude_self, "images the perturbation was not made from")


def _check_kinds(gallery: Gallery, goal: Goal) -> None:
    check_kind("gallery", gallery, Gallery, GALLERY)
    check_kind("goal", goal, Goal, "QueryRaise(m=4)")


def _ranked(
    result: AttackResult, gallery: Gallery, goal: Goal, exclude_self: bool, note: str
) -> AttackResult:
    """The figures of a result's images in a gallery."""
    check_flag("exclude_self", exclude_self)
    if goal.spec.name != result.goal:
        raise RankproofError(f"the attack was {result.goal}, not {goal.spec.name}; give the same goal")
    device = gallery.embeddings.device
    ids = None if result.gallery_ids is None else result.gallery_ids.to(device)
    batch = AttackBatch(
        images=result.original,
        rng_keys=torch.arange(len(result)) if ids is None else ids,
        gallery_ids=ids,
        targets=_explicit(result.targets, device),
        preserved=_explicit(result.preserved, device),
        exclude_self=exclude_self,
    )
    bound, clean = _bound(gallery, batch, goal, result.seed)
    ranker = gallery.ranker
    with torch.no_grad():
        before, after = bound.metrics(clean), bound.metrics(ranker.embed_all(result.adversarial))
        unchanged = bound.metrics(ranker.embed_all(result.original)) if ranker.random else {}
    foreign = count_foreign(gallery, ids, clean)
    about = (foreign_text(foreign, len(result)),) if foreign else ()
    figures = [{name: values.cpu() for name, values in part.items()} for part in (before, after, unchanged)]
    return replace(
        result,
        before=figures[0],
        after=figures[1],
        unchanged=figures[2],
        notes=(*result.notes, *ranker.notes, note, *about),
        seconds=0.0,
        examination=ranker.examination,
    )


def _explicit(ids: Ids, device: torch.device) -> Ids | None:
    """The items as explicit ones; None where there are no columns."""
    return ids.to(device) if ids.shape[1] else None


def _bound(gallery: Gallery, batch: AttackBatch, goal: Goal, seed: int) -> tuple[BoundGoal, Tensor]:
    """A goal bound to a batch, and the clean embeddings (b, d)."""
    gallery.ranker.begin(batch.images, seed)
    clean = gallery.ranker.embed_all(batch.images)
    with torch.no_grad():
        return batch.bind(goal, gallery, clean, seed), clean
