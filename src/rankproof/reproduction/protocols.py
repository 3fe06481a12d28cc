"""Protocols of the papers, and our own, that are more than one call of an attack."""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn

from rankproof.attacks import attack
from rankproof.attacks.result import AttackResult
from rankproof.attacks.transfer import on_unseen
from rankproof.attacks.white_box import chunk_rows
from rankproof.data.images import decode, peek
from rankproof.goals import Goal, Reorder
from rankproof.goals.base import AttackContext
from rankproof.io import JsonObject, encode_png, write_atomically
from rankproof.methods.defaults import published
from rankproof.methods.white_box.universal import Universal
from rankproof.oracles import ListOracle, Oracle, TrackedItems
from rankproof.ranking.metrics import short_range_tau
from rankproof.reproduction.cells import TableCell, goal_of, search_of
from rankproof.rng import generator
from rankproof.system import RetrievalSystem
from rankproof.threat import Threat
from rankproof.types import Evaluation, Ids, Images, PerAttack, ProgressCallback

SEEN_SHARE, NEAREST_SHARE = 0.05, 0.01
POINTS = 201  # at which a density is kept
QUARTILES = (0.25, 0.5, 0.75)
LAYERS = (nn.Conv2d, nn.Linear)
JPEG, SEEN_SIDE = 90, 64  # of a service: the quality of its files, the side at which its encoder sees them
UNLIMITED = "1000000"


@dataclass(frozen=True, kw_only=True)
class Shared:
    """The figures of universal perturbations.

    Args:
        values: for each target the mean rank of the scored images: "seen_before", "seen", "unseen_before" and
            "unseen".
        images: how many a perturbation was made from.
        steps: evaluations of each of them.
        notes: what a reader should know.
        attacks: on the seen and the unseen images of each target, by its number: "0-seen", "0-unseen".
    """

    values: dict[str, list[float]]
    images: int
    steps: int
    notes: tuple[str, ...]
    attacks: dict[str, AttackResult]


def universal_values(
    target: RetrievalSystem, goal: Goal, eps: float, count: int, seed: int, progress: ProgressCallback
) -> Shared:
    """One perturbation for all seen images, for each of some targets.

    5 % of X are seen and another 5 % unseen. "+" figures are of all of them; "-" figures only of the 1 % that
    are nearest to the target, the others having no rank to lose. The search runs over all seen images.

    Args:
        count: targets, drawn uniformly from X; the paper has one for every ten images.
        progress: called with evaluations done and in all.
    """
    size, gallery, method = len(target.gallery), target.gallery, Universal()
    each = max(2, round(SEEN_SHARE * size))
    drawn = torch.randperm(size, generator=generator(seed, 0, "universal images"))
    seen, unseen = drawn[:each], drawn[each : 2 * each]
    wanted = torch.randperm(size, generator=generator(seed, 0, "universal targets"))[:count]
    lowers = goal.spec.direction == "lower"
    values: dict[str, list[float]] = {name: [] for name in ("seen_before", "seen", "unseen_before", "unseen")}
    attacks: dict[str, AttackResult] = {}
    for number, item in enumerate(wanted.tolist()):

        def show(done: int, total: int, number: int = number) -> None:
            progress(number * total + done, len(wanted) * total)

        made = attack(
            gallery,
            target.dataset.one_size().take(seen),
            goal,
            Threat(eps, shared=True),
            method=method,
            seed=seed,
            gallery_ids=seen,
            targets=torch.full((each, 1), item),
            progress=show,
        )
        other = on_unseen(made, gallery, goal, target.dataset.one_size().take(unseen), gallery_ids=unseen)
        for name, result, positions in (("seen", made, seen), ("unseen", other, unseen)):
            attacks[f"{number}-{name}"] = result
            rows = _nearest(target, item, positions) if lowers else torch.arange(len(positions))
            values[f"{name}_before"].append(_rounded_mean(result.headline(after=False)[rows]))
            values[name].append(_rounded_mean(result.headline()[rows]))
    scored = f"the {_share(each)} nearest to the target" if lowers else "all"
    note = (
        f"{len(wanted)} targets (published: one for every ten images), each with a perturbation made from "
        f"{each} images and tested on {each} others; {scored} of them scored; one value per target"
    )
    return Shared(values=values, images=each, steps=method.passes(eps), notes=(note,), attacks=attacks)


