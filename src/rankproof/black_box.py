"""Attacking what can only be looked at: an oracle, a budget, a goal that can be scored from places."""

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rankproof.errors import RankproofError
from rankproof.goals.base import Goal, Sum, check_count
from rankproof.goals.names import goal_knobs, goal_name
from rankproof.goals.order import Reorder
from rankproof.journal import Journal
from rankproof.methods.search import BlackBox, Search, Trace
from rankproof.methods.space import Space
from rankproof.oracle import Cached, LocalOracle, Metered, Oracle, Watch
from rankproof.ranking.gallery import Gallery
from rankproof.ranking.metrics import normalised_rank
from rankproof.result import AttackResult
from rankproof.threat import Threat
from rankproof.types import Ids, Pictures, Rows, Seen

SIDE_BY_SIDE = 40  # attacks in one batch
MEMORY = 100_000_000  # pixels of all pictures of a round
EVERY = 10.0  # seconds between two writings of a search in progress

Tell = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Job:
    """What all parts of a black-box attack share.

    Args:
        oracle: what is asked; metered by `budget`.
        goal: what is wanted, scored from places.
        threat: what may be changed.
        method: how to search.
        space: where to search.
        budget: Q, queries of each attack, the clean one included.
        seed: all choices and random numbers come from it.
        journal: folder that keeps the search in progress, or None.
        every: seconds between two writings of it.
        tell: called with queries spent and queries in all.
        total: queries in all.
    """

    oracle: Metered
    goal: Reorder
    threat: Threat
    method: BlackBox
    space: Space
    budget: int
    seed: int
    journal: Path | None
    every: float
    tell: Tell
    total: int


@dataclass(frozen=True)
class Part:
    """What came of some of the attacks."""

    original: Tensor
    targets: Ids
    clean: Seen
    trace: Trace
    seconds: float


