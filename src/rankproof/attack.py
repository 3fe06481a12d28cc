"""The one verb: attack a target."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from rankproof.black_box import attack_oracle, gallery_of
from rankproof.errors import RankproofError
from rankproof.goals.base import Bound, Goal, Scene, Sum
from rankproof.goals.candidate import CandidateLower, CandidateRaise
from rankproof.goals.names import goal_knobs, goal_name
from rankproof.methods.base import Found, Method
from rankproof.methods.presets import automatic, published
from rankproof.methods.search import BlackBox
from rankproof.methods.space import Space
from rankproof.methods.universal import Universal
from rankproof.oracle import Oracle
from rankproof.randomness import uniforms
from rankproof.ranking.gallery import Gallery
from rankproof.result import AttackResult
from rankproof.threat import Threat, format_eps
from rankproof.types import Outcome

MEMORY = 250_000_000  # values a goal may hold at once for the attacks of one chunk
BUDGET = 1000  # queries of the published protocol
NUDGE = 1 / 255  # size of the random start where the clean image is stationary

Progress = Callable[[int, int], None]


def attack(
    target: Gallery | Oracle,
    images: Tensor,
    goal: Goal | Sum,
    threat: Threat,
    *,
    method: Method | BlackBox | None = None,
    budget: int | None = None,
    space: Space | None = None,
    seed: int = 0,
    index: Tensor | None = None,
    targets: Tensor | None = None,
    preserved: Tensor | None = None,
    queries: Tensor | None = None,
    own_copy: str = "keep",
    journal: Path | None = None,
    progress: Progress = lambda done, total: None,
) -> AttackResult:
    """Attack each image once and tell what became of the ranking.

    Args:
        target: what is attacked. A gallery gives the attacker everything (white box), an `Oracle` only the
            places of some items among the first N (black box).
        images: (b, c, h, w) images to perturb, in [0, 1]: candidates for CA, queries for QA and OA.
        goal: what is wanted, such as `QueryRaise(m=4) + 1.0 * Preserve(g=5)`.
        threat: what may be changed.
        method: how to search; None is the published PGD with the steps of the goal's own paper for a gallery,
            and our own search for an oracle; a shared threat has a method of its own, `Universal`.
        budget: Q, queries of each black-box attack, the clean image included; None is 1,000.
        space: where a black-box method searches; None is the method's own rule.
        seed: all choices and random numbers come from it; attack i depends on nothing else in the batch.
        index: (b,) gallery positions of the images' own clean copies; None: they are not in the gallery.
        targets: (b, m) explicitly chosen items, not the published choice; for `Reorder` in wanted order.
        preserved: (b, g) explicitly chosen items to keep in place.
        queries: (w, d) embeddings that CA+ and CA- take as their queries instead of gallery items, for every
            image, such as `text_queries`; no item is chosen then, and `targets` of the result is (b, 0).
        own_copy: "keep" the own clean copy in every ranking (as published) or "drop" it.
        journal: a folder that keeps a black-box attack in progress: the same call goes on where it stopped.
        progress: called with evaluations or queries done, and how many there are in all.
    Returns:
        adversarial images and figures before and after, one per image.
    Raises:
        RankproofError: an argument does not fit; the message names it.
    """
    gallery = target if isinstance(target, Gallery) else gallery_of(target)
    images = _checked_images(gallery, images)
    index = _checked_index(gallery, images, index, own_copy)
    for what, ids in (("targets", targets), ("preserved", preserved)):
        if ids is not None and (ids.dim() != 2 or len(ids) != len(images)):
            raise RankproofError(f"{what}: expected {len(images)} rows, one each, got {tuple(ids.shape)}")
    if queries is not None:
        queries = _checked_queries(target, goal, queries, targets)
    if not isinstance(target, Gallery):
        if preserved is not None:
            raise RankproofError("preserved: an order attack keeps nothing in place; leave it out")
        return attack_oracle(
            target,
            images,
            goal,
            threat,
            method=_black_box(method or automatic()),
            budget=BUDGET if budget is None else budget,
            space=space,
            seed=seed,
            index=index,
            targets=targets,
            own_copy=own_copy,
            progress=progress,
            journal=journal,
        )
    gallery, method = target, _white_box(method or (Universal() if threat.shared else published(goal.metric)))
    _check_shared(threat, method, targets)
    for name, value in (("budget", budget), ("space", space), ("journal", journal)):
        if value is not None:
            raise RankproofError(f"{name}: only a search in a black box has one; attack an oracle instead")
    count = _Counter(len(images) * method.passes(threat.eps), progress)
    job = _Job(gallery, goal, threat, method, seed, own_copy, count, queries)
    parts = [
        _attack_chunk(
            job, images[rows], rows, _rows(index, rows), _rows(targets, rows), _rows(preserved, rows)
        )
        for rows in torch.arange(len(images)).split(
            len(images) if threat.shared else chunk_rows(gallery, goal)
        )
    ]
    chosen, kept = torch.cat([part.targets for part in parts]), torch.cat([part.preserved for part in parts])
    explicit = targets is not None or preserved is not None
    return AttackResult(
        goal=goal_name(goal),
        metric=goal.metric,
        method=method.name,
        eps=threat.eps,
        knobs=goal_knobs(goal),
        steps=parts[0].found.passes,
        seed=seed,
        original=torch.cat([part.original for part in parts]),
        adversarial=torch.cat([part.found.images for part in parts]),
        index=index,
        targets=chosen,
        preserved=kept,
        before=_joined([part.before for part in parts]),
        after=_joined([part.after for part in parts]),
        silent=torch.cat([part.found.silent for part in parts]),
        gallery_size=len(gallery),
        device=gallery.ranker.device.type,
        seconds=sum(part.seconds for part in parts),
        perturbation=parts[0].found.perturbation,
        notes=_notes(
            goal, gallery, threat, parts[0].stationary, _overlap(chosen, kept) if explicit else 0, queries
        ),
    )


@dataclass(frozen=True)
class _Job:
    """What all chunks of an attack share."""

    gallery: Gallery
    goal: Goal | Sum
    threat: Threat
    method: Method
    seed: int
    own_copy: str
    count: "_Counter"
    queries: Tensor | None


@dataclass(frozen=True)
class _Part:
    """What came of one chunk."""

    original: Tensor
    found: Found
    targets: Tensor
    preserved: Tensor
    before: dict[str, Tensor]
    after: dict[str, Tensor]
    stationary: bool
    seconds: float


def _attack_chunk(
    job: _Job,
    images: Tensor,
    rows: Tensor,
    index: Tensor | None,
    targets: Tensor | None,
    preserved: Tensor | None,
) -> _Part:
    """Attack the images of one chunk, which stand at `rows` among all."""
    ranker = job.gallery.ranker
    keys = (rows if index is None else index).tolist()
    begin = time.perf_counter()
    original = job.threat.start(ranker.as_input(images))
    with ranker.frozen():
        with torch.no_grad():
            clean = ranker.embed(original)
            scene = Scene(
                gallery=job.gallery,
                clean=clean,
                keys=keys,
                seed=job.seed,
                index=index,
                targets=targets,
                preserved=preserved,
                queries=job.queries,
                own_copy=job.own_copy,
            )
            bound = job.goal.bind(scene)
        found = _search(job, bound, original, keys)
        found = _allowed(found, original, job.threat)
        seconds = time.perf_counter() - begin
        with torch.no_grad():
            before, after = bound.verdict(clean), bound.verdict(ranker.embed(found.images))
    return _Part(
        original=original,
        found=found,
        targets=bound.targets,
        preserved=bound.preserved,
        before=before,
        after=after,
        stationary=bound.stationary,
        seconds=seconds,
    )


def _search(job: _Job, bound: Bound, original: Tensor, keys: list[int]) -> Found:
    """Let the method look for better images; at eps = 0 there are none."""
    threat, embed = job.threat, job.gallery.ranker.embed

    def objective(images: Tensor, emphasis: Tensor | None = None) -> Outcome:
        outcome = bound.outcome(embed(images), emphasis)
        job.count.add(len(images))
        return outcome

    if threat.eps == 0:
        return Found(original, 0, torch.zeros(len(original), dtype=torch.bool, device=original.device))
    initial = original
    if bound.stationary:
        noise = uniforms(job.seed, keys, "start", original.shape[1:]).to(original)
        initial = threat.project(original + min(NUDGE, threat.eps) * noise, original)
    return job.method.run(original, initial, objective, threat, seed=job.seed, keys=keys)


def _allowed(found: Found, original: Tensor, threat: Threat) -> Found:
    """What a method found, checked against the threat set and brought into it exactly."""
    threat.check(found.images, original)
    if found.perturbation is None:
        return replace(found, images=threat.project(found.images, original))
    perturbation = threat.perturbation(found.perturbation)
    return replace(found, images=threat.apply(perturbation, original), perturbation=perturbation)


class _Counter:
    """Tells how many evaluations are done."""

    def __init__(self, total: int, progress: Progress) -> None:
        self.done, self.total, self.progress = 0, total, progress

    def add(self, count: int) -> None:
        self.done += count
        self.progress(self.done, self.total)


def _white_box(method: Method | BlackBox) -> Method:
    if isinstance(method, BlackBox):
        raise RankproofError(f"{method.name} asks an oracle, such as LocalOracle(gallery, visible=50)")
    return method


def _black_box(method: Method | BlackBox) -> BlackBox:
    if not isinstance(method, BlackBox):
        raise RankproofError(
            f"{method.name} needs gradients, which an oracle does not give; leave method= out"
        )
    return method


def _check_shared(threat: Threat, method: Method, targets: Tensor | None) -> None:
    """Raise unless a shared perturbation is sought by what can share, for items that all images share."""
    if threat.shared != isinstance(method, Universal):
        raise RankproofError(
            f"{method.name}: a threat with shared=True is sought by Universal, any other by any other method"
        )
    if threat.shared and (targets is None or not bool((targets == targets[:1]).all())):
        raise RankproofError(
            "targets: a shared perturbation is made for the same items in all images; give equal rows"
        )


def _checked_images(gallery: Gallery | None, images: Tensor) -> Tensor:
    if images.dim() != 4 or len(images) == 0:
        raise RankproofError(
            f"images: expected a batch (b, c, h, w) with at least one image, got {tuple(images.shape)}"
        )
    if images.dtype != torch.uint8:
        if not images.is_floating_point() or not bool(((images >= 0) & (images <= 1)).all()):
            raise RankproofError("images: values must be floats in [0, 1] (or 8-bit integers)")
        return images
    return images / 255 if gallery is None else gallery.ranker.as_input(images)


def _checked_index(
    gallery: Gallery | None, images: Tensor, index: Tensor | None, own_copy: str
) -> Tensor | None:
    if own_copy not in ("keep", "drop"):
        raise RankproofError(f"own_copy must be 'keep' or 'drop', got {own_copy!r}")
    if index is None:
        if own_copy == "drop":
            raise RankproofError("own_copy='drop' needs index=, the gallery positions of the images")
        return None
    fits = index.shape == (len(images),)
    if gallery is None:  # the ids of a service may be anything
        if not fits:
            raise RankproofError(f"index: expected {len(images)} ids, got {tuple(index.shape)}")
        return index.to(dtype=torch.int64)
    if not fits or int(index.min()) < 0 or int(index.max()) >= len(gallery):
        raise RankproofError(f"index: expected {len(images)} gallery positions in 0 .. {len(gallery) - 1}")
    return index.to(device=gallery.embeddings.device, dtype=torch.int64)


def _checked_queries(
    target: Gallery | Oracle, goal: Goal | Sum, queries: Tensor, targets: Tensor | None
) -> Tensor:
    """Given queries as the gallery's own embeddings are: prepared for the distance, in its precision."""
    if not isinstance(target, Gallery) or not isinstance(goal, CandidateRaise | CandidateLower):
        raise RankproofError(
            "queries: only CandidateRaise and CandidateLower on a gallery take any; leave out"
        )
    if targets is not None:
        raise RankproofError("queries: the queries are given or chosen by targets=, not both; leave one out")
    width = target.embeddings.shape[1]
    if queries.dim() != 2 or len(queries) == 0 or queries.shape[1] != width:
        raise RankproofError(
            f"queries: expected embeddings (w, {width}) as the gallery's, got {tuple(queries.shape)}"
        )
    if not bool(torch.isfinite(queries).all()):
        raise RankproofError("queries: the embeddings contain NaN or infinite values")
    return target.ranker.distance.prepare(queries.detach().to(target.embeddings))


def chunk_rows(gallery: Gallery, goal: Goal | Sum) -> int:
    """How many attacks run side by side: as many as the encoder's pass takes and the goal's memory allows."""
    return max(1, min(gallery.ranker.chunk, MEMORY // max(1, goal.memory_per_attack(len(gallery)))))


def _rows(values: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if values is None else values[rows.to(values.device)]


def _overlap(chosen: Tensor, kept: Tensor) -> int:
    """How many attacks name an item twice, among the chosen, the preserved or both."""
    ordered = torch.cat([chosen, kept], dim=1).sort(dim=1).values
    return int((ordered[:, 1:] == ordered[:, :-1]).any(1).sum())


def _joined(figures: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in figures]).cpu() for name in figures[0]}


def _notes(
    goal: Goal | Sum,
    gallery: Gallery,
    threat: Threat,
    stationary: bool,
    overlapping: int,
    queries: Tensor | None,
) -> tuple[str, ...]:
    choice = goal.choice_note(len(gallery)) if queries is None else "the queries are given, not gallery items"
    notes = [choice] if choice else []
    if stationary and threat.eps > 0:
        size = format_eps(min(NUDGE, threat.eps))
        notes.append(
            f"random start within {size}, because the clean image itself is stationary for this goal"
        )
    if overlapping:
        notes.append(
            f"{overlapping} attacks name an item twice in their explicit targets: wishes that cannot all hold"
        )
    return tuple(notes)
