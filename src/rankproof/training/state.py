"""All that a training needs to go on, in files that can be refused when damaged."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from rankproof.errors import RankproofError
from rankproof.io import write_atomically
from rankproof.training.losses import Loss

FOLDER = "state"
UNFINISHED = "first-epoch"  # there while a first epoch is written, of which the state comes last
KEPT = 2  # newest states on disk: a damaged one leaves the one before it
MODEL, LOSS, ADAM = "model", "loss", "optimizer"


@dataclass(frozen=True)
class State:
    """A training at the end of an epoch.

    Args:
        tensors: weights, running statistics and moments of the optimiser by name.
        sheet: epochs done, their history, settings, what a defence carries from step to step.
    """

    tensors: dict[str, Tensor]
    sheet: dict[str, Any]


def collected(encoder: nn.Module, loss: Loss, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Everything that changes while training."""
    tensors = {f"{MODEL}/{name}": value for name, value in encoder.state_dict().items()}
    tensors |= {f"{LOSS}/{name}": value for name, value in loss.state().items()}
    for number, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"{ADAM}/{number}/{name}": torch.as_tensor(value) for name, value in moments.items()}
    return {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}


def restore(state: State, encoder: nn.Module, loss: Loss, optimizer: torch.optim.Optimizer) -> None:
    """Put everything back as it was."""
    encoder.load_state_dict(_below(state, MODEL))
    loss.restore(_below(state, LOSS))
    parameters = [parameter for part in optimizer.param_groups for parameter in part["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in _below(state, ADAM).items():
        number, _, word = name.partition("/")
        own = parameters[int(number)]
        # Adam reads moments in the order in which the parameter itself lies in memory.
        placed = torch.empty_like(own).copy_(value) if value.shape == own.shape else value
        moments.setdefault(int(number), {})[word] = placed.detach()
    whole = optimizer.state_dict()
    optimizer.load_state_dict({**whole, "state": moments})


def write(folder: Path, state: State) -> None:
    """Keep a state beside the ones before it; only the newest stay."""
    place, number = folder / FOLDER, int(state.sheet["epochs_done"])
    content = save(state.tensors)
    sheet = {**state.sheet, "sha256": _digest(state.sheet, content)}
    write_atomically(_weights(place, number), content)
    write_atomically(_sheet(place, number), (json.dumps(sheet, indent=2) + "\n").encode())
    (place / UNFINISHED).unlink(missing_ok=True)
    for old in _numbers(place)[:-KEPT]:
        for file in (_sheet(place, old), _weights(place, old)):
            file.unlink(missing_ok=True)


def begin(folder: Path) -> None:
    """Forget all states and tell, until there is a new one, that a training has begun."""
    write_atomically(folder / FOLDER / UNFINISHED, b"")
    forget(folder)


def stopped_at_first(folder: Path) -> bool:
    """Whether a training was stopped after its first epoch had begun to be written."""
    return (folder / FOLDER / UNFINISHED).exists()


def newest(folder: Path) -> tuple[State | None, list[str]]:
    """The newest undamaged state, None where there is none, and what was refused on the way to it."""
    refused: list[str] = []
    for number in reversed(_numbers(folder / FOLDER)):
        try:
            return _read(folder / FOLDER, number), refused
        except RankproofError as error:
            refused.append(str(error))
    return None, refused


def forget(folder: Path) -> None:
    """Remove all states: a new training begins."""
    for file in _files(folder / FOLDER):
        file.unlink(missing_ok=True)


def _read(place: Path, number: int) -> State:
    weights, sheet = _weights(place, number), _sheet(place, number)
    try:
        told = json.loads(sheet.read_text())
        content = weights.read_bytes()
    except (OSError, ValueError):
        raise RankproofError(f"{sheet}: cannot be read") from None
    promised = told.pop("sha256", None) if isinstance(told, dict) else None
    if promised != _digest(told, content):
        raise RankproofError(f"{weights}: damaged, it or {sheet.name} is not what was written")
    try:
        return State(load(content), told)
    except (SafetensorError, ValueError) as error:
        raise RankproofError(f"{weights}: not a safetensors file ({error})") from None


def _digest(sheet: Any, content: bytes) -> str:
    """Of everything in a state; the sheet as it comes back from its file."""
    plain = json.dumps(json.loads(json.dumps(sheet)), sort_keys=True)
    return hashlib.sha256(plain.encode() + b"/" + content).hexdigest()


def _below(state: State, top: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(f"{top}/"): value
        for name, value in state.tensors.items()
        if name.startswith(f"{top}/")
    }


def _weights(place: Path, number: int) -> Path:
    return place / f"epoch-{number:04d}.safetensors"


def _sheet(place: Path, number: int) -> Path:
    return place / f"epoch-{number:04d}.json"


def _numbers(place: Path) -> list[int]:
    """The epochs of which there is a sheet, which is written last."""
    return sorted(int(file.stem.removeprefix("epoch-")) for file in place.glob("epoch-*.json"))


def _files(place: Path) -> Iterator[Path]:
    yield from place.glob("epoch-*.json")
    yield from place.glob("epoch-*.safetensors")
