"""A trained encoder on disk: safetensors beside a JSON record that says what it is."""

import hashlib
import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from rankproof.errors import RankproofError
from rankproof.io import write_atomically
from rankproof.models.architectures import new_encoder
from rankproof.models.weights import check_finite, check_floating, check_plain, compare

WEIGHTS, RECORD = "model.safetensors", "model.json"
ZOO = "zoo:"


@dataclass(frozen=True)
class Checkpoint:
    """An encoder with the record it was saved with."""

    encoder: nn.Module
    record: dict[str, Any]


def save_checkpoint(folder: Path, encoder: nn.Module, record: dict[str, Any], *, half: bool = False) -> Path:
    """Write weights and record into `folder`; the record gains the weights' sha256.

    Args:
        half: store the weights in half precision.
    Raises:
        RankproofError: a weight is too large for half precision; nothing is written then.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in encoder.state_dict().items()}
    if half:
        state = {name: _halved(name, value, folder) for name, value in state.items()}
    content = save(state)
    record = {**record, "sha256": hashlib.sha256(content).hexdigest()}
    write_atomically(folder / WEIGHTS, content)
    write_atomically(folder / RECORD, (json.dumps(record, indent=2) + "\n").encode())
    return folder


def load_checkpoint(source: str | Path) -> Checkpoint:
    """Read a folder written by `save_checkpoint`, or `zoo:NAME` for one that ships with the package."""
    folder = _zoo_folder(str(source)) if str(source).startswith(ZOO) else Path(source)
    weights, sheet = folder / WEIGHTS, folder / RECORD
    for file in (folder, weights, sheet):
        if not file.exists():
            raise RankproofError(f"{file}: not found; a model is a folder with {WEIGHTS} and {RECORD}")
    try:
        record = json.loads(sheet.read_text())
        arch = str(record["arch"])
    except (OSError, ValueError, KeyError, TypeError):
        raise RankproofError(f"{sheet}: not a model record (JSON with at least `arch`)") from None
    content = weights.read_bytes()
    if record.get("sha256") not in (None, hashlib.sha256(content).hexdigest()):
        raise RankproofError(
            f"{weights}: damaged, its sha256 is not the one in {RECORD}; train or fetch it again"
        )
    try:
        state = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise RankproofError(f"{weights}: not a safetensors file ({error})") from None
    return Checkpoint(_fill(new_encoder(arch), state, arch, weights), record)


def _halved(name: str, value: torch.Tensor, folder: Path) -> torch.Tensor:
    """The values in half precision, whole numbers as they are."""
    if not value.is_floating_point():
        return value
    halved = value.half()
    # Only what half precision made infinite: what was so before is nothing that --half could be blamed for.
    if bool((value.isfinite() & ~halved.isfinite()).any()):
        limit = torch.finfo(torch.half).max
        raise RankproofError(
            f"{folder}: not written, {name} has values beyond {limit:,.0f}, the largest of half precision; "
            f"leave --half out (in Python half=False)"
        )
    return halved


def _fill(encoder: nn.Module, state: dict[str, torch.Tensor], arch: str, file: Path) -> nn.Module:
    match = compare(encoder, state)
    if odd := sorted((*match.missing, *match.unexpected, *match.misshapen)):
        raise RankproofError(f"{file}: these are not the weights of {arch}: {', '.join(odd[:3])} do not fit")
    check_plain(state, file)
    check_floating(encoder, state, file)
    check_finite(state, file)
    encoder.load_state_dict({name: value.float() for name, value in state.items()})
    return encoder.eval()


def zoo_names() -> list[str]:
    """The names of the shipped encoders."""
    root = Path(str(files("rankproof") / "zoo"))
    return sorted(str(sheet.parent.relative_to(root)) for sheet in root.rglob(RECORD))


def _zoo_folder(source: str) -> Path:
    name = source.removeprefix(ZOO)
    if name not in zoo_names():
        raise RankproofError(f"{source}: not in the zoo; it holds {', '.join(zoo_names()) or 'nothing yet'}")
    return Path(str(files("rankproof") / "zoo")) / name
