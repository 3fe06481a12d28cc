"""Attack a gallery (white box) or an oracle (black box)."""

from dataclasses import replace
from pathlib import Path

from rankproof.attacks import black_box, white_box
from rankproof.attacks.batch import AttackBatch, checked_batch, make_batch
from rankproof.attacks.black_box import NO_OPTIONS, SearchOptions, gallery_of
from rankproof.attacks.result import AttackResult
from rankproof.attacks.summary import AttackSummary
from rankproof.checks import check_kind
from rankproof.errors import RankproofError
from rankproof.goals.base import Goal
from rankproof.methods.black_box.base import BlackBoxMethod
from rankproof.methods.black_box.subspace import Subspace
from rankproof.methods.defaults import automatic, published
from rankproof.methods.white_box.base import Method
from rankproof.methods.white_box.universal import Universal
from rankproof.modes import ordinary_modes
from rankproof.oracles import Oracle
from rankproof.parameters import check_integer, check_parameters
from rankproof.ranking.gallery import GALLERY, Gallery
from rankproof.threat import Threat
from rankproof.types import ImagesLike, IntegersLike, ProgressCallback, no_progress

__all__ = ["AttackBatch", "AttackResult", "AttackSummary", "SearchOptions", "attack", "attack_batch"]


@ordinary_modes()
def attack(
    target: Gallery | Oracle,
    images: ImagesLike,
    goal: Goal,
    threat: Threat,
    *,
    method: Method | BlackBoxMethod | None = None,
    budget: int | None = None,
    subspace: Subspace | None = None,
    seed: int = 0,
    gallery_ids: IntegersLike | None = None,
    targets: IntegersLike | None = None,
    preserved: IntegersLike | None = None,
    queries: ImagesLike | None = None,
    exclude_self: bool = False,
    search_folder: str | Path | None = None,
    progress: ProgressCallback = no_progress,
) -> AttackResult:
    """Attack each image once and measure what became of the ranking.

    Args:
        target: what is attacked. A gallery gives the attacker everything (white box), an `Oracle` only the
            places of some items among the first N (black box).
        images: (b, c, h, w) images to perturb, in [0, 1] or as 8-bit integers: candidates for CA, queries for
            QA and OA.
        goal: what is wanted, such as `QueryRaise(m=4) + 1.0 * Preserve(g=5)`.
        threat: what may be changed.
        method: how to search; None is the published PGD with the steps of the goal's own paper for a gallery,
            and our own search for an oracle; a shared threat has a method of its own, `Universal`.
        budget: Q, queries of each black-box attack, the clean image included; None is 1,000.
        subspace: where a black-box method searches; None is the method's own rule.
        seed: all choices and random numbers come from it; attack i depends on nothing else in the batch.
        gallery_ids: (b,) positions of the images' own clean copies; None: they are not in the gallery.
            Positions are integers, as a tensor, an array or lists.
        targets: (b, m) explicitly chosen items, not the published choice; for `Reorder` in wanted order.
        preserved: (b, g) explicitly chosen items to keep in place.
        queries: (w, d) embeddings that CA+ and CA- take as their queries instead of gallery items, for every
            image, such as `text_queries`; no item is chosen then, and `targets` of the result is (b, 0).
        exclude_self: whether the own clean copy is left out of every ranking; published figures keep it.
        search_folder: where a black-box search is saved while it runs: the same call resumes it.
        progress: called with evaluations or queries done, and how many there are in all.
    Returns:
        adversarial images and figures before and after, one per image.
    Raises:
        RankproofError: an argument does not fit; the message names it.
    """
    batch = make_batch(
        target if isinstance(target, Gallery) else gallery_of(target),
        images,
        gallery_ids=gallery_ids,
        targets=targets,
        preserved=preserved,
        queries=queries,
        exclude_self=exclude_self,
    )
    folder = None if search_folder is None else Path(search_folder)
    options = SearchOptions(budget=budget, subspace=subspace, folder=folder)
    return attack_batch(
        target, batch, goal, threat, method=method, search=options, seed=seed, progress=progress
    )


@ordinary_modes()
def attack_batch(
    target: Gallery | Oracle,
    batch: AttackBatch,
    goal: Goal,
    threat: Threat,
    *,
    method: Method | BlackBoxMethod | None = None,
    search: SearchOptions = NO_OPTIONS,
    seed: int = 0,
    progress: ProgressCallback = no_progress,
) -> AttackResult:
    """Attack every image of a batch; the other arguments are those of `attack`.

    Args:
        search: budget, subspace and folder of a black-box search; a white box has none.
    """
    for what, value, kind, such_as in (
        ("target", target, Gallery | Oracle, GALLERY),
        ("goal", goal, Goal, "QueryRaise(m=4)"),
        ("threat", threat, Threat, "Threat(8 / 255)"),
        ("method", method, Method | BlackBoxMethod | None, "PGD()"),
    ):
        check_kind(what, value, kind, such_as)
        check_parameters(value)
    seed = check_integer("seed", seed)
    batch = checked_batch(batch, len(target) if isinstance(target, Gallery) else None)
    gallery = target if isinstance(target, Gallery) else gallery_of(target)
    if gallery is not None:
        gallery.ranker.begin(batch.images, seed)
        gallery.ranker.graph_holds(batch.images)  # or else it is searched on the encoder itself
    if isinstance(target, Gallery):
        descent = method or (Universal() if threat.shared else published(goal.metric))
        if isinstance(descent, BlackBoxMethod):
            raise RankproofError(f"{descent.name} asks an oracle, such as LocalOracle(gallery, visible=50)")
        search.check_unused()
        result = white_box.run(target, batch, goal, threat, descent, seed=seed, progress=progress)
        return replace(result, examination=target.ranker.examination)
    chosen = method or automatic()
    if not isinstance(chosen, BlackBoxMethod):
        raise RankproofError(
            f"{chosen.name} needs gradients, which an oracle does not give; leave method= out"
        )
    result = black_box.run(target, batch, goal, threat, chosen, search=search, seed=seed, progress=progress)
    return replace(result, examination=None if gallery is None else gallery.ranker.examination)
