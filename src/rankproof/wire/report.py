"""What came of an attack on a live service: one result of all pictures, and the files of it."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rankproof.cost import peak_mb
from rankproof.files import write_atomically
from rankproof.result import SUMMARY, AttackResult
from rankproof.wire.client import AGENT
from rankproof.wire.http_oracle import HttpOracle
from rankproof.wire.picture import png

STRIPS = "strips.json"


@dataclass(frozen=True, kw_only=True)
class Visited:
    """What came of it.

    Args:
        result: all attacks together; pictures of several sizes are filled up with black.
        pictures: adversarial PNGs by the names of their files.
        strips: for each attack the service's own ids: the wanted order, the results before and after.
        cell: what `rankproof attack --json` prints.
    """

    result: AttackResult
    pictures: dict[str, bytes]
    strips: list[dict[str, Any]]
    cell: dict[str, Any]

    def save(self, folder: Path) -> None:
        """Write the pictures, `strips.json`, `attack.npz` and `result.json`."""
        for name, content in self.pictures.items():
            write_atomically(folder / name, content)
        self.result.save(folder)
        for name, value in ((STRIPS, self.strips), (SUMMARY, self.cell)):
            write_atomically(folder / name, f"{json.dumps(value, indent=2, allow_nan=False)}\n".encode())


def report(queries: list[Path], results: list[AttackResult], oracle: HttpOracle) -> Visited:
    """The attacks on some files as one value; what a service does not tell is null in it.

    Args:
        queries: the attacked files.
        results: of one attack on each of them.
        oracle: what was asked; its ledger has the answer to every picture that was sent.
    """
    result, service = joined(results), _service(oracle)
    notes = [f"{service['calls']} calls to {service['url']}, {service['calls_today']} of them today"]
    if service["authorised"] is not None:
        notes.append(f"authorised: {service['authorised']}")
    result = replace(result, notes=(*result.notes, *notes))
    pictures, strips = {}, []
    for name, query, found in zip(_names(queries), queries, results, strict=True):
        file = f"{name}-adversarial.png"
        pictures[file] = png(found.adversarial[0])
        strips.append({"query": str(query), "adversarial": file, **_strip(found, oracle)})
    context = {"model": None, "data": ", ".join(map(str, queries)), "peak_mb": peak_mb()}
    cell = result.cell(**context) | {"service": service, "attacks": strips}
    return Visited(result=result, pictures=pictures, strips=strips, cell=cell)


def joined(results: list[AttackResult]) -> AttackResult:
    """Attacks of one kind on one picture each, as one result."""

    def figures(when: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {name: torch.cat([each[name] for each in when]) for name in when[0]}

    return replace(
        results[0],
        original=stacked([result.original[0] for result in results]),
        adversarial=stacked([result.adversarial[0] for result in results]),
        index=None,
        targets=torch.cat([result.targets for result in results]),
        preserved=torch.cat([result.preserved for result in results]),
        silent=torch.cat([result.silent for result in results]),
        before=figures([result.before for result in results]),
        after=figures([result.after for result in results]),
        steps=max(result.steps for result in results),
        seconds=sum(result.seconds for result in results),
        queries=torch.cat([result.queries for result in results if result.queries is not None]),
        scores=torch.cat([result.scores for result in results if result.scores is not None]),
    )


def stacked(pictures: list[Tensor]) -> Tensor:
    """Pictures (c, h, w) of any sizes as (b, c, h, w), filled up with black at the ends."""
    sizes = [max(picture.shape[side] for picture in pictures) for side in range(3)]

    def filled(picture: Tensor) -> Tensor:
        channels, height, width = (size - own for size, own in zip(sizes, picture.shape, strict=True))
        return functional.pad(picture, (0, width, 0, height, 0, channels))

    return torch.stack([filled(picture) for picture in pictures])


def _service(oracle: HttpOracle) -> dict[str, Any]:
    """Who was asked by whose leave, and how often."""
    destination, ledger = oracle.client.destination, oracle.ledger
    return {
        "url": destination.url,
        "address": destination.address,
        "authorised": destination.authorised,
        "user_agent": AGENT,
        "calls": ledger.calls,
        "calls_today": ledger.calls_today,
    }


def _strip(found: AttackResult, oracle: HttpOracle) -> dict[str, Any]:
    """One attack in the service's own ids."""
    return {
        "wanted": [oracle.name(number) for number in found.targets[0].tolist()],
        "before": oracle.ledger[png(found.original[0])],
        "after": oracle.ledger[png(found.adversarial[0])],
        "tau_before": float(found.tau_before[0]),
        "tau": float(found.tau[0]),
    }


def _names(queries: list[Path]) -> list[str]:
    """A name for the files of each picture; its number is added where two have the same."""
    stems = [path.stem for path in queries]
    return [
        stem if stems.count(stem) == 1 else f"{stem}-{number}" for number, stem in enumerate(stems, start=1)
    ]
