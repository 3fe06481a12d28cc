"""Attacks on images of several sizes: one size at a time, one result for all."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch

from rankproof.attacks import attack_batch
from rankproof.attacks.batch import make_batch
from rankproof.attacks.black_box import NO_OPTIONS, SearchOptions, gallery_of
from rankproof.attacks.result import AttackResult
from rankproof.errors import RankproofError
from rankproof.goals.base import Goal
from rankproof.methods.black_box.base import BlackBoxMethod
from rankproof.methods.white_box.base import Method
from rankproof.oracles import Oracle
from rankproof.ranking.gallery import Gallery
from rankproof.ranking.mixed_images import MixedImages
from rankproof.ranking.ranker import pass_size
from rankproof.threat import Threat
from rankproof.types import IntegersLike, ProgressCallback, no_progress

PART_VALUES = 100_000_000  # pixel values of images that are attacked in one call, all of one size


def attack_mixed(
    target: Gallery | Oracle,
    images: MixedImages,
    goal: Goal,
    threat: Threat,
    *,
    method: Method | BlackBoxMethod | None = None,
    search: SearchOptions = NO_OPTIONS,
    seed: int = 0,
    gallery_ids: IntegersLike | None = None,
    exclude_self: bool = False,
    save: str | Path | None = None,
    progress: ProgressCallback = no_progress,
) -> AttackResult:
    """Attack images of several sizes; the other arguments are those of `attack`.

    Images of one size are attacked together. Targets and random numbers are those of each attack, so that an
    image's figures do not depend on the sizes of the others.

    Args:
        images: b images of any heights and widths.
        search: budget, subspace and folder of a black-box search; a white box has none.
        save: a folder in which the images of each size are saved, as `AttackResult.save` does, in a folder
            named HEIGHTxWIDTH; its "row" says which of `images` they are.
        progress: called with the work done and the work in all.
    Returns:
        the figures of all attacks in the order of `images`; its own images are empty (b, c, 0, 0).
    """
    if threat.shared:
        raise RankproofError("a shared perturbation has one size: attack images that have one, too")
    gallery = target if isinstance(target, Gallery) else gallery_of(target)
    ids = None if gallery_ids is None else torch.as_tensor(gallery_ids)
    parts: list[AttackResult] = []
    order: list[torch.Tensor] = []
    names: dict[str, int] = {}
    for rows, part in images.groups(PART_VALUES):
        done = sum(map(len, order))

        def inside(now: int, of: int, done: int = done, count: int = len(rows)) -> None:
            progress(done * of + count * now, len(images) * of)

        shape = int(part.shape[1]), int(part.shape[2]), int(part.shape[3])
        name = f"{shape[1]}x{shape[2]}"
        names[name] = names.get(name, 0) + 1
        name = name if names[name] == 1 else f"{name}-{names[name]}"
        batch = make_batch(
            gallery,
            part,
            gallery_ids=None if ids is None else ids[rows],
            exclude_self=exclude_self,
        )
        batch = batch if ids is not None else replace(batch, rng_keys=rows)
        own = replace(search, folder=None if search.folder is None else search.folder / name)
        with nullcontext() if gallery is None else gallery.ranker.passes_of(pass_size(*shape)):
            result = attack_batch(
                target, batch, goal, threat, method=method, search=own, seed=seed, progress=inside
            )
        if save is not None:
            result.save(Path(save) / name, rows=rows)
        parts.append(result.without_images())
        order.append(rows)
    return AttackResult.concat(parts)[torch.cat(order).argsort()]
