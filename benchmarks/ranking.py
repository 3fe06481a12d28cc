"""What exact ranks and the examination of an encoder cost beside the bare work.

    python benchmarks/ranking.py [--record]

Ranks of 4 items and the first 50 results for 500 queries, over the time of one matrix product of the same
queries with the same gallery in double precision; the examination of an EfficientNet-B0 with random weights
at 224 pixels, over the time of the passes it makes. Best of five; run it on an otherwise idle machine.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from rankproof.io import versions, write_atomically
from rankproof.ranking import Gallery, Ranker

QUERIES, ITEMS, VISIBLE, REPEATS = 500, 4, 50, 5
GALLERIES = [
    (10_000, 512, "cosine"),
    (10_000, 512, "euclidean"),
    (60_000, 512, "euclidean"),
    (10_000, 1280, "sphere"),
]
IMAGES = 8  # that an encoder is examined on


class Pooled(nn.Module):
    """The pooled features of a network of the transformers library."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        """(b, 3, h, w) to (b, d)."""
        z: Tensor = self.network(pixels).pooler_output.flatten(1)
        return z


def best(work: Callable[[], object]) -> float:
    """The shortest of some runs, in seconds."""
    times = []
    for _ in range(REPEATS):
        begin = perf_counter()
        work()
        times.append(perf_counter() - begin)
    return min(times)


def ranks(size: int, dimensions: int, distance: str) -> list[dict[str, object]]:
    """Ranking by one gallery of random embeddings."""
    random = torch.Generator().manual_seed(0)
    gallery = Gallery(Ranker(nn.Identity(), distance), torch.randn(size, dimensions, generator=random))
    z = torch.randn(QUERIES, dimensions, generator=random)
    ids = torch.randint(size, (QUERIES, ITEMS), generator=random)
    doubles = gallery.embeddings.double()
    gallery.rank_of(z[:1], ids[:1])  # places the gallery in its frame, once
    bare = best(lambda: z.double() @ doubles.T)
    rows = []
    for name, seconds in (
        (f"ranks of {ITEMS} items", best(lambda: gallery.rank_of(z, ids))),
        (f"first {VISIBLE}", best(lambda: gallery.search(z, VISIBLE))),
    ):
        where = f"{size:,} items, {dimensions} dimensions, {distance}"
        rows.append({"name": name, "where": where, "seconds": seconds, "bare": bare, "ratio": seconds / bare})
    return rows


def examination() -> dict[str, object]:
    """The examination of an encoder of the size that photo search uses."""
    from transformers import EfficientNetConfig, EfficientNetModel

    b0 = EfficientNetConfig(width_coefficient=1.0, depth_coefficient=1.0, hidden_dim=1280, image_size=224)
    encoder, images = Pooled(EfficientNetModel(b0)), torch.rand(IMAGES, 3, 224, 224)
    passes: list[int] = []
    encoder.register_forward_hook(lambda module, given, z: passes.append(len(z)))
    Ranker(encoder).begin(images)
    count, ranker = sum(passes), Ranker(encoder)

    def bare() -> None:
        with ranker.frozen(), torch.no_grad():
            for part in [images] * (count // IMAGES):
                ranker.embed(part)

    seconds, work = best(lambda: Ranker(encoder).begin(images)), best(bare)
    where = f"EfficientNet-B0, 224 pixels, {count} image passes and a gradient"
    return {"name": "examination", "where": where, "seconds": seconds, "bare": work, "ratio": seconds / work}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--record", action="store_true", help="write records/benchmarks/ranking.json")
    options = parser.parse_args()
    rows = [row for gallery in GALLERIES for row in ranks(*gallery)] + [examination()]
    table = Table("work", "on", "seconds", "bare seconds", "ratio")
    for row in rows:
        table.add_row(
            str(row["name"]), str(row["where"]), *(f"{row[key]:.3f}" for key in ("seconds", "bare", "ratio"))
        )
    Console().print(table)
    if options.record:
        record = {"command": "python benchmarks/ranking.py --record", "rows": rows, "versions": versions()}
        write_atomically(
            Path("records/benchmarks/ranking.json"), (json.dumps(record, indent=2) + "\n").encode()
        )


if __name__ == "__main__":
    main()
