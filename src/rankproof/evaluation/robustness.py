"""The empirical robustness score: nine attacks on the same images, ten terms, one figure."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace

import torch
from torch import Tensor

from rankproof.attacks import AttackResult, attack_batch
from rankproof.attacks.batch import make_batch
from rankproof.attacks.mixed import PART_VALUES
from rankproof.audit.diagnostics import check_attack, check_gallery
from rankproof.checks import check_images, check_kind
from rankproof.errors import RankproofError
from rankproof.evaluation.terms import ERS_TERMS, GOALS, SHIFT, TERMS, AttackRun
from rankproof.goals.base import Goal
from rankproof.io import JsonObject
from rankproof.methods import PGD
from rankproof.methods.white_box.base import Method
from rankproof.modes import ordinary_modes
from rankproof.parameters import AT_LEAST_ONE, check_integer
from rankproof.ranking.gallery import GALLERY, Gallery
from rankproof.ranking.metrics import ANYWHERE, SCALES, MeanInterval, Scale, known_labels, mean_interval
from rankproof.ranking.mixed_images import MixedImages
from rankproof.ranking.ranker import pass_size
from rankproof.report.page import Flag
from rankproof.rng import draw
from rankproof.threat import Threat
from rankproof.types import ImagesLike, ProgressCallback, no_progress

TRIALS = 1000
SHARES = ("shift-recall", "misrank", "nearest-other", "top4")  # terms of a yes or no for each image
SHARE = Scale(low=0.0, high=100.0, binary=True)
PUBLISHED = PGD(steps=32, step=3 / 255)
SMALL_SIDE, SMALL_EPS, LARGE_EPS = 32, 77 / 255, 8 / 255
UNLIMITED = 2**62  # images in one pass, beside what the ranker allows
HALF_LEVEL = 0.5 / 255  # the same image, kept as floats and as 8-bit values
UNIT = 1e-3  # how far the length of an embedding may be from 1 on the unit sphere


@dataclass(frozen=True, kw_only=True)
class Robustness:
    """The empirical robustness score (ERS) of a gallery, by the terms it is the mean of.

    Args:
        values: (T,) one value per image in %, not clipped, for each of the ten terms by name.
        moved: (T,) how far the max-shift attack moved each embedding, in the ranker's distance.
        gallery_ids: (T,) gallery positions of the attacked images.
        eps, method, steps, seed: how they were attacked.
        flags: reasons to doubt; of kind "collapsed" where nearly all embeddings are the same.
        notes: what a reader should know.
        seconds: how long it took.
        unchanged: of a random encoder the same terms of the untouched images under new random numbers; else
            empty.
    """

    values: dict[str, Tensor]
    moved: Tensor
    gallery_ids: Tensor
    eps: float
    method: str
    steps: int
    seed: int
    flags: tuple[Flag, ...]
    notes: tuple[str, ...]
    seconds: float
    unchanged: dict[str, Tensor] = field(default_factory=dict)

    @property
    def trials(self) -> int:
        """T, how many images were attacked."""
        return len(self.gallery_ids)

    @property
    def collapsed(self) -> bool:
        """Whether nearly all embeddings are the same: such a model cannot be moved and finds nothing."""
        return any(flag.kind == "collapsed" for flag in self.flags)

    @property
    def terms(self) -> dict[str, MeanInterval]:
        """The mean of each term with its 95 % interval, clipped to [0, 100]."""
        return {
            name: _clipped(mean_interval(values, SHARE if name in SHARES else ANYWHERE))
            for name, values in self.values.items()
        }

    @property
    def unchanged_terms(self) -> dict[str, float]:
        """The mean of each term of the untouched images, clipped to [0, 100]; empty unless random."""
        return {name: _clipped(mean_interval(values)).mean for name, values in self.unchanged.items()}

    @property
    def ers(self) -> MeanInterval:
        """The mean of the ten clipped terms; the interval is that of each image's mean of ten.

        All terms belong to the same images, so that the spread of their scores holds what the terms have in
        common. Means are clipped, never single values: half of all 2 CA+ lie above 100.
        """
        mean = sum(term.mean for term in self.terms.values()) / len(self.values)
        half = mean_interval(torch.stack(list(self.values.values())).mean(0)).half_width
        return _clipped(MeanInterval(mean, mean - half, mean + half))

    @property
    def shift(self) -> MeanInterval:
        """The mean distance moved by the max-shift attack, in the ranker's distance."""
        return mean_interval(self.moved, SCALES["shift"])

    def as_dict(self) -> JsonObject:
        """The figures by name, their intervals in "ci95", and how they were made."""
        terms = self.terms
        return {
            "shift": self.shift.mean,
            "ers": self.ers.mean,
            "ers_terms": {name: term.mean for name, term in terms.items()},
            "ci95": {
                "shift": self.shift.ends,
                "ers": self.ers.ends,
                "ers_terms": {name: term.ends for name, term in terms.items()},
            },
            "unchanged": self.unchanged_terms or None,
            "eps": self.eps,
            "method": self.method,
            "steps": self.steps,
            "trials": self.trials,
            "seed": self.seed,
            "collapsed": self.collapsed,
            "flags": [asdict(flag) for flag in self.flags],
            "notes": list(self.notes),
            "seconds": self.seconds,
        }


