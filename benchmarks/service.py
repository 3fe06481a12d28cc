"""Throughput of the search service compared with its encoder alone, and the cost of its indexes.

    python benchmarks/service.py [--requests 20000] [--items 100000] [--only load|index] [--record]

Load: the service of an untrained ResNet-18 on images of 128 x 128 runs in a separate process; 16 clients in
this process send PNG files as fast as they are answered; both share the cores. The reference is the encoder
alone at batch size 16, before and after. Memory is that of the server, measured ten times. Index: clustered
embeddings, as trained encoders give them, are inserted into each index, which is then opened again and
searched. Run it on an otherwise idle machine.
"""

import argparse
import json
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional

from rankproof.data import Dataset
from rankproof.indexes import Index
from rankproof.indexes.faiss import FaissIndex
from rankproof.indexes.pgvector import PgvectorIndex
from rankproof.io import encode_png, versions, write_atomically
from rankproof.models import new_encoder
from rankproof.parallel import keep_freed_memory
from rankproof.ranking import Cosine, Gallery, Ranker
from rankproof.service.batching import batch_invariant_multiple
from rankproof.service.limits import Limits
from rankproof.service.opening import fill
from rankproof.service.search_service import SearchService
from rankproof.service.server import serve
from rankproof.service.storage import Database, Items, Sqlite
from rankproof.service.storage.postgres import start_embedded
from rankproof.service.worker_thread import run_in_worker_thread
from rankproof.system import no_display

SIDE, GALLERY, CLIENTS, BATCH, BEST_OF, MEASUREMENTS = 128, 256, 16, 16, 5, 10
RECORD = Path("records/benchmarks/service.json")
ITEMS, DIMENSIONS, QUERIES, VISIBLE, BLOCK = 100_000, 512, 100, 50, 2000


def new_ranker() -> Ranker:
    torch.manual_seed(0)
    return Ranker(new_encoder("resnet18"), "cosine", chunk=BATCH)


def random_images(count: int, seed: int) -> torch.Tensor:
    """Smooth random images, whose files are as large as those of photographs."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, SIDE // 4, SIDE // 4, generator=random)
    smooth = functional.interpolate(coarse, (SIDE, SIDE), mode="bilinear")
    return (smooth * 255).to(torch.uint8)


def run_server(folder: str, output: Connection) -> None:
    """Serve in this process; sends the lines that it prints."""
    keep_freed_memory()
    service = run_in_worker_thread(lambda stage: new_service(Path(folder)), no_display)
    serve(service, "127.0.0.1", 0, folder=Path(folder), log=output.send)


def new_service(folder: Path) -> SearchService:
    """The service of an untrained encoder."""
    ranker, images = new_ranker(), random_images(GALLERY, 0)
    labels = torch.zeros(GALLERY, dtype=torch.int64)
    dataset = Dataset(
        images=images, labels=labels, classes=("",), name="random", split="test", note="random images"
    )
    database, limits = Sqlite(folder / "service.sqlite"), Limits(per_day=10**9, per_second=10**9)
    items = Items(database, DIMENSIONS)
    fill(items, ranker, dataset, "benchmark", lambda done, total: None)
    return SearchService(
        ranker=ranker,
        dataset=dataset,
        items=items,
        index=FaissIndex(items, ranker.distance, folder),
        limits=limits,
        batch_multiple=batch_invariant_multiple(ranker, images.shape[1:], limits.batch),
    )


@contextmanager
def running() -> Iterator[tuple[int, int]]:
    """The port and the process id of a running service."""
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = get_context("spawn").Pipe()
        process = get_context("spawn").Process(target=run_server, args=(folder, theirs))
        process.start()
        try:
            while not (line := ours.recv()).startswith("serving at"):
                pass
            assert process.pid is not None
            yield int(line.split(",")[0].rpartition(":")[2]), process.pid
        finally:
            process.kill()
            process.join()


def encoder_speed() -> float:
    """Images per second at batch size 16, best of five."""
    ranker, images = new_ranker(), random_images(2 * BATCH, 1)
    times = []
    for _ in range(BEST_OF + 1):  # the first warms up
        begin = time.perf_counter()
        ranker.embed_all(images)
        times.append(time.perf_counter() - begin)
    return len(images) / min(times[1:])


def megabytes(pid: int) -> float:
    """Resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def send(port: int, files: list[bytes], count: int) -> list[float]:
    """Send requests one after the other; returns the response time of each in seconds."""
    connection, times = HTTPConnection("127.0.0.1", port), []
    for number in range(count):
        begin = time.perf_counter()
        connection.request("POST", "/search", files[number % len(files)], {"Content-Type": "image/png"})
        answer = connection.getresponse()
        body = answer.read()
        times.append(time.perf_counter() - begin)
        assert answer.status == 200, body
    connection.close()
    return times


