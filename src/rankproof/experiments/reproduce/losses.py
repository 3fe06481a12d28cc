"""Both terms of the order attack's loss while the published descent runs (ICCV figure 3)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rankproof.attack import chunk_rows
from rankproof.goals import Reorder
from rankproof.goals.base import Scene
from rankproof.methods.presets import published
from rankproof.target import Target
from rankproof.threat import Threat
from rankproof.types import Outcome


@dataclass(frozen=True, kw_only=True)
class Losses:
    """What the losses were.

    Args:
        total: (b, s + 1) L_OA before each of s steps and after the last.
        keep: (b, s + 1) the term L_QA+ of it, without its weight xi.
        tau, mean_rank: (b,) Kendall's tau and mR after the last step.
    """

    total: Tensor
    keep: Tensor
    tau: Tensor
    mean_rank: Tensor


def losses_over_steps(
    target: Target, goal: Reorder, eps: float, index: Tensor, seed: int, tell: Callable[[int, int], None]
) -> Losses:
    """Run the published order attack on some gallery items (b,) and watch its loss.

    Args:
        goal: what is wanted; its xi must be above 0.
        tell: called with attacks done and in all.
    """
    parts, done = [], 0
    for rows in index.split(chunk_rows(target.gallery, goal)):
        parts.append(_watched(target, goal, Threat(eps), rows, seed))
        done += len(rows)
        tell(done, len(index))
    return Losses(
        total=torch.cat([part.total for part in parts]),
        keep=torch.cat([part.keep for part in parts]),
        tau=torch.cat([part.tau for part in parts]),
        mean_rank=torch.cat([part.mean_rank for part in parts]),
    )


def _watched(target: Target, goal: Reorder, threat: Threat, index: Tensor, seed: int) -> Losses:
    ranker, method, keys = target.gallery.ranker, published(goal.metric), index.tolist()
    original = ranker.as_input(target.dataset.take(index))
    seen: list[tuple[Tensor, Tensor]] = []
    with ranker.frozen():
        with torch.no_grad():
            clean = ranker.embed(original)
            here = index.to(clean.device)
            scene = Scene(gallery=target.gallery, clean=clean, keys=keys, seed=seed, index=here)
            bound = goal.bind(scene)

        def objective(images: Tensor, emphasis: Tensor | None = None) -> Outcome:
            z = ranker.embed(images)
            outcome = bound.outcome(z, emphasis)
            with torch.no_grad():
                order = bound.outcome(z, torch.zeros_like(outcome.loss)).loss
            total = outcome.loss.detach()
            seen.append((total, (total - order) / goal.xi))
            return outcome

        found = method.run(original, original, objective, threat, seed=seed, keys=keys)
        with torch.no_grad():
            objective(found.images)
            verdict = bound.verdict(ranker.embed(found.images))
    total, keep = (torch.stack(values, dim=1).double().cpu() for values in zip(*seen, strict=True))
    return Losses(total=total, keep=keep, tau=verdict["tau"].cpu(), mean_rank=verdict["mean_rank"].cpu())