def _nearest(target: RetrievalSystem, item: int, positions: Tensor) -> Tensor:
    """Which of the images at `positions` (b,) are the 1 % nearest to an item."""
    gallery = target.gallery
    others = gallery.embeddings[positions.to(gallery.embeddings.device)]
    distances = gallery.exact_between(gallery.embeddings[item].expand_as(others), others)  # (b,)
    return distances.topk(_share(len(positions)), largest=False).indices.cpu()


def _share(images: int) -> int:
    return max(1, round(NEAREST_SHARE * images))


def _rounded_mean(values: Tensor) -> float:
    return round(float(values.double().mean()), 6)


@dataclass(frozen=True, kw_only=True)
class Losses:
    """The losses of order attacks over their steps.

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
    target: RetrievalSystem, goal: Reorder, eps: float, index: Tensor, seed: int, progress: ProgressCallback
) -> Losses:
    """Run the published order attack on some gallery items (b,) and watch its loss.

    Args:
        goal: what is wanted; its xi must be above 0.
        progress: called with attacks done and in all.
    """
    parts, done = [], 0
    for rows in index.split(chunk_rows(target.gallery, goal)):
        parts.append(_losses_of(target, goal, Threat(eps), rows, seed))
        done += len(rows)
        progress(done, len(index))
    return Losses(
        total=torch.cat([part.total for part in parts]),
        keep=torch.cat([part.keep for part in parts]),
        tau=torch.cat([part.tau for part in parts]),
        mean_rank=torch.cat([part.mean_rank for part in parts]),
    )


def _losses_of(target: RetrievalSystem, goal: Reorder, threat: Threat, index: Tensor, seed: int) -> Losses:
    ranker, method, keys = target.gallery.ranker, published(goal.metric), index.tolist()
    embed = ranker.for_search().embed
    original = ranker.as_input(target.dataset.one_size().take(index))
    seen: list[tuple[Tensor, Tensor]] = []
    with ranker.frozen():
        with torch.no_grad():
            clean = ranker.embed(original)
            here = index.to(clean.device)
            context = AttackContext(
                gallery=target.gallery, clean=clean, rng_keys=keys, seed=seed, gallery_ids=here
            )
            bound = goal.bind(context)

        def objective(images: Tensor, penalty_weight: Tensor | None = None) -> Evaluation:
            z = embed(images)
            evaluation = bound.evaluate(z, penalty_weight)
            with torch.no_grad():
                order = bound.evaluate(z, torch.zeros_like(evaluation.loss)).loss
            total = evaluation.loss.detach()
            seen.append((total, (total - order) / goal.xi))
            return evaluation

        output = method.run(original, original, objective, threat, seed=seed, rng_keys=keys)
        with torch.no_grad():
            objective(output.images)
            metrics = bound.metrics(ranker.embed(output.images))
    total, keep = (torch.stack(values, dim=1).double().cpu() for values in zip(*seen, strict=True))
    return Losses(total=total, keep=keep, tau=metrics["tau"].cpu(), mean_rank=metrics["mean_rank"].cpu())


def weight_spread(encoder: nn.Module) -> list[JsonObject]:
    """The weights and the bias of each layer with both, called conv1, conv2, fc1 as in the paper.

    Returns:
        for each layer its name and, for both, count, mean, deviation, quartiles and density.
    """
    layers, numbers = [], Counter[str]()
    for module in encoder.modules():
        if isinstance(module, LAYERS) and module.bias is not None:
            kind = "fc" if isinstance(module, nn.Linear) else "conv"
            numbers[kind] += 1
            parts = {"weight": _distribution(_flat(module.weight)), "bias": _distribution(_flat(module.bias))}
            layers.append({"layer": f"{kind}{numbers[kind]}", **parts})
    return layers


def _flat(values: Tensor) -> np.ndarray:
    return values.detach().double().cpu().numpy().ravel()


def _distribution(values: np.ndarray) -> JsonObject:
    points = np.linspace(values.min(), values.max(), POINTS)
    return {
        "count": len(values),
        "mean": float(values.mean()),
        "deviation": float(values.std()),
        "quartiles": [float(value) for value in np.quantile(values, QUARTILES)],
        "points": [float(f"{point:.6g}") for point in points],
        "density": [float(f"{value:.6g}") for value in _density(values, points)],
    }


def _density(values: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Gaussian kernels of Scott's width on the values, which are counted on a fine grid first."""
    width = max(float(values.std()), 1e-12) * len(values) ** -0.2
    counts, edges = np.histogram(values, bins=10 * POINTS)
    middles = (edges[1:] + edges[:-1]) / 2
    kernels = np.exp(-0.5 * ((points[:, None] - middles) / width) ** 2)  # (points, bins)
    density: np.ndarray = kernels @ counts / (len(values) * width * np.sqrt(2 * np.pi))
    return density


