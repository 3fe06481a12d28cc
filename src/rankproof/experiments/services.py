"""The measurements behind the live-service part of docs/results.md.

    python -m rankproof.experiments.services tables|pipeline [--trials T] [--data NAME ...]

`tables` is the setting of ICCV tables 6 and 7 in a world of our own: photographs of 128 x 128 pixels,
searched by a ResNet-18 that sees them at 64 x 64, the first 50 results in sight, 100 queries, 8-bit pictures.
Its models come from `python -m rankproof.experiments.training colour`. `pipeline` starts `rankproof serve`,
which makes a JPEG file of each picture and shrinks it, attacks it over HTTP, and sends what was found once
more. Each cell goes to records/services/ as soon as it is there.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import torch

from rankproof.attack import attack
from rankproof.experiments.ordering import KEPT, VARIANTS, Cell, complete
from rankproof.files import write_atomically
from rankproof.goals import Reorder
from rankproof.memory import keep_freed_memory
from rankproof.models import Preprocess
from rankproof.oracle import ListOracle, Watch
from rankproof.ranking.metrics import short_range_tau
from rankproof.target import Target, open_target
from rankproof.threat import Threat
from rankproof.types import Images
from rankproof.wire import RANKPROOF_SERVICE, Client, HttpOracle, RateLimit, ResponseCache, check_destination
from rankproof.wire.http_oracle import cached_search, exact_png

DATA = ("grocery_128", "cars196_cropped_128")
MODELS, RECORDS = Path("runs/training"), Path("records/services")
SIDE, SEEN, JPEG = 128, 64, 90  # of a picture, of what the encoder sees, quality
METHODS = ("spsa-on-grid", "auto")
VISIBLE, BUDGET = 50, 100
UNLIMITED = "1000000"


def tables() -> Iterator[Cell]:
    """ICCV tables 6 and 7: everything over a wire is an 8-bit picture, of strangers to the gallery."""
    for level in (1, 2, 8):
        for k in (5, 10, 25):
            for method in METHODS:
                yield Cell(method=method, k=k, visible=VISIBLE, level=level, budget=BUDGET, own_copy="drop")


def pipelines() -> Iterator[Cell]:
    """A service that treats uploads as platforms do."""
    for level in (2, 8):
        for method in METHODS:
            yield Cell(method=method, k=5, visible=VISIBLE, level=level, budget=BUDGET)


def model_of(data: str) -> str:
    """The folder of the model that was trained on a data set."""
    return str(MODELS / f"{data}-{SEEN}")


def opened(data: str, root: Path) -> Target:
    """Photographs and the model that was trained on such."""
    return open_target(model_of(data), data, size=SIDE, root=root, preprocess=Preprocess(resize=SEEN))


def measure_tables(data: str, trials: int, root: Path) -> None:
    """All cells of one data set, through the local oracle."""
    target = opened(data, root)
    for cell in tables():
        path = RECORDS / data / f"{cell.name}.json"
        record = complete(path, target, cell, trials, 0, _command("tables", data, trials))
        print(f"{path} {mean(record['tau']):.3f}", flush=True)


def measure_pipeline(data: str, trials: int, root: Path) -> None:
    """The cells of one data set, over HTTP."""
    target = opened(data, root)
    for cell in pipelines():
        path = RECORDS / data / f"jpeg{JPEG}-{cell.name}.json"
        if path.exists():
            continue
        with served(data) as url:
            record = sent_again(target, cell, url, trials) | {"command": _command("pipeline", data, trials)}
        write_atomically(path, (json.dumps(record) + "\n").encode())
        print(f"{path} {mean(record['tau']):.3f}, sent again {mean(record['again']):.3f}", flush=True)


@contextmanager
def served(data: str) -> Iterator[str]:
    """The address of a service of its own process, whose uploads pass a JPEG file and a smaller size."""
    with TemporaryDirectory() as folder:
        chain = ["--size", str(SIDE), "--jpeg", str(JPEG), "--resize", str(SEEN)]
        limits = ["--per-day", UNLIMITED, "--per-second", UNLIMITED]
        words = ["serve", "--model", model_of(data), "--data", data, "--port", "0", "--folder", folder]
        command = [sys.executable, "-m", "rankproof", *words, *chain, *limits]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None  # where it tells its address
            try:
                lines = (line for line in process.stderr if line.startswith("serving at "))
                yield next(lines).split()[2].rstrip(",") + "/search"
            finally:
                process.terminate()


def sent_again(target: Target, cell: Cell, url: str, trials: int) -> dict[str, Any]:
    """tau_S before and after an attack over HTTP, and of the picture it returned when that is sent anew.

    Args:
        target: whose pictures are sent; its own ranking is not asked.
    """
    index, threat = target.draw(trials, 0), Threat(cell.level / 255, grid=True)
    method, space, _ = VARIANTS[cell.method]
    with (
        closing(Client(check_destination(url), RANKPROOF_SERVICE, rate_limit=RateLimit())) as client,
        closing(ResponseCache(None, client.service)) as cache,
        closing(ResponseCache(None, client.service)) as fresh,
    ):
        result = attack(
            HttpOracle(client, cache, VISIBLE),
            target.dataset.take(index),
            Reorder(k=cell.k),
            threat,
            method=method,
            space=space,
            budget=cell.budget,
            index=index,
        )

        def search(images: Images) -> list[list[str]]:
            return cached_search(client, fresh, [exact_png(image) for image in images])

        # The same numbers for the service's ids, and a cache that cannot answer in its place.
        anew = ListOracle(search, VISIBLE, cache.numbers)
        watch = Watch(torch.arange(len(index)), result.targets)
        places = anew(result.adversarial[:, None], watch)[:, 0]
    told = result.cell(model=target.gallery.ranker.name, data=target.dataset.name)
    found = {"tau_before": result.tau_before, "tau": result.tau, "again": short_range_tau(places, VISIBLE)}
    figures = {name: [round(value, 6) for value in values.tolist()] for name, values in found.items()}
    return {name: told[name] for name in KEPT} | {"jpeg": JPEG, "resize": SEEN} | figures


def _command(experiment: str, data: str, trials: int) -> str:
    return f"python -m rankproof.experiments.services {experiment} --data {data} --trials {trials}"


EXPERIMENTS = {"tables": measure_tables, "pipeline": measure_pipeline}


def main() -> None:
    """Parse and run."""
    keep_freed_memory()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--trials", type=int, default=100)
    options = parser.parse_args()
    root = Path(os.environ.get("RANKPROOF_DATA") or "data")
    for data in options.data:
        EXPERIMENTS[options.experiment](data, options.trials, root)


if __name__ == "__main__":
    main()
