"""What the inference graph of an encoder saves, and whether it changes a figure.

    python benchmarks/inference_graph.py [--model efficientnet-lite0] [--data groceries] [--record]

A pass and its gradient, and a pass alone, on the encoder as it is given and on its inference graph, in turn;
the best of nine counts. Then recall@1 and mAP of galleries embedded by either, the figures of the same
attacked images taken by either, and the attacks found by a search on either. Run it on an idle machine.
"""

import argparse
import json
import os
from pathlib import Path
from time import perf_counter

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from rankproof.attacks import attack
from rankproof.evaluation import accuracy
from rankproof.goals import Goal, QueryLower, QueryRaise, Reorder
from rankproof.io import versions, write_atomically
from rankproof.methods.defaults import strong
from rankproof.parallel import keep_freed_memory
from rankproof.ranking import Gallery, Ranker
from rankproof.ranking.metrics import mean_interval
from rankproof.system import RetrievalSystem, SystemOptions, open_system
from rankproof.threat import Threat

GOALS: dict[str, Goal] = {
    "QA+ m = 1": QueryRaise(m=1),
    "QA- m = 1": QueryLower(m=1),
    "OA k = 5": Reorder(k=5),
}
REPEATS, EPS, TRIALS = 9, 1 / 255, 100

Row = dict[str, object]


def main() -> None:
    keep_freed_memory()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="efficientnet-lite0")
    parser.add_argument("--data", default="groceries")
    parser.add_argument("--record", action="store_true", help="write records/benchmarks/inference-graph.json")
    options = parser.parse_args()
    root = Path(os.environ.get("RANKPROOF_DATA") or "data")
    target = open_system(options.model, options.data, SystemOptions(root=root))
    given = target.gallery.ranker
    # As a user's own network is: encoders that rankproof builds are laid out channels last already.
    given.encoder.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    fast = given.for_search()
    if fast is given:
        raise SystemExit(f"{options.model}: has no inference graph; nothing to compare")
    rows = [*times(given, fast, target), *retrieval(target, fast), *attacks(target, fast)]
    table = Table(f"{options.model} on {options.data}", "as given", "inference graph", "ratio or difference")
    for row in rows:
        table.add_row(str(row["name"]), *(f"{row[key]:.4g}" for key in ("given", "graph", "compared")))
    Console().print(table)
    if options.record:
        record = {
            "command": "python benchmarks/inference_graph.py --record",
            "encoder": given.examination.line if given.examination else None,
            "rows": rows,
            "versions": versions(),
        }
        write_atomically(
            Path("records/benchmarks/inference-graph.json"), (json.dumps(record, indent=2) + "\n").encode()
        )


def times(given: Ranker, fast: Ranker, target: RetrievalSystem) -> list[Row]:
    """Milliseconds an image takes, and how many times faster the graph is."""
    images = given.as_input(target.dataset.images[: given.chunk])
    rows = []
    for name, work in (("pass and gradient, ms an image", _gradient), ("pass, ms an image", _pass)):
        best = {given: float("inf"), fast: float("inf")}
        for _ in range(REPEATS):
            for ranker in best:
                begin = perf_counter()
                work(ranker, images)
                best[ranker] = min(best[ranker], 1000 * (perf_counter() - begin) / len(images))
        rows.append(_row(name, best[given], best[fast], best[given] / best[fast]))
    return rows


def retrieval(target: RetrievalSystem, fast: Ranker) -> list[Row]:
    """Recall@1 and mAP, in %, of galleries embedded by either."""
    other = Gallery.build(fast, target.dataset.images, target.dataset.labels)
    found = [accuracy(gallery, 0).values for gallery in (target.gallery, other)]
    rows = []
    for name in ("recall_at_1", "map"):
        means = [float(values[name].mean()) for values in found]
        rows.append(_row(f"{name}, %", *means, means[1] - means[0]))
    return rows


def attacks(target: RetrievalSystem, fast: Ranker) -> list[Row]:
    """Mean figures of the attacks on the same images: taken by either, then searched on either."""
    index = target.draw(TRIALS, seed=0)
    images, given = target.dataset.take(index), target.gallery
    graph = Gallery(fast, given.embeddings, given.labels)
    rows = []
    for name, goal in GOALS.items():
        arguments = {"method": strong(goal.metric), "gallery_ids": index}
        searched = attack(given, images, goal, Threat(EPS), **arguments)  # on the graph
        again = _judged(graph, searched.adversarial, searched.targets, goal)
        ours = searched.headline().double()
        rows.append(_row(f"{name}, the same images", *_means(ours, again), float((again - ours).abs().max())))
        found, given.ranker._graph = given.ranker._graph, None
        slow = attack(given, images, goal, Threat(EPS), **arguments).headline().double()
        given.ranker._graph = found
        paired = mean_interval(ours - slow)
        rows.append(
            _row(f"{name}, searched on it", *_means(slow, ours), paired.mean)
            | {"low": paired.low, "high": paired.high}
        )
    return rows


def _judged(gallery: Gallery, images: Tensor, targets: Tensor, goal: Goal) -> Tensor:
    """The headline figure of each attacked image, by a gallery's own encoder."""
    z = gallery.ranker.embed_all(images)
    if isinstance(goal, Reorder):
        places = gallery.rank_of(z, targets, ties="order")
        return goal.score(places[:, None], None)[:, 0].double()
    return 100 * gallery.rank_of(z, targets).double().mean(1) / len(gallery)


def _means(*values: Tensor) -> list[float]:
    return [float(each.mean()) for each in values]


def _gradient(ranker: Ranker, images: Tensor) -> None:
    pixels = images.clone().requires_grad_(True)
    with ranker.frozen():
        torch.autograd.grad(ranker.embed(pixels).sum(), pixels)


def _pass(ranker: Ranker, images: Tensor) -> None:
    with ranker.frozen(), torch.no_grad():
        ranker.embed(images)


def _row(name: str, given: float, graph: float, compared: float) -> Row:
    return {"name": name, "given": given, "graph": graph, "compared": compared}


if __name__ == "__main__":
    main()
