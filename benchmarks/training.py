"""Time of a training epoch, compared with the encoder passes it cannot avoid.

    python benchmarks/training.py [--data fashion-mnist] [--record]

The bare work is the encoder's forward and backward passes of the batches, for a defence also the forward
and input-gradient passes of its attack and the forward passes it compares with, and the forward passes of the
test images that R@1 needs: the best of five passes of each kind, in the same run. Of three epochs the best
counts. Run it on an otherwise idle machine.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from rankproof.data import Dataset, load
from rankproof.io import versions, write_atomically
from rankproof.models import new_encoder
from rankproof.parallel import keep_freed_memory
from rankproof.ranking import Ranker
from rankproof.training import EmbeddingShift, InBatch, InnerAttack, Training, published
from rankproof.training.loop import in_precision
from rankproof.training.recipe import Recipe

IMAGES, TEST, EPOCHS, BEST_OF = 6000, 2000, 3, 5
INNER = InnerAttack(eps=0.3, steps=3, step=0.2, start=0.3)
RECIPES = {
    "CT": published(),
    "CC": published(loss="contrastive"),
    "ET": published("euclidean"),
    "CT, batches of 200": replace(published(), sampler=InBatch(batch=200)),
    "CT, bf16": replace(published(), precision="bf16"),
    "CTD, fast": replace(published(), sampler=InBatch(batch=200), defense=EmbeddingShift(inner=INNER)),
}


def best(work: Callable[[], Any]) -> float:
    """Seconds of the best of some runs."""
    times = []
    for _ in range(BEST_OF):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times)


def bare_seconds(ranker: Ranker, data: Dataset, test: Dataset, recipe: Recipe) -> float:
    """Time of the passes an epoch needs."""
    size = recipe.sampler.batch
    pixels = ranker.as_input(data.images[:size])
    ones = torch.ones_like(ranker.encoder(pixels))

    def learn() -> None:
        ranker.encoder(pixels).backward(ones)

    def ascend() -> Tensor:
        with ranker.frozen():
            images = pixels.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(ranker.encoder(images), images, ones)
        return gradient

    def embed(images: Tensor) -> Callable[[], Tensor]:
        @torch.inference_mode()
        def call() -> Tensor:
            return ranker.encoder(images)

        return call

    batches = len(data) / size
    seconds = batches * best(learn)
    if recipe.defense.name != "none":
        seconds += batches * (INNER.steps * best(ascend) + best(embed(pixels)))
    tested = ranker.as_input(test.images[: ranker.chunk])
    return seconds + len(test) / len(tested) * best(embed(tested))


def row(name: str, data: Dataset, test: Dataset) -> dict[str, Any]:
    """One recipe: seconds of an epoch over those of its passes."""
    recipe = RECIPES[name]
    ranker = Ranker(in_precision(new_encoder("c2f1"), recipe.precision), recipe.distance)
    training = Training(ranker, data, test, recipe)
    times = []
    for _ in range(EPOCHS):
        begin = time.perf_counter()
        training.epoch()
        times.append(time.perf_counter() - begin)
    bare = bare_seconds(ranker, data, test, recipe)
    return {"name": name, "seconds": min(times), "model_seconds": bare, "ratio": min(times) / bare}


def main() -> None:
    keep_freed_memory()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--record", action="store_true", help="write records/benchmarks/training.json")
    options = parser.parse_args()
    root = Path(os.environ.get("RANKPROOF_DATA") or "data")
    data = load(options.data, "train", root=root).head(IMAGES)
    test = load(options.data, "test", root=root).head(TEST)
    rows = [row(name, data, test) for name in RECIPES]
    table = Table(f"an epoch of {IMAGES:,} images", "seconds", "bare seconds", "ratio")
    for values in rows:
        figures = (f"{values[name]:.2f}" for name in ("seconds", "model_seconds", "ratio"))
        table.add_row(values["name"], *figures)
    Console().print(table)
    if options.record:
        record = {
            "command": "python benchmarks/training.py --record",
            "pictures": IMAGES,
            "test": TEST,
            "threads": torch.get_num_threads(),
            "rows": rows,
            "versions": versions(),
        }
        write_atomically(
            Path("records/benchmarks/training.json"), (json.dumps(record, indent=2) + "\n").encode()
        )


if __name__ == "__main__":
    main()