def attack_oracle(
    oracle: Oracle,
    images: Tensor,
    goal: Goal | Sum,
    threat: Threat,
    *,
    method: BlackBox,
    budget: int,
    space: Space | None,
    seed: int,
    index: Tensor | None,
    targets: Tensor | None,
    own_copy: str,
    progress: Tell,
    journal: Path | None,
    every: float = EVERY,
) -> AttackResult:
    """Attack each image with at most `budget` queries; the arguments are those of `rankproof.attack`."""
    if threat.shared:
        raise RankproofError("a shared perturbation needs gradients: attack a gallery, not an oracle")
    if not isinstance(goal, Reorder):
        raise RankproofError(f"{goal_name(goal)}: only the order attack (oa) can be sought in a black box")
    ignored = index if own_copy == "drop" else None
    _check_k(oracle, goal.k, ignored)
    if targets is not None:
        _check_targets(oracle, targets, len(images), goal.k, ignored)
    # The search itself lives on the CPU; only the encoder's passes run where the gallery is.
    images, index = images.cpu(), None if index is None else index.cpu()
    targets, ignored = (None if part is None else part.cpu() for part in (targets, ignored))
    picture = (int(images.shape[1]), int(images.shape[2]), int(images.shape[3]))
    job = Job(
        oracle=Metered(oracle, budget),
        goal=goal,
        threat=threat,
        method=method,
        space=space or method.space(picture),
        budget=budget,
        seed=seed,
        journal=journal,
        every=every,
        tell=progress,
        total=budget * len(images),
    )
    parts = []
    side_by_side = max(1, min(SIDE_BY_SIDE, MEMORY // (50 * math.prod(picture))))
    for rows in torch.arange(len(images)).split(side_by_side):
        keys = rows if index is None else index[rows]
        skip = None if ignored is None else ignored[rows]
        parts.append(
            _attack_part(job, images[rows], rows, keys, skip, None if targets is None else targets[rows])
        )
    return _result(job, parts, index, ignored)


def _attack_part(
    job: Job, pictures: Tensor, rows: Rows, keys: Rows, ignored: Rows | None, targets: Ids | None
) -> Part:
    """Attack the pictures that stand at `rows` among all."""
    begin = time.perf_counter()
    original = job.threat.start(pictures)
    journal = Journal.open(
        job.journal and job.journal / f"search-{int(rows[0]):06d}.npz",
        _fingerprint(job, original, keys, ignored, targets),
        job.every,
    )
    clean, wanted = journal.clean or _look_clean(job, original, rows, keys, ignored, targets)

    def look(images: Pictures, attacks: Rows) -> Seen:
        skip = None if ignored is None else ignored[attacks]
        places = job.oracle(images, Watch(rows[attacks], wanted[attacks], skip))
        job.tell(sum(job.oracle.spent.values()), job.total)
        return Seen(places, job.goal.score(places, job.oracle.visible))

    search = Search(
        method=job.method,
        original=original,
        threat=job.threat,
        space=job.space,
        look=look,
        keys=keys,
        seed=job.seed,
        budget=job.budget,
        visible=job.oracle.visible,
        k=job.goal.k,
    )
    with journal.keeping(clean, wanted, search.begin(clean)) as keeper:
        spent = keeper.progress.trace.spent.tolist()
        job.oracle.spent.update(zip(rows.tolist(), spent, strict=True))
        while not search.done(keeper.progress):
            keeper.keep(search.step(keeper.progress))
    trace = keeper.progress.trace
    job.threat.check(trace.images, original)
    return Part(original, wanted, clean, trace, journal.seconds + time.perf_counter() - begin)


def _look_clean(
    job: Job, original: Tensor, rows: Rows, keys: Rows, ignored: Rows | None, targets: Ids | None
) -> tuple[Seen, Ids]:
    """Spend one query on the clean image: where the chosen are, and which they are unless given."""
    try:
        return _ask_clean(job, original, rows, keys, ignored, targets)
    except RankproofError:
        raise
    except Exception as error:
        raise RankproofError(f"the search system failed on the clean images: {error}") from error


def _ask_clean(
    job: Job, original: Tensor, rows: Rows, keys: Rows, ignored: Rows | None, targets: Ids | None
) -> tuple[Seen, Ids]:
    if targets is not None:
        places = job.oracle(original[:, None], Watch(rows, targets, ignored))
        wanted = targets
    else:
        nearest = job.oracle.top(original, job.goal.k, Watch(rows, rows.new_empty(len(rows), 0), ignored))
        places = job.goal.permutation(job.seed, keys.tolist(), nearest)
        wanted = nearest.gather(1, places)
        places = places[:, None]
    return Seen(places, job.goal.score(places, job.oracle.visible)), wanted


def _result(job: Job, parts: list[Part], index: Tensor | None, ignored: Rows | None) -> AttackResult:
    """Everything that is known afterwards; from a local gallery also what the attacker could not see."""
    traces = [part.trace for part in parts]
    original = torch.cat([part.original for part in parts])
    adversarial = torch.cat([trace.images for trace in traces])
    targets = torch.cat([part.targets for part in parts])
    clean = torch.cat([part.clean.score[:, 0] for part in parts])
    before, after = {"tau": clean}, {"tau": torch.cat([trace.score for trace in traces])}
    gallery, device = gallery_of(job.oracle), "cpu"
    if gallery is not None:
        device = gallery.ranker.device.type
        before |= _verdict(job, gallery, original, targets, ignored)
        after |= _verdict(job, gallery, adversarial, targets, ignored)
    return AttackResult(
        goal=goal_name(job.goal),
        metric=job.goal.metric,
        method=job.method.name,
        eps=job.threat.eps,
        knobs=goal_knobs(job.goal) | {"xi": None},
        steps=int(max(trace.spent.max() for trace in traces)),
        seed=job.seed,
        original=original,
        adversarial=adversarial,
        index=index,
        targets=targets,
        preserved=targets.new_empty(len(targets), 0),
        before=before,
        after=after,
        silent=torch.zeros(len(targets), dtype=torch.bool),
        gallery_size=0 if gallery is None else len(gallery),
        device=device,
        seconds=sum(part.seconds for part in parts),
        notes=_notes(job),
        visible="inf" if job.oracle.visible is None else job.oracle.visible,
        budget=job.budget,
        queries=torch.cat([trace.spent for trace in traces]),
        scores=torch.cat([trace.scores for trace in traces]),
    )


def _verdict(
    job: Job, gallery: Gallery, images: Tensor, targets: Ids, ignored: Rows | None
) -> dict[str, Tensor]:
    """tau_S of the visible list and the true ranks of the same images, searched once more by the auditor."""
    z = gallery.ranker.embed_all(images)
    dropped = None if ignored is None else ignored.to(z.device)
    places = gallery.rank_of(z, targets.to(z.device), ties="order", dropped=dropped)
    return {
        "rank": normalised_rank(places, len(gallery)).cpu(),
        "tau": job.goal.score(places[:, None], job.oracle.visible)[:, 0].cpu(),
        "mean_rank": places.double().mean(1).cpu(),
    }


def gallery_of(oracle: Oracle) -> Gallery | None:
    """The gallery behind a local oracle, which the auditor may look at and a method never can."""
    match oracle:
        case LocalOracle():
            return oracle.gallery
        case Metered() | Cached():
            return gallery_of(oracle.oracle)
        case _:
            return None


def _check_k(oracle: Oracle, k: int, ignored: Rows | None) -> None:
    """Raise unless k results can be seen and have an order."""
    if k < 2:
        raise RankproofError(f"k must be at least 2, got {k}: one item has no order")
    if oracle.visible is not None and k > oracle.visible:
        raise RankproofError(f"k = {k} results cannot be ordered where only N = {oracle.visible} are visible")
    if (gallery := gallery_of(oracle)) is not None:
        check_count("k", k, len(gallery) - (ignored is not None))


def _check_targets(oracle: Oracle, targets: Ids, count: int, k: int, ignored: Rows | None) -> None:
    """Raise unless there are k different items for each attack, all of which can appear."""
    if tuple(targets.shape) != (count, k):
        raise RankproofError(f"targets: expected ids of shape {(count, k)}, got {tuple(targets.shape)}")
    ordered = targets.sort(dim=1).values
    if bool((ordered[:, 1:] == ordered[:, :-1]).any()):
        raise RankproofError("targets: an item is named twice in a wanted order; each may stand there once")
    gallery = gallery_of(oracle)
    if gallery is not None and (int(targets.min()) < 0 or int(targets.max()) >= len(gallery)):
        raise RankproofError(f"targets: positions must lie in 0 .. {len(gallery) - 1}")
    if ignored is not None and bool((targets.to(ignored.device) == ignored[:, None]).any()):
        raise RankproofError("targets: an own copy is wanted where own_copy='drop' leaves it out of rankings")


def _notes(job: Job) -> tuple[str, ...]:
    images = (
        "8-bit images"
        if job.threat.grid
        else "images off the 8-bit grid, which no service would accept as sent"
    )
    return (f"searched in {job.space.name} among {images}",)


def _fingerprint(job: Job, original: Tensor, keys: Rows, ignored: Rows | None, targets: Ids | None) -> str:
    """What must be equal for a search to go on."""
    settings = (job.goal, job.threat, job.method, job.space, job.budget, job.seed, job.oracle.visible)
    gallery = gallery_of(job.oracle)
    parts = {
        "settings": json.dumps([repr(part) for part in settings]).encode(),
        "original": _bytes(original),
        "keys": _bytes(keys),
        "ignored": _bytes(ignored),
        "targets": _bytes(targets),
        "gallery": _bytes(None if gallery is None else gallery.embeddings),
    }
    digest = hashlib.blake2b(digest_size=16)
    for name, content in parts.items():
        digest.update(f"/{name}/{len(content)}/".encode() + content)
    return digest.hexdigest()


def _bytes(values: Tensor | None) -> bytes:
    return b"" if values is None else values.cpu().contiguous().numpy().tobytes()
