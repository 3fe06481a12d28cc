"""Black-box attacks: an oracle, a budget of queries, and a goal that is scored from places alone."""

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from rankproof.attacks.batch import ONLY_CANDIDATES, AttackBatch, count_foreign, foreign_text
from rankproof.attacks.repeats import EQUAL, RepeatFn, Repeats, repeat_fn
from rankproof.attacks.result import AttackResult, QueryLog
from rankproof.attacks.search_state import WRITE_EVERY, SearchStateFile, SearchStateWriter
from rankproof.checks import check_ids
from rankproof.errors import RankproofError
from rankproof.goals.base import Goal
from rankproof.goals.order import Reorder
from rankproof.methods.black_box.base import BlackBoxMethod
from rankproof.methods.black_box.search import Search, SearchHistory, SearchInterruptedError
from rankproof.methods.black_box.subspace import Subspace
from rankproof.oracles import BudgetedOracle, Cached, LocalOracle, Oracle, TrackedItems
from rankproof.parameters import Checked, Count, Weight
from rankproof.ranking.gallery import Gallery
from rankproof.threat import Threat
from rankproof.types import Feedback, Ids, ImageSets, ProgressCallback, Rows

BUDGET = 1000  # queries of the published protocol
SIDE_BY_SIDE = 40  # attacks in one chunk
SAMPLE = 64  # images compared with the gallery items they are said to be
MEMORY = 100_000_000  # pixels of all images of a round


@dataclass(frozen=True, kw_only=True)
class SearchOptions(Checked):
    """What only a black-box attack has.

    Args:
        budget: Q, queries of each attack, the clean image included; None is 1,000.
        subspace: where to search; None is the method's own rule.
        folder: keeps the search in progress, or None.
        every: seconds between two writings of it.
        repeat: whether the clean and the best image are asked again, outside the budget, by which a search
            system that answers at random is found; a local gallery never is.
    """

    budget: Count | None = None
    subspace: Subspace | None = None
    folder: Path | None = None
    every: Weight = WRITE_EVERY
    repeat: bool = True

    def check_unused(self) -> None:
        """Raise where a white-box attack is given one of them."""
        for name, value in (
            ("budget", self.budget),
            ("subspace", self.subspace),
            ("search_folder", self.folder),
        ):
            if value is not None:
                raise RankproofError(
                    f"{name}: only a search in a black box has one; attack an oracle instead"
                )


NO_OPTIONS = SearchOptions()


