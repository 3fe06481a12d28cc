"""Attacks on images of several sizes: one size at a time, one result for all."""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from rankproof.attacks import attack_batch
from rankproof.attacks.batch import AttackBatch, make_batch
from rankproof.attacks.black_box import NO_OPTIONS, SearchOptions, gallery_of
from rankproof.attacks.result import ARRAYS, SUMMARY, AttackResult
from rankproof.errors import RankproofError
from rankproof.goals.base import Goal
from rankproof.methods.black_box.base import BlackBoxMethod
from rankproof.methods.white_box.base import Method
from rankproof.oracles import Oracle
from rankproof.ranking.gallery import Gallery
from rankproof.ranking.mixed_images import MixedImages
from rankproof.ranking.ranker import pass_size
from rankproof.threat import Threat
from rankproof.types import ProgressCallback, no_progress

PART_VALUES = 100_000_000  # pixel values of images that are attacked in one call, all of one size


@dataclass(frozen=True, kw_only=True)
class MixedBatch:
    """Images of several sizes that are attacked, and what belongs to each.

    Args:
        images: b images of any heights and widths.
        gallery_ids: (b,) positions of the images' own clean copies; None: they are not in the gallery.
        exclude_self: whether the own clean copy is left out of every ranking.
        save: a folder in which the images of each size are saved, as `AttackResult.save` does, in a folder
            named HEIGHTxWIDTH; its "row" says which of `images` they are.
    """

    images: MixedImages
    gallery_ids: Tensor | None = None
    exclude_self: bool = False
    save: str | Path | None = None

    def parts(self, gallery: Gallery | None) -> Iterator["_Part"]:
        """Batches of one size, with the random numbers and targets that their images have on their own."""
        names = Counter[str]()
        for rows, images in self.images.groups(PART_VALUES):
            ids = None if self.gallery_ids is None else self.gallery_ids[rows]
            batch = make_batch(gallery, images, gallery_ids=ids, exclude_self=self.exclude_self)
            name = "x".join(map(str, images.shape[2:]))
            names[name] += 1
            yield _Part(
                batch=batch if ids is not None else replace(batch, rng_keys=rows),
                rows=rows,
                name=name if names[name] == 1 else f"{name}-{names[name]}",
            )


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Attacks on images of one size, their rows among all, and the name of their folder."""

    batch: AttackBatch
    rows: Tensor
    name: str


def attack_mixed(
    target: Gallery | Oracle,
    batch: MixedBatch,
    goal: Goal,
    threat: Threat,
    *,
    method: Method | BlackBoxMethod | None = None,
    search: SearchOptions = NO_OPTIONS,
    seed: int = 0,
    progress: ProgressCallback = no_progress,
) -> AttackResult:
    """Attack images of several sizes; the other arguments are those of `attack`.

    Images of one size are attacked together. Targets and random numbers are those of each attack, so that an
    image's figures do not depend on the sizes of the others.

    Args:
        batch: the images.
        search: budget, subspace and folder of a black-box search; a white box has none.
        progress: called with the work done and the work in all.
    Returns:
        the figures of all attacks in the order of the images; its own images are empty (b, c, 0, 0).
    """
    if threat.shared:
        raise RankproofError("a shared perturbation has one size: attack images that have one, too")
    gallery = target if isinstance(target, Gallery) else gallery_of(target)
    if batch.save is not None:
        remove_earlier(Path(batch.save))
    total, results, order = len(batch.images), list[AttackResult](), list[Tensor]()
    for part in batch.parts(gallery):
        done, count = sum(map(len, order)), len(part.rows)

        def inside(now: int, of: int, done: int = done, count: int = count) -> None:
            progress(done * of + count * now, total * of)

        own = replace(search, folder=None if search.folder is None else search.folder / part.name)
        most = pass_size(*part.batch.images.shape[1:])
        with nullcontext() if gallery is None else gallery.ranker.passes_of(most):
            result = attack_batch(
                target, part.batch, goal, threat, method=method, search=own, seed=seed, progress=inside
            )
        if batch.save is not None:
            result.save(Path(batch.save) / part.name, rows=part.rows)
        results.append(result.without_images())
        order.append(part.rows)
    return AttackResult.concat(results)[torch.cat(order).argsort()]


def remove_earlier(folder: Path) -> None:
    """Remove what an earlier run saved by size, of which a new one may have fewer sizes, or one alone."""
    for part in folder.glob("*x*"):
        if re.fullmatch(r"\d+x\d+(-\d+)?", part.name):
            for name in (ARRAYS, SUMMARY):
                (part / name).unlink(missing_ok=True)
