"""Replaced by `SystemArguments`; this name goes with its last import, in `serve`."""

from typing import TYPE_CHECKING, Any

from rankproof.cli.options import SystemArguments
from rankproof.cli.terminal import progress

if TYPE_CHECKING:
    from rankproof.system import LoadedTask, Stage


def opened(
    model: str, data: str | None, device: str, size: int | None, split_by: str, **options: Any
) -> "LoadedTask":
    """The model and the test split that the options name; see `SystemArguments.open`."""
    stage: Stage = options.pop("stage", progress)
    system = SystemArguments(model=model, data=data, device=device, size=size, split_by=split_by, **options)
    return system.open(stage)
