"""What an attack costs beside the work that no attack can avoid."""

import resource
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from rankproof.attacks.result import AttackResult
from rankproof.attacks.white_box import chunk_rows
from rankproof.goals.base import Goal
from rankproof.oracles.local import PASS
from rankproof.ranking.gallery import Gallery
from rankproof.ranking.mixed_images import MixedImages
from rankproof.types import ProgressCallback, no_progress

REPEATS = 5  # the best of so many counts: the others were disturbed
ENOUGH = 3.0  # seconds of timing after which two passes must do, since a user waits for it


class AttackCost(NamedTuple):
    """What an attack cost: seconds of the bare work it could not avoid, and the most memory held, in MB.

    The bare work is None where images differ in size, for which it is not timed.
    """

    model_seconds: float | None
    peak_mb: float


def bare_seconds(
    gallery: Gallery,
    images: Tensor,
    passes: int | float,
    *,
    whole_gallery: bool,
    chunk: int | None = None,
    progress: ProgressCallback = no_progress,
) -> float:
    """Time of the bare work of an attack: the encoder's passes and, where needed, products with the gallery.

    seconds = passes x sum over chunks of the best of five times (two, if they are long) of
              [ z = encoder(x);  s = z gallery^T;  the gradient of s with respect to x ]

    in the attack's own precision, layout and chunks. One chunk of each size is timed and multiplied out.

    Args:
        gallery: the attacked gallery.
        images: (b, c, h, w) the attacked images, in [0, 1].
        passes: forward and gradient evaluations of each attack.
        whole_gallery: whether each pass compares with the whole gallery (`Goal.whole_gallery`); else the
            encoder alone is timed.
        chunk: attacks side by side (`chunk_rows`); None is the ranker's own.
        progress: called with passes timed and passes to time.
    Returns:
        seconds for all images and passes.
    """
    rows = chunk or gallery.ranker.chunk
    full, rest = divmod(len(images), rows)
    sizes = [(size, count) for size, count in ((rows, full), (rest, 1)) if size and count and passes]
    total, seconds = REPEATS * len(sizes), 0.0
    for position, (size, count) in enumerate(sizes):
        one_pass = _bare_pass(gallery, images[:size], whole_gallery)
        done = position * REPEATS

        def tell(repeat: int, _: int, done: int = done) -> None:
            progress(done + repeat, total)

        seconds += count * passes * _best(one_pass, gallery.ranker.device, tell)
    return seconds


def query_seconds(
    gallery: Gallery,
    images: Tensor,
    queries: int,
    *,
    rows: int = PASS,
    progress: ProgressCallback = no_progress,
) -> float:
    """Time of the bare work of a black-box attack: the forward passes of all its queries.

    seconds = queries x the best of five times (two, if they are long) of
              [ encoder(x) for a pass of x ] / images in the pass

    Args:
        gallery: what is searched; the products with it can be avoided and do not count.
        images: (b, c, h, w) the attacked images, in [0, 1].
        queries: images sent in all.
        rows: images in the pass.
        progress: called with passes timed and passes to time.
    """
    ranker = gallery.ranker.for_search()
    pixels = ranker.as_input(images)
    pixels = pixels.repeat(-(-rows // len(pixels)), 1, 1, 1)[:rows]
    with ranker.frozen(), torch.no_grad():
        seconds = _best(lambda: ranker.encode(pixels), ranker.device, progress)
    return queries * seconds / rows


def measure(
    gallery: Gallery,
    images: Tensor,
    goal: Goal,
    passes: int | float,
    *,
    progress: ProgressCallback = no_progress,
) -> AttackCost:
    """The cost of an attack that just ran, which its result cannot know."""
    peak = peak_mb(gallery.ranker.device.type)  # first, since timing takes memory too
    seconds = bare_seconds(
        gallery,
        images,
        passes,
        whole_gallery=goal.whole_gallery,
        chunk=chunk_rows(gallery, goal),
        progress=progress,
    )
    return AttackCost(seconds, peak)


def measure_result(
    gallery: Gallery,
    images: Tensor | MixedImages,
    goal: Goal,
    result: AttackResult,
    *,
    progress: ProgressCallback = no_progress,
) -> AttackCost:
    """The cost of an attack from its result: of its passes, or of the queries spent in a black box."""
    if isinstance(images, MixedImages):
        return AttackCost(None, peak_mb(gallery.ranker.device.type))
    if result.log is None:
        spent_on_each = result.steps if result.evaluations is None else result.evaluations.double().mean()
        return measure(gallery, images, goal, float(spent_on_each), progress=progress)
    peak = peak_mb(gallery.ranker.device.type)
    spent = int(result.log.spent.sum())
    rows = max(1, min(PASS, spent // REPEATS))  # timing takes no longer than the attack did
    return AttackCost(query_seconds(gallery, images, spent, rows=rows, progress=progress), peak)


def peak_mb(device: str = "cpu") -> float:
    """The most memory this process held so far, in MB; on CUDA with the most memory of the GPU added."""
    unit = 1 if sys.platform == "darwin" else 1024  # Linux counts in KiB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    if device == "cuda":
        peak += torch.cuda.max_memory_allocated()
    return peak / 1e6


def _bare_pass(gallery: Gallery, images: Tensor, whole_gallery: bool) -> Callable[[], object]:
    """One forward and one backward pass of a chunk (b, c, h, w), as a call."""
    ranker, embeddings = gallery.ranker.for_search(), gallery.embeddings
    pixels = ranker.as_input(images).detach().requires_grad_(True)
    width = len(embeddings) if whole_gallery else embeddings.shape[1]
    upstream = torch.ones(len(images), width, device=ranker.device, dtype=embeddings.dtype)

    def one_pass() -> Tensor:
        with ranker.frozen():
            z = ranker.encode(pixels)  # (b, d)
            result = z @ embeddings.t() if whole_gallery else z  # (b, n) or (b, d)
            (gradient,) = torch.autograd.grad(result, pixels, upstream)
        return gradient

    return one_pass


def _best(work: Callable[[], object], device: torch.device, progress: ProgressCallback) -> float:
    """Seconds of the fastest of five calls; of the first two where these take long."""
    times: list[float] = []
    while len(times) < 2 or (len(times) < REPEATS and sum(times) < ENOUGH):
        times.append(_timed(work, device))
        progress(len(times), REPEATS)
    progress(REPEATS, REPEATS)
    return min(times)


def _timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds one call takes, the device's own queue included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begin = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin
