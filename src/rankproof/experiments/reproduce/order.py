"""What is asked of a reproduction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

RECORDS, MODELS = Path("records"), Path("runs/models")


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is asked for.

    Args:
        word: paper and table or figure, such as "eccv20/table3".
        recipes: folder of recipes; None looks for it.
        trials: T of every cell instead of the recipe's.
        words: parts of the names of the cells that are run; empty runs all.
        method: "published" or "strong".
        out: folder of the table or figure; None is one below runs/reproduce.
        workers: processes that train and attack side by side.
        device: "auto", "cpu" or "cuda".
        published_schedule: train defended models as published.
        precision: "single" or "bf16", of the encoder's passes in a training.
        paths: data sets that lie elsewhere, by name.
        given: checkpoints that are taken as they are, by the name of the model.
        root: folder that holds data sets.
        records, models: where finished cells and trained models are kept.
        seed: of all attacks.
        save: whether the attacks of each cell that is run are kept beside the table.
        command: what the user typed.
    """

    word: str
    recipes: Path | None = None
    trials: int | None = None
    words: Sequence[str] = ()
    method: str = "published"
    out: Path | None = None
    workers: int = 1
    device: str = "auto"
    published_schedule: bool = False
    precision: str = "single"
    paths: Mapping[str, str] = field(default_factory=dict)
    given: Mapping[str, str] = field(default_factory=dict)
    root: Path | None = None
    records: Path = RECORDS
    models: Path = MODELS
    seed: int = 0
    save: bool = False
    command: str = ""
