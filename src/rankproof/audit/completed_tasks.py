"""Finished tasks of an audit in a file of JSON lines, so that a stopped audit loses none of them."""

import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankproof.attacks.result import AttackResult
from rankproof.attacks.summary import AttackSummary
from rankproof.audit.diagnostics import AttackFigures
from rankproof.audit.plan import Plan
from rankproof.io import JsonObject, read_json_lines, write_atomically
from rankproof.report.page import Flag


@dataclass(frozen=True, kw_only=True)
class Example:
    """The attack of a black-box task that is nearest to the median before and after.

    Args:
        row: which of the attacks it is.
        adversarial: its image as text, every pixel exact.
    """

    row: int
    adversarial: str

    @classmethod
    def of(cls, result: AttackResult) -> "Example":
        """The example of a result."""
        ends = torch.stack([result.headline(after=False), result.headline()])
        row = int((ends - ends.median(1, keepdim=True).values).abs().sum(0).argmin())
        pixels = result.adversarial[row].detach().cpu().contiguous().numpy()
        return cls(row=row, adversarial=b64encode(zlib.compress(pixels.tobytes())).decode())

    def image(self, like: Tensor) -> Tensor:
        """The adversarial image, in the type and shape of another."""
        pixels = np.frombuffer(zlib.decompress(b64decode(self.adversarial)), dtype=like.numpy().dtype)
        return torch.from_numpy(pixels.copy()).view(like.shape)


@dataclass(frozen=True, kw_only=True)
class CompletedTask:
    """What an audit keeps of a task.

    Args:
        summary: the figure of the report.
        flags: reasons to doubt it.
        figures: of each attack alone.
        example: what is shown of a black-box attack; None in a white box, whose attack is made again.
    """

    summary: AttackSummary
    flags: tuple[Flag, ...]
    figures: AttackFigures
    example: Example | None = None

    def to_json(self) -> JsonObject:
        """The task as a line of the file."""
        return {
            "cell": self.summary.to_json(),
            "flags": [asdict(flag) for flag in self.flags],
            **asdict(self.figures),
            "example": None if self.example is None else asdict(self.example),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "CompletedTask":
        """The task of a line that `to_json` made."""
        names = "values", "sp_rank", "targets", "preserved"
        return cls(
            summary=AttackSummary.from_json(values["cell"]),
            flags=tuple(Flag(**flag) for flag in values["flags"]),
            figures=AttackFigures(**{name: values[name] for name in names}),
            example=None if values["example"] is None else Example(**values["example"]),
        )


class CompletedTasks:
    """The finished tasks of one audit by their labels.

    Args:
        path: the file that keeps them, or None.
        fingerprint: what the audit is of; lines of any other are left out.
        plan: of the whole audit.
    """

    def __init__(self, path: Path | None, fingerprint: str, plan: Plan) -> None:
        self.path = path
        sizes = {"trials": plan.trials, "queries": plan.queries, "figures": len(plan.tasks)}
        self._head = {"audit": fingerprint, **sizes}
        lines = _read_lines(path)
        self._lines = {line["label"]: line for line in lines if line.get("audit") == fingerprint}
        self._tasks = {label: CompletedTask.from_json(line) for label, line in self._lines.items()}

    def __contains__(self, label: str) -> bool:
        return label in self._tasks

    def __getitem__(self, label: str) -> CompletedTask:
        return self._tasks[label]

    def add(self, label: str, task: CompletedTask) -> None:
        """Remember a finished task and write all of them."""
        self._tasks[label] = task
        self._lines[label] = {**self._head, "label": label, **task.to_json()}
        if self.path is not None:
            lines = [json.dumps(line) for line in self._lines.values()]
            write_atomically(self.path, ("\n".join(lines) + "\n").encode())


def stopped_sizes(path: Path) -> tuple[int, int | None] | None:
    """Trials, and queries of a black-box attack, of an audit that was stopped before its last figure.

    None where there is none to go on with. An audit whose trials and queries were picked by time goes on with
    them: timing anew would pick others.
    """
    lines = _read_lines(path)
    if not lines or len(lines) >= lines[-1].get("figures", 0):
        return None
    trials, queries = lines[-1].get("trials"), lines[-1].get("queries")
    return (trials, queries if isinstance(queries, int) else None) if isinstance(trials, int) else None


def _read_lines(path: Path | None) -> list[JsonObject]:
    """The lines of the file, none where there is no file."""
    return [] if path is None or not path.is_file() else list(read_json_lines(path))
