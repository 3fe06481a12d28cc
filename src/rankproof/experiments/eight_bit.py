"""Whether a saved picture does what was reported: written as a PNG file, read back and searched again.

    python -m rankproof.experiments.eight_bit [--data NAME] [--trials T] [--method M]

The record is records/black-box-saved.json.
"""

import argparse
import json
import os
import shlex
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from rankproof.attack import attack
from rankproof.data.images import decode, peek
from rankproof.experiments.black_box import MODEL
from rankproof.experiments.ordering import METHODS, PIECE, Cell
from rankproof.files import write_atomically
from rankproof.goals import Reorder
from rankproof.memory import keep_freed_memory
from rankproof.oracle import LocalOracle, Oracle, Watch
from rankproof.ranking.metrics import short_range_tau
from rankproof.target import Target, open_target
from rankproof.threat import Threat
from rankproof.types import Ids, Images, PerAttack

RECORD = Path("records/black-box-saved.json")
KEPT = ("method", "eps", "k", "visible", "budget", "seed", "model", "data", "device", "notes", "versions")


def measured(target: Target, cell: Cell, trials: int, seed: int) -> dict[str, Any]:
    """tau_S as reported and of the saved pictures, for each attack; always on the 8-bit grid."""
    reported: list[float] = []
    again: list[float] = []
    known: dict[str, Any] = {}
    for index in target.draw(trials, seed).split(PIECE):
        result = attack(
            LocalOracle(target.gallery, cell.visible),
            target.dataset.take(index),
            Reorder(k=cell.k),
            Threat(cell.level / 255, grid=True),
            method=METHODS[cell.method],
            budget=cell.budget,
            seed=seed,
            index=index,
        )
        with TemporaryDirectory() as folder:
            images = saved_and_read(result.adversarial, Path(folder))
        found = searched_alone(LocalOracle(target.gallery, cell.visible), images, result.targets)
        reported, again = reported + result.tau.tolist(), again + found.tolist()
        known = result.cell(model=target.gallery.ranker.name, data=target.dataset.name)
        print(f"{len(again)} of {trials}, {_equal(reported, again)} equal", flush=True)
    return {
        **{name: known[name] for name in KEPT},
        "trials": len(again),
        "equal": _equal(reported, again),
        "mean_tau": sum(reported) / len(reported),
        "tau": reported,
        "tau_saved": again,
    }


def saved_and_read(images: Images, folder: Path) -> Tensor:
    """Pictures (b, c, h, w) in [0, 1] after a way through PNG files of `folder`."""
    reloaded = []
    for number, image in enumerate((images * 255).round().byte()):
        path = folder / f"{number}.png"
        pixels = image.permute(1, 2, 0)  # (h, w, c)
        Image.fromarray((pixels if pixels.shape[2] > 1 else pixels[:, :, 0]).numpy()).save(path)
        raw = path.read_bytes()
        reloaded.append(torch.from_numpy(decode(raw, path.name, peek(raw, path.name)).copy()))
    return torch.stack(reloaded).float() / 255


def searched_alone(oracle: Oracle, images: Images, wanted: Ids) -> PerAttack:
    """tau_S of each picture, sent by itself as a stranger would send a file."""
    places = [
        oracle(image[None, None], Watch(torch.arange(1), ids[None]))
        for image, ids in zip(images, wanted, strict=True)
    ]
    return short_range_tau(torch.cat(places), oracle.visible)[:, 0]


def run(data: str, root: Path, method: str, trials: int, seed: int) -> None:
    """Measure and write the record."""
    cell = Cell(method=method, k=5, visible=50, level=4)
    record = measured(open_target(MODEL, data, root=root), cell, trials, seed)
    command = shlex.join(["python", "-m", "rankproof.experiments.eight_bit", *sys.argv[1:]])
    write_atomically(RECORD, (json.dumps({"command": command, **record}) + "\n").encode())
    print(f"{RECORD} {record['equal']} of {record['trials']}, mean {record['mean_tau']:.3f}")


def _equal(reported: list[float], again: list[float]) -> int:
    return sum(one == other for one, other in zip(reported, again, strict=True))


def main() -> None:
    """Parse and run."""
    keep_freed_memory()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--method", choices=METHODS, default="auto")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    root = Path(os.environ.get("RANKPROOF_DATA") or "data")
    run(options.data, root, options.method, options.trials, options.seed)


if __name__ == "__main__":
    main()