def saved_and_read(images: Images, folder: Path | None = None) -> Tensor:
    """Images (b, c, h, w) in [0, 1] after a way through PNG files.

    Args:
        folder: where the files stay; None keeps none.
    """
    if folder is None:
        with TemporaryDirectory() as temporary:
            return saved_and_read(images, Path(temporary))
    reloaded = []
    for number, image in enumerate(images):
        path = folder / f"{number}.png"
        write_atomically(path, encode_png((image * 255).round().byte()))
        raw = path.read_bytes()
        reloaded.append(torch.from_numpy(decode(raw, path.name, peek(raw, path.name)).copy()))
    return torch.stack(reloaded).float() / 255


def searched_alone(oracle: Oracle, images: Images, wanted: Ids) -> PerAttack:
    """tau_S of each image, sent by itself as a user would send a file."""
    places = [
        oracle(image[None, None], TrackedItems(torch.arange(1), ids[None]))
        for image, ids in zip(images, wanted, strict=True)
    ]
    return short_range_tau(torch.cat(places), oracle.visible)[:, 0]


@contextmanager
def served(target: RetrievalSystem) -> Iterator[str]:
    """The address of a service of its own process, whose uploads pass a JPEG file and a smaller size."""
    with TemporaryDirectory() as folder:
        side = str(target.dataset.one_size().images.shape[-1])
        chain = ["--size", side, "--jpeg", str(JPEG), "--resize", str(SEEN_SIDE)]
        limits = ["--per-day", UNLIMITED, "--per-second", UNLIMITED]
        model, data = target.gallery.ranker.name, target.dataset.name
        words = ["serve", "--model", model, "--data", data, "--port", "0", "--folder", folder]
        command = [sys.executable, "-m", "rankproof", *words, *chain, *limits]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None  # where it says its address
            try:
                lines = (line for line in process.stderr if line.startswith("serving at "))
                yield next(lines).split()[2].rstrip(",") + "/search"
            finally:
                process.terminate()


def sent_again(cell: TableCell, target: RetrievalSystem, seed: int) -> tuple[AttackResult, PerAttack]:
    """An attack over HTTP, and tau_S (b,) of the images it returned when they are sent anew.

    Args:
        target: whose images are sent; its own ranking is not used.
    """
    from rankproof.wire import (
        RANKPROOF_SERVICE,
        Client,
        HttpOracle,
        RateLimit,
        ResponseCache,
        check_destination,
    )
    from rankproof.wire.http_oracle import cached_search, exact_png

    index, visible = target.draw(cell.trials, seed), int(cell.visible or 0)
    method, subspace, _ = search_of(cell.method)
    with (
        served(target) as url,
        closing(Client(check_destination(url), RANKPROOF_SERVICE, rate_limit=RateLimit())) as client,
        closing(ResponseCache(None, client.service)) as cache,
        closing(ResponseCache(None, client.service)) as fresh,
    ):
        result = attack(
            HttpOracle(client, cache, visible),
            target.dataset.one_size().take(index),
            goal_of(cell),
            Threat(cell.eps, grid=cell.grid),
            method=method,
            subspace=subspace,
            budget=cell.budget,
            seed=seed,
            gallery_ids=index,
        )

        def search(images: Images) -> list[list[str]]:
            return cached_search(client, fresh, [exact_png(image) for image in images])

        # The same numbers for the service's ids, and a cache that cannot answer in its place.
        anew = ListOracle(search, visible, cache.numbers)
        places = anew(result.adversarial[:, None], TrackedItems(torch.arange(len(index)), result.targets))[
            :, 0
        ]
    return result, short_range_tau(places, visible)