@ordinary_modes()
def robustness_score(
    gallery: Gallery,
    images: ImagesLike | MixedImages,
    *,
    eps: float | None = None,
    trials: int = TRIALS,
    seed: int = 0,
    method: Method = PUBLISHED,
    progress: ProgressCallback = no_progress,
) -> Robustness:
    """The empirical robustness score (ERS) of a gallery under nine attacks.

    Zhou et al., Adversarial Attack and Defense in Deep Ranking, T-PAMI 2024:

    ERS = mean of ten terms in %, each clipped to [0, 100], with w = m = 1 and nothing preserved:

        2 CA+,  100 - CA-,  2 QA+,  100 - QA-        normalised ranks in %
        100 (1 - cos(q~, c))                         after a targeted mismatch to a random item c
        100 (2 - |q~ - q|) / 2                       after the max shift
        100 R@1                                      after the max shift
        100 R@1                                      after learning to misrank
        100 R@1                                      drawn to the nearest item of another class
        100 [nearest among the first 4]              after a QA- on the clean nearest

    q and q~ are embeddings before and after, scaled to unit length. Clean copies of the attacked images count
    in the ranks, as published, and are left out of R@1 and the first 4.

    Args:
        gallery: an embedded database with labels.
        images: (n, c, h, w) its images in the same order, floats in [0, 1] or 8-bit values, or images of
            several sizes, which are attacked one size at a time.
        eps: the budget; None is `default_eps(images)`.
        trials: T, how many images are attacked, drawn by `seed` as in an audit.
        seed: all choices come from it.
        method: how to search; the published one is PGD with 32 steps of 3/255.
        progress: called with evaluations done and evaluations in all.
    Raises:
        RankproofError: no labels, images that are not the gallery's, or fewer than one trial.
    """
    begin = time.perf_counter()
    check_kind("gallery", gallery, Gallery, GALLERY)
    images = _checked(images, len(gallery))
    trials, seed = check_integer("trials", trials, AT_LEAST_ONE), check_integer("seed", seed)
    if len(known_labels(gallery).unique()) < 2:
        raise RankproofError("all items are of one class; ERS needs a gallery of several")
    drawn = draw(len(gallery), trials, seed)
    ids = drawn[has_company(gallery)[drawn]]
    if len(ids) == 0:
        raise RankproofError("every image drawn is alone in its class; ERS needs two images of a class")
    threat = Threat(default_eps(images) if eps is None else eps)
    parts = list(_parts(images, ids))
    for part in parts:
        _check_order(gallery, part.images, ids[part.rows])
    outcome = _attack_all(gallery, ids, parts, threat, method, seed, progress)
    return replace(
        outcome,
        flags=(*check_gallery(gallery, ids), *outcome.flags),
        notes=(*_notes(gallery, len(drawn) - len(ids)), *outcome.notes),
        seconds=time.perf_counter() - begin,
    )


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Attacked images of one size.

    Args:
        rows: (k,) which of all attacks they are.
        images: (k, c, h, w) floats in [0, 1] or 8-bit values.
        passes: the most images in one pass of the encoder.
    """

    rows: Tensor
    images: Tensor
    passes: int

    def attack(
        self,
        gallery: Gallery,
        ids: Tensor,
        goal: Goal,
        threat: Threat,
        method: Method,
        seed: int,
        progress: ProgressCallback,
    ) -> AttackRun:
        """One attack on each of them; `ids` (T,) are the gallery positions of all."""
        own = ids[self.rows]
        batch = make_batch(gallery, self.images, gallery_ids=own)
        result = attack_batch(gallery, batch, goal, threat, method=method, seed=seed, progress=progress)
        return AttackRun(result, gallery, own)


def _checked(images: ImagesLike | MixedImages, count: int) -> Tensor | MixedImages:
    """The images of a gallery of so many items."""
    if not isinstance(images, MixedImages):
        return check_images("images", images, count=count)
    if len(images) != count:
        raise RankproofError(f"images: expected {count} images, got {len(images)}")
    return images


def _parts(images: Tensor | MixedImages, ids: Tensor) -> Iterator[_Part]:
    """The attacked images (T,), one size at a time."""
    if isinstance(images, Tensor):
        yield _Part(rows=torch.arange(len(ids)), images=images[ids], passes=UNLIMITED)
        return
    for rows, part in images.take(ids).groups(PART_VALUES):
        yield _Part(rows=rows, images=part, passes=pass_size(*part.shape[1:]))


def _attack_all(
    gallery: Gallery,
    ids: Tensor,
    parts: Sequence[_Part],
    threat: Threat,
    method: Method,
    seed: int,
    progress: ProgressCallback,
) -> Robustness:
    """One attack after the other on the same images; of large images no two results fit side by side."""
    work = len(ids) * method.passes(threat.eps)
    order = torch.cat([part.rows for part in parts]).argsort()
    values: dict[str, list[Tensor]] = {name: [] for name in TERMS}
    unchanged: dict[str, list[Tensor]] = {}
    flags: list[Flag] = []
    notes: list[str] = []
    moved: list[Tensor] = []
    for number, goal in enumerate(GOALS):
        results: list[AttackResult] = []
        for part in parts:
            done = number * work + sum(map(len, results)) * method.passes(threat.eps)

            def inside(now: int, total: int, before: int = done) -> None:
                progress(before + now, len(GOALS) * work)

            terms = [term for term in ERS_TERMS if term.goal is goal]
            with gallery.ranker.passes_of(part.passes):
                outcome = part.attack(gallery, ids, goal, threat, method, seed, inside)
                for term in terms:
                    values[term.name].append(term.values(outcome))
                if gallery.ranker.random:
                    again = outcome.untouched()
                    for term in terms:
                        unchanged.setdefault(term.name, []).append(term.values(again))
            if goal is SHIFT:
                moved.append(outcome.figure)
            results.append(outcome.result.without_images())
        result = AttackResult.concat(results)
        flags += check_attack(result, result.goal, headline=False)
        notes += [f"{result.goal}: {note}" for note in result.notes if note not in gallery.ranker.notes]
    return Robustness(
        values={name: torch.cat(values[name])[order] for name in TERMS},
        moved=torch.cat(moved)[order],
        gallery_ids=ids.cpu(),
        eps=threat.eps,
        method=method.name,
        steps=method.passes(threat.eps) if threat.eps else 0,
        seed=seed,
        flags=tuple(flags),
        notes=(*gallery.ranker.notes, *notes),
        seconds=0.0,
        unchanged={name: torch.cat(each)[order] for name, each in unchanged.items()},
    )


def default_eps(images: Tensor | MixedImages) -> float:
    """77/255 for images of at most 32 pixels along each side, 8/255 for larger ones, as published."""
    shapes = images.shapes if isinstance(images, MixedImages) else [images.shape]
    return SMALL_EPS if all(max(shape[-2:]) <= SMALL_SIDE for shape in shapes) else LARGE_EPS


def has_company(gallery: Gallery) -> Tensor:
    """(n,) whether another item has the same class, without which no search can find one."""
    _, classes, counts = known_labels(gallery).unique(return_inverse=True, return_counts=True)
    company: Tensor = (counts > 1)[classes].cpu()
    return company


def _check_order(gallery: Gallery, images: Tensor, ids: Tensor) -> None:
    """Raise where an image is not that of its place in the gallery, if the gallery has its images.

    Args:
        images: (b, c, h, w) floats in [0, 1] or 8-bit values.
        ids: (b,) their places.
    """
    if gallery.images is None:
        return
    ours, wrong = gallery.ranker.as_input(images), False
    if isinstance(gallery.images, MixedImages):
        stored = [gallery.images[place] for place in ids.tolist()]
        wrong = any(image.shape != images.shape[1:] for image in stored)
        theirs = ours if wrong else gallery.ranker.as_input(torch.stack(stored))
    else:
        theirs = gallery.ranker.as_input(gallery.images[ids.to(gallery.images.device)])
    if wrong or theirs.shape != ours.shape or float((theirs - ours).abs().max()) > HALF_LEVEL:
        raise RankproofError("images: they are not the gallery's own; give those, in the gallery's order")


def _notes(gallery: Gallery, lost: int) -> list[str]:
    """What a reader of the score should know."""
    notes = []
    if bool(((gallery.ranker.distance.prepare(gallery.embeddings).norm(dim=1) - 1).abs() > UNIT).any()):
        notes.append(
            "ERS assumes distances on the unit sphere, which this ranker's are not: cos and shift are taken "
            "after scaling to unit length, and each term is clipped to [0, 100]"
        )
    if lost:
        notes.append(f"{lost} of the images drawn are alone in their class and were left out")
    return notes


def _clipped(summary: MeanInterval) -> MeanInterval:
    """A mean and its interval, clipped to [0, 100]; an interval that is not known stays so."""
    low, high = (end if math.isinf(end) else min(100.0, max(0.0, end)) for end in (summary.low, summary.high))
    return replace(summary, mean=min(100.0, max(0.0, summary.mean)), low=low, high=high)
