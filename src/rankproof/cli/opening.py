"""Replaced by `SystemOptions`; this name goes with its last import, in `serve`."""

from typing import TYPE_CHECKING, Any

from rankproof.cli.options import SystemOptions
from rankproof.cli.terminal import progress

if TYPE_CHECKING:
    from rankproof.target import Stage, Subject


def opened(
    model: str, data: str | None, device: str, size: int | None, divide: str, **options: Any
) -> "Subject":
    """The model and the test split that the options name; see `SystemOptions.open`."""
    stage: Stage = options.pop("stage", progress)
    system = SystemOptions(model=model, data=data, device=device, size=size, divide=divide, **options)
    return system.open(stage)