def run(
    oracle: Oracle,
    batch: AttackBatch,
    goal: Goal,
    threat: Threat,
    method: BlackBoxMethod,
    *,
    search: SearchOptions,
    seed: int,
    progress: ProgressCallback,
) -> AttackResult:
    """Attack every image with a budget of queries; the arguments are those of `rankproof.attack`."""
    goal = _checked(oracle, batch, goal, threat)
    # The search itself lives on the CPU; only the encoder's passes run where the gallery is.
    batch = batch.cpu()
    shape = (int(batch.images.shape[1]), int(batch.images.shape[2]), int(batch.images.shape[3]))
    budget = BUDGET if search.budget is None else search.budget
    job = _Job(
        oracle=BudgetedOracle(oracle, budget),
        goal=goal,
        threat=threat,
        method=method,
        subspace=search.subspace or method.subspace(shape),
        seed=seed,
        options=search,
        repeat=repeat_fn(oracle) if search.repeat else None,
        progress=lambda spent: progress(spent, budget * len(batch)),
    )
    rows = torch.arange(len(batch))
    chunks = rows.split(max(1, min(SIDE_BY_SIDE, MEMORY // (50 * math.prod(shape)))))
    result = AttackResult.concat([_attack_chunk(job, batch.take(chunk), chunk) for chunk in chunks])
    notes = (*_notes(job, batch), *_misled(oracle, result))
    return replace(result, notes=notes).with_repeat_note()


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What all chunks of an attack share; `progress` is called with queries spent."""

    oracle: BudgetedOracle
    goal: Reorder
    threat: Threat
    method: BlackBoxMethod
    subspace: Subspace
    seed: int
    options: SearchOptions
    repeat: RepeatFn | None
    progress: Callable[[int], None]


def _attack_chunk(job: _Job, batch: AttackBatch, rows: Rows) -> AttackResult:
    """Attack the images of one chunk, which stand at `rows` among all: look, search, ask again, measure."""
    begin = time.perf_counter()
    original = job.threat.start(batch.images)
    state_file = SearchStateFile.open(
        job.options.folder and job.options.folder / f"search-{int(rows[0]):06d}.npz",
        _fingerprint(job, batch, original),
        job.options.every,
    )
    clean, wanted = state_file.clean or _query_clean(job, batch, original, rows)

    def query(images: ImageSets, attacks: Rows) -> Feedback:
        excluded = None if batch.excluded is None else batch.excluded[attacks]
        places = job.oracle(images, TrackedItems(rows[attacks], wanted[attacks], excluded))
        job.progress(sum(job.oracle.spent.values()))
        return Feedback(places, job.goal.score(places, job.oracle.visible))

    search = Search(
        method=job.method,
        original=original,
        threat=job.threat,
        subspace=job.subspace,
        query=query,
        rng_keys=batch.rng_keys,
        seed=job.seed,
        budget=job.oracle.budget,
        visible=job.oracle.visible,
        k=job.goal.k,
    )
    with state_file.writing(clean, wanted, search.begin(clean)) as writer:
        job.oracle.spent.update(zip(rows.tolist(), writer.state.history.spent.tolist(), strict=True))
        tracked = TrackedItems(rows, wanted, batch.excluded)
        _ask_again(job, writer, "clean", original, tracked)
        while not search.done(writer.state):
            writer.keep(search.step(writer.state))
        history = writer.state.history
        _ask_again(job, writer, "best", history.images, tracked, known=(original, "clean"))
    job.threat.check(history.images, original)
    seconds = state_file.seconds + time.perf_counter() - begin
    return _result(job, batch, _Outcome(original, wanted, clean, history, writer.repeated, seconds))


@dataclass(frozen=True)
class _Outcome:
    """The end of a search: original images, chosen items, feedback on the clean images, history, places of
    images that were asked again."""

    original: Tensor
    wanted: Ids
    clean: Feedback
    history: SearchHistory
    repeated: dict[str, Tensor]
    seconds: float


def _result(job: _Job, batch: AttackBatch, outcome: _Outcome) -> AttackResult:
    """The result of a chunk; on a local gallery with the true ranks, which the attacker cannot see."""
    history, wanted = outcome.history, outcome.wanted
    before, after = {"tau": outcome.clean.score[:, 0]}, {"tau": history.score}
    gallery, unchanged = gallery_of(job.oracle), {}
    if gallery is not None:
        before |= _measure(job, gallery, outcome.original, wanted, batch.excluded)
        after |= _measure(job, gallery, history.images, wanted, batch.excluded)
        if gallery.ranker.random:
            unchanged = _measure(job, gallery, outcome.original, wanted, batch.excluded)
    visible = job.oracle.visible
    return AttackResult(
        goal=job.goal.spec.name,
        metric=job.goal.metric,
        method=job.method.name,
        eps=job.threat.eps,
        parameters=job.goal.parameters | {"xi": None},
        steps=int(history.spent.max()),
        seed=job.seed,
        original=outcome.original,
        adversarial=history.images,
        gallery_ids=batch.gallery_ids,
        targets=wanted,
        preserved=wanted.new_empty(len(wanted), 0),
        before=before,
        after=after,
        unchanged=unchanged,
        zero_gradient=torch.zeros(len(wanted), dtype=torch.bool),
        gallery_size=0 if gallery is None else len(gallery),
        device="cpu" if gallery is None else gallery.ranker.device.type,
        seconds=outcome.seconds,
        log=QueryLog(
            visible="inf" if visible is None else visible,
            budget=job.oracle.budget,
            spent=history.spent,
            scores=history.scores,
            repeats=None if job.repeat is None else _repeats(job, outcome),
        ),
    )


def _ask_again(
    job: _Job,
    writer: SearchStateWriter,
    name: str,
    images: Tensor,
    tracked: TrackedItems,
    known: tuple[Tensor, str] | None = None,
) -> None:
    """Ask images (b, c, h, w) again, unless a stored search has done it: their places, kept by a name.

    Args:
        known: images whose places are kept by another name; equal ones are not asked once more.
    """
    if job.repeat is None or name in writer.repeated:
        return
    places, rows = tracked.ids.clone(), torch.ones(len(images), dtype=torch.bool)
    if known is not None:
        places, rows = writer.repeated[known[1]].clone(), (images != known[0]).flatten(1).any(1)
    try:
        if bool(rows.any()):
            excluded = None if tracked.excluded is None else tracked.excluded[rows]
            asked = TrackedItems(tracked.attacks[rows], tracked.ids[rows], excluded)
            places[rows] = job.repeat(images[rows, None], asked)[:, 0].to(places)
    except Exception as error:
        message = f"the search system failed when the {name} image was asked again: {error}"
        raise SearchInterruptedError(message, writer.state) from error
    writer.repeated[name] = places


def _repeats(job: _Job, outcome: _Outcome) -> Repeats:
    """What the images that were asked again showed, beside what they showed before."""
    history, clean = outcome.history, outcome.clean
    places = {name: places[:, None] for name, places in outcome.repeated.items()}
    before, after = (job.goal.score(places[name], job.oracle.visible)[:, 0] for name in ("clean", "best"))
    changed = (history.images != outcome.original).flatten(1).any(1)
    # Compared as the goal scores them: `top` skips repeated ids, which move the places of the others.
    orders = [look.argsort(dim=2, stable=True) for look in (places["clean"], clean.places)]
    unseen = [look >= (job.oracle.visible or math.inf) for look in (places["clean"], clean.places)]
    elsewhere = ((orders[0] != orders[1]) | (unseen[0] != unseen[1])).flatten(1).any(1)
    return Repeats(
        count=1 + changed.long(),
        before=before,
        after=after,
        differs=elsewhere | ((after.double() - history.score.double()).abs() > EQUAL),
    )


def _query_clean(job: _Job, batch: AttackBatch, original: Tensor, rows: Rows) -> tuple[Feedback, Ids]:
    """Spend one query on the clean image: where the chosen are, and which they are unless given."""
    try:
        if batch.targets is not None:
            wanted = batch.targets
            places = job.oracle(original[:, None], TrackedItems(rows, wanted, batch.excluded))
        else:
            nothing = rows.new_empty(len(rows), 0)
            nearest = job.oracle.top(original, job.goal.k, TrackedItems(rows, nothing, batch.excluded))
            order = job.goal.permutation(job.seed, batch.rng_keys.tolist(), nearest)
            wanted, places = nearest.gather(1, order), order[:, None]
    except RankproofError:
        raise
    except Exception as error:
        raise RankproofError(f"the search system failed on the clean images: {error}") from error
    return Feedback(places, job.goal.score(places, job.oracle.visible)), wanted


def _measure(
    job: _Job, gallery: Gallery, images: Tensor, targets: Ids, excluded: Rows | None
) -> dict[str, Tensor]:
    """tau_S of the visible list and the true ranks of the same images, searched once more by the auditor."""
    z = gallery.ranker.embed_all(images)
    excluded = None if excluded is None else excluded.to(z.device)
    places = gallery.rank_of(z, targets.to(z.device), ties="order", excluded=excluded)
    tau = job.goal.score(places[:, None], job.oracle.visible)[:, 0]
    return {name: values.cpu() for name, values in job.goal.metrics(places, len(gallery), tau).items()}


def gallery_of(oracle: Oracle) -> Gallery | None:
    """The gallery behind a local oracle, which the auditor may look at and a method never can."""
    match oracle:
        case LocalOracle():
            return oracle.gallery
        case BudgetedOracle() | Cached():
            return gallery_of(oracle.oracle)
        case _:
            return None


def _checked(oracle: Oracle, batch: AttackBatch, goal: Goal, threat: Threat) -> Reorder:
    """The goal, if it can be sought in a black box and its items can be seen and have an order."""
    if batch.queries is not None:
        raise RankproofError(ONLY_CANDIDATES)
    if batch.preserved is not None:
        raise RankproofError("preserved: an order attack keeps nothing in place; leave it out")
    if threat.shared:
        raise RankproofError("a shared perturbation needs gradients: attack a gallery, not an oracle")
    if not isinstance(goal, Reorder):
        raise RankproofError(f"{goal.spec.name}: only the order attack (oa) can be sought in a black box")
    if goal.k < 2:
        raise RankproofError(f"k must be at least 2, got {goal.k}: one item has no order")
    if oracle.visible is not None and goal.k > oracle.visible:
        raise RankproofError(
            f"k = {goal.k} results cannot be ordered where only N = {oracle.visible} are visible"
        )
    if (gallery := gallery_of(oracle)) is not None:
        goal.check_size(len(gallery) - batch.exclude_self)
    if batch.targets is not None:
        _check_targets(gallery, batch, batch.targets, goal.k)
    return goal


def _check_targets(gallery: Gallery | None, batch: AttackBatch, targets: Ids, k: int) -> None:
    """Raise unless there are k different items for each attack, all of which can appear."""
    check_ids("targets", targets, (len(batch), k), None if gallery is None else len(gallery))
    ordered = targets.sort(dim=1).values
    if bool((ordered[:, 1:] == ordered[:, :-1]).any()):
        raise RankproofError("targets: an item is named twice in a wanted order; each may stand there once")
    excluded = batch.excluded
    if excluded is not None and bool((targets.to(excluded.device) == excluded[:, None]).any()):
        raise RankproofError(
            "targets: an own copy is wanted where exclude_self=True leaves it out of rankings"
        )


def _notes(job: _Job, batch: AttackBatch) -> tuple[str, ...]:
    images = (
        "8-bit images"
        if job.threat.grid
        else "images off the 8-bit grid, which no service would accept as sent"
    )
    gallery = gallery_of(job.oracle)
    notes = [f"searched in {job.subspace.name} among {images}"]
    if gallery is not None:
        notes += gallery.ranker.notes
        sample = batch.images[:SAMPLE]
        if batch.gallery_ids is not None and not gallery.ranker.random:
            clean = gallery.ranker.embed_all(sample)
            if foreign := count_foreign(gallery, batch.gallery_ids[:SAMPLE], clean):
                notes.append(foreign_text(foreign, len(sample)))
    return tuple(notes)


def _misled(oracle: Oracle, result: AttackResult) -> tuple[str, ...]:
    """A note where the oracle answered by an inference graph that is another function on attacked images."""
    gallery = gallery_of(oracle)
    if gallery is None or gallery.ranker.graph_holds(result.original, result.adversarial):
        return ()
    return (
        "the encoder embeds the attacked images otherwise than the inference graph that answered the search: "
        "a better attack may exist; attack again, which searches on the encoder itself",
    )


def _fingerprint(job: _Job, batch: AttackBatch, original: Tensor) -> str:
    """What must be equal for a search to go on."""
    oracle = job.oracle
    settings = (job.goal, job.threat, job.method, job.subspace, oracle.budget, job.seed, oracle.visible)
    gallery = gallery_of(oracle)
    parts = {
        "settings": json.dumps([repr(part) for part in settings]).encode(),
        "original": _bytes(original),
        "rng_keys": _bytes(batch.rng_keys),
        "excluded": _bytes(batch.excluded),
        "targets": _bytes(batch.targets),
        "gallery": _bytes(None if gallery is None else gallery.embeddings),
    }
    digest = hashlib.blake2b(digest_size=16)
    for name, content in parts.items():
        digest.update(f"/{name}/{len(content)}/".encode() + content)
    return digest.hexdigest()


def _bytes(values: Tensor | None) -> bytes:
    return b"" if values is None else values.cpu().contiguous().numpy().tobytes()
