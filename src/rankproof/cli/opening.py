"""The model and the pictures that a command names, opened with the progress shown."""

from typing import TYPE_CHECKING

from rankproof.cli.surroundings import data_root
from rankproof.console import progress

if TYPE_CHECKING:
    from rankproof.target import Stage, Subject


def opened(
    model: str,
    data: str | None,
    device: str,
    size: int | None,
    divide: str,
    *,
    trust: bool,
    resize: int | None,
    crop: int | None,
    jpeg: int | None,
    stage: "Stage" = progress,
) -> "Subject":
    """What `--model` and `--data` name; the arguments are options as they came."""
    from rankproof.target import open_subject, preprocess_of

    return open_subject(
        model,
        data,
        device=device,
        size=size,
        divide=divide,
        root=data_root(),
        trust=trust,
        preprocess=preprocess_of(resize, crop, jpeg),
        stage=stage,
    )