def load_row(requests: int) -> dict[str, Any]:
    """Throughput, response times and memory under 16 clients."""
    before = encoder_speed()
    files = [encode_png(image) for image in random_images(64, 2)]
    memory, times = [], []
    with running() as (port, pid), ThreadPoolExecutor(CLIENTS) as pool:
        send(port, files, 50)  # warms up
        begin = time.perf_counter()
        share = max(1, requests // MEASUREMENTS // CLIENTS)
        for _ in range(MEASUREMENTS):
            for part in pool.map(lambda client: send(port, files, share), range(CLIENTS)):
                times += part
            memory.append([len(times), megabytes(pid)])
        seconds = time.perf_counter() - begin
    latencies, alone = torch.tensor(times), (before + encoder_speed()) / 2
    speed = len(times) / seconds
    return {
        "requests": len(times),
        "clients": CLIENTS,
        "encoder_per_second": alone,
        "per_second": speed,
        "ratio": speed / alone,
        "p50_ms": 1000 * float(latencies.quantile(0.5)),
        "p99_ms": 1000 * float(latencies.quantile(0.99)),
        "memory_mb": memory,
    }


def clustered(count: int, seed: int) -> torch.Tensor:
    """Unit embeddings in clusters of fifty."""
    centres = torch.randn(ITEMS // 50, DIMENSIONS, generator=torch.Generator().manual_seed(0))
    random = torch.Generator().manual_seed(seed)
    members = centres[torch.randint(len(centres), (count,), generator=random)]
    return functional.normalize(members + 0.5 * torch.randn(count, DIMENSIONS, generator=random))


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.perf_counter()
    result = work()
    return time.perf_counter() - begin, result


def index_row(name: str, count: int) -> dict[str, Any]:
    """The cost of one index: inserting items, opening it for the first and the second time, and searching."""
    kind, exact = name.split()[0], name.endswith("exact")
    z, queries = clustered(count, 1), clustered(QUERIES, 2)
    wanted = Gallery(Ranker(torch.nn.Identity(), "cosine"), z).search(queries, VISIBLE).tolist()

    def insert() -> Items:
        items = Items(database, DIMENSIONS)
        for start in range(0, count, BLOCK):
            part = z[start : start + BLOCK]
            items.add([str(start + place) for place in range(len(part))], part, [None] * len(part))
        return items

    def open_index() -> Index:
        limit = None if exact else 1
        if kind == "faiss":
            return FaissIndex(items, Cosine(), Path(folder), hnsw_from=limit)
        return PgvectorIndex(items, database.connection, Cosine(), hnsw_from=limit)

    with tempfile.TemporaryDirectory() as folder:
        database: Any = new_database(kind, Path(folder))
        inserting, items = timed(insert)
        building, index = timed(open_index)
        index.close()
        opening, index = timed(open_index)
        index.search(queries[:1], VISIBLE)
        searching, found = timed(lambda: [index.search(query[None], VISIBLE)[0] for query in queries])
        database.close()
    hits = sum(len({int(name) for name in a} & set(b)) for a, b in zip(found, wanted, strict=True))
    return {
        "name": name,
        "items": count,
        "insert_seconds": inserting,
        "build_seconds": building,
        "reopen_seconds": opening,
        "search_ms": 1000 * searching / QUERIES,
        "recall": hits / (QUERIES * VISIBLE),
    }


def new_database(kind: str, folder: Path) -> Database:
    return Sqlite(folder / "service.sqlite") if kind == "faiss" else start_embedded(folder / "postgres")


def main() -> None:
    keep_freed_memory()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=20_000, help="requests of all clients together")
    parser.add_argument("--items", type=int, default=ITEMS, help="embeddings in each index")
    parser.add_argument("--only", choices=("load", "index"), help="run one half only")
    parser.add_argument("--record", action="store_true", help=f"write {RECORD}")
    options = parser.parse_args()
    # A half that is measured alone leaves the other as it was.
    record = json.loads(RECORD.read_text()) if options.only and RECORD.exists() else {}
    if options.only != "index":
        record["load"] = row = load_row(options.requests)
        table = Table("requests", "encoder alone", "service", "ratio", "p50", "p99", "memory, first to last")
        memory = [f"{mb:,.0f}" for _, mb in row["memory_mb"]]
        table.add_row(
            f"{row['requests']:,}",
            f"{row['encoder_per_second']:.1f}/s",
            f"{row['per_second']:.1f}/s",
            f"{row['ratio']:.2f}",
            f"{row['p50_ms']:.0f} ms",
            f"{row['p99_ms']:.0f} ms",
            f"{' '.join(memory)} MB",
        )
        Console().print(table)
    if options.only != "load":
        table = Table("index", "items", "insert", "build", "open again", "one search", "recall@50")
        record["index"] = []
        for name in ("faiss exact", "faiss hnsw", "pgvector exact", "pgvector hnsw"):
            row = index_row(name, options.items)
            record["index"].append(row)
            table.add_row(
                name,
                f"{row['items']:,}",
                *(f"{row[key]:.1f} s" for key in ("insert_seconds", "build_seconds", "reopen_seconds")),
                f"{row['search_ms']:.1f} ms",
                f"{row['recall']:.4f}",
            )
        Console().print(table)
    if options.record:
        record |= {
            "command": shlex.join(["python", "benchmarks/service.py", *sys.argv[1:]]),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "versions": versions(),
        }
        content = (json.dumps(record, indent=2) + "\n").encode()
        write_atomically(RECORD, content)


if __name__ == "__main__":
    main()
