"""Encoders as programs in one file: torch.export and TorchScript. Opening such a file can run code."""

import warnings
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rankproof.errors import RankproofError
from rankproof.models.source import Source, describe, reason

EXPORTED = ".pt2"


class Program(nn.Module):
    """A program as a module whose train() and eval() do not reach the program, which may not support them.

    Args:
        program: the module made from the file.
        sha256: of the file.
    """

    def __init__(self, program: nn.Module, sha256: str) -> None:
        super().__init__()
        self.program, self.sha256 = program, sha256

    def __rankproof_state__(self) -> list[object]:
        """What embeddings depend on: the file, and weights that were changed since it was opened."""
        return [self.sha256, list(self.program.named_parameters()), list(self.program.named_buffers())]

    def train(self, mode: bool = True) -> "Program":
        """Set the mode of this module only; an exported program raises when its mode is set."""
        self.training = mode
        return self

    def forward(self, images: Tensor) -> Tensor:
        """(b, c, h, w) to (b, d)."""
        z: Tensor = self.program(images)
        return z


def load_program(name: str, file: Path, trust: bool) -> Source:
    """The encoder in a .pt2 file of torch.export, or in a .pt or .ts file of TorchScript.

    Args:
        trust: whether the author of the file is trusted; without it nothing is opened.
    Raises:
        RankproofError: the file is not trusted, does not exist, or is not such a program.
    """
    if not file.is_file():
        raise RankproofError(f"{file}: no such file; check the path")
    if not trust:
        raise RankproofError(
            f"{file}: opening such a file can run code that is hidden in it; if you trust whoever made it, "
            f"add --trust (in Python trust=True)"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # meant for the author of the program
            digest = sha256(file.read_bytes()).hexdigest()
            if file.suffix == EXPORTED:
                return _exported(name, torch.export.load(str(file)), digest)
            program = torch.jit.load(str(file), map_location="cpu").eval()
            return describe(Program(program, digest), name, {})
    except RankproofError:
        raise
    except Exception as error:  # a damaged file, another version, plain weights
        raise RankproofError(
            f"{file}: cannot be opened as a program ({reason(error)}); write it with torch.export.save "
            f"(.pt2) or torch.jit.save (.pt, .ts), or name your own code as module.py:function"
        ) from None


def _exported(name: str, program: Any, digest: str) -> Source:
    """A program of torch.export, with the shape of the images it was exported for."""
    user_inputs = program.graph_signature.user_inputs
    inputs = [node.meta["val"] for node in program.graph.nodes if node.name in user_inputs]
    if len(inputs) != 1 or not isinstance(inputs[0], Tensor) or inputs[0].dim() != 4:
        raise RankproofError(f"{name}: must take one batch of images (b, c, h, w) and nothing else")
    batch, *form = list[Any](inputs[0].shape)  # whole numbers, or symbols where any number is allowed
    if isinstance(batch, int):
        raise RankproofError(
            f"{name}: was exported for batches of exactly {batch}; export it with "
            f'dynamic_shapes=({{0: torch.export.Dim("batch")}},)'
        )
    fixed = all(isinstance(side, int) for side in form)
    return describe(Program(program.module(), digest), name, {"input": form if fixed else None})
