"""The models that tables name: trained once, kept below a key of everything that went into them."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rankproof.data import Dataset, load
from rankproof.data.load import EMBEDDED, find
from rankproof.errors import RankproofError
from rankproof.io import JsonObject, write_atomically, write_json
from rankproof.models import ARCHITECTURES, Preprocess, load_checkpoint, zoo_names
from rankproof.models.checkpoint import RECORD, WEIGHTS
from rankproof.reproduction.recipe import ModelSpec
from rankproof.reproduction.records import ModelFacts
from rankproof.system import RetrievalSystem, Stage, SystemOptions, find_device, no_display, open_system
from rankproof.training.divergence import TrainingFailedError
from rankproof.training.options import Options, recipe_of
from rankproof.training.recipe import Recipe
from rankproof.training.run import Run, train_checkpoint

FAILED, INGREDIENTS = "failed.txt", "ingredients.json"
TRAINED = "trained.json"  # what a finished training took
KEY = 16  # hexadecimal digits of a key
PHOTOGRAPH = 224  # side of images for an encoder that takes any

Log = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Splits:
    """A data set as models and cells use it.

    Args:
        train, test: images to learn from and to attack.
        sha256: of all their pixels and labels.
    """

    train: Dataset
    test: Dataset
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A model before it is trained.

    Args:
        spec: what the table says.
        recipe: how it is trained.
        splits: on what.
        key: of everything that goes into it; of a given checkpoint its weights.
        start: key of the model whose weights its training begins with.
        checkpoint: a checkpoint that is taken as it is, where the user or the recipe named one.
        schedule, epochs: how it was or will be trained.
    """

    spec: ModelSpec
    recipe: Recipe
    splits: Splits
    key: str = ""
    start: str | None = None
    checkpoint: str | None = None
    schedule: str
    epochs: int

    @property
    def identity(self) -> list[str]:
        """What the figures of a cell depend on: its weights, the data, and the size of what is attacked."""
        size = self.spec.attacked_size
        return [self.key, self.splits.sha256, *([] if size is None else [str(size)])]

    @property
    def ingredients(self) -> JsonObject:
        """What the key of a model that is trained here is made of."""
        return {
            "arch": self.spec.arch,
            "data": self.splits.train.name,
            "data_sha256": self.splits.sha256,
            "settings": json.loads(json.dumps(self.recipe.settings())),  # as they are read back
            # What most models do not have is no part of their keys.
            **({} if self.start is None else {"start": self.start}),
            **({} if self.spec.minutes is None else {"minutes": self.spec.minutes}),
        }


@dataclass(kw_only=True)
class Models:
    """The models of a table.

    Args:
        specs: what the table says of them.
        folder: where trained ones are kept, each below its key.
        paths: data sets by the recipe's name that lie elsewhere.
        checkpoints: checkpoints by the recipe's name that are taken as they are.
        root: folder that holds data sets by name.
        device: "auto", "cpu" or "cuda".
        published_schedule: train defended models as published and not by the fast schedule.
        precision: "single" or "bf16", of the encoder's passes in a training.
        log: called with a line that a user should read.
        stage: given a name, opens a display of progress.
    """

    specs: Sequence[ModelSpec]
    folder: Path
    paths: Mapping[str, str] = field(default_factory=dict)
    checkpoints: Mapping[str, str] = field(default_factory=dict)
    root: Path | None = None
    device: str = "auto"
    published_schedule: bool = False
    precision: str = "single"
    log: Log = lambda line: None
    stage: Stage = no_display
    _splits: dict[tuple[str, int | None], Splits | None] = field(default_factory=dict)
    _planned: dict[str, Planned | None] = field(default_factory=dict)
    _targets: dict[str, RetrievalSystem] = field(default_factory=dict)
    _sources: dict[str, str] = field(default_factory=dict)
    _zoo: dict[str, JsonObject] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for option, what, given, known in (
            ("model", "model", self.checkpoints, [spec.name for spec in self.specs]),
            ("data", "data set", self.paths, [*dict.fromkeys(spec.data for spec in self.specs)]),
        ):
            if unknown := [name for name in given if name not in known]:
                raise RankproofError(
                    f"--{option} {unknown[0]}: the table has no such {what}; it has {', '.join(known)}"
                )

    def planned(self, name: str) -> Planned | None:
        """The plan of a model; None where its data is not there."""
        if name not in self._planned:
            self._planned[name] = self._plan(next(spec for spec in self.specs if spec.name == name))
        return self._planned[name]

    def source(self, planned: Planned) -> str | None:
        """Where a finished model is: "zoo:NAME" or a folder; None where it is yet to be trained."""
        if planned.checkpoint is not None:
            return planned.checkpoint
        if not self._zoo:
            names = [f"zoo:{name}" for name in zoo_names()]
            self._zoo.update({name: load_checkpoint(name).record for name in names})
        if planned.key not in self._sources:
            place = self.folder / planned.key
            fitting = [
                name
                for name, record in self._zoo.items()
                if _is_the_same(record, planned) and record.get("epochs_done") == planned.recipe.epochs
            ]
            fitting += [str(place)] if _is_finished(place, planned) else []
            if not fitting:
                return None
            self._sources[planned.key] = fitting[0]
        return self._sources[planned.key]

    def failure(self, planned: Planned) -> str | None:
        """Why the training of a model failed; None where it did not."""
        file = self.folder / planned.key / FAILED
        return file.read_text().strip() if file.is_file() else None

    def target(self, planned: Planned) -> RetrievalSystem:
        """A model with the embedded test split; trained first where need be, from the last finished epoch on.

        Raises:
            TrainingFailedError: it diverged or collapsed, now or before.
        """
        name, spec = planned.spec.name, planned.spec
        if name not in self._targets:
            if (reason := self.failure(planned)) is not None:
                raise TrainingFailedError(reason)
            source = self.source(planned) or self._trained(planned)
            options = SystemOptions(
                device=self.device,
                size=spec.attacked_size or _side(spec),
                preprocess=Preprocess(resize=spec.size) if spec.attacked_size else None,
                root=self.root,
            )
            place = self._place(spec.data)
            self._targets[name] = open_system(source, place, options, stage=self.stage)
        return self._targets[name]

    def describe(self, planned: Planned) -> ModelFacts:
        """The facts of a model, as records hold them."""
        source = self.source(planned)
        record = {} if source is None else load_checkpoint(source).record
        return ModelFacts(
            name=planned.spec.name,
            key=planned.key,
            source=_origin(planned, source),
            schedule=planned.schedule,
            arch=planned.spec.arch,
            data=planned.splits.test.name,
            defense=planned.spec.defense,
            seed=planned.spec.seed,
            recall_at_1=record.get("recall_at_1"),
            epochs=planned.epochs,
            train_seconds=record.get("seconds"),
            sha256=record.get("sha256"),
        )

    def processor_seconds(self, planned: Planned) -> float | None:
        """Processor time of the last run of a training; None for models from elsewhere."""
        file = self.folder / planned.key / TRAINED
        return float(json.loads(file.read_text())["processor_seconds"]) if file.is_file() else None

    def beginnings(self, planned: Planned) -> list[Planned]:
        """The models whose weights a training begins with, the first one first."""
        start = None if planned.spec.start is None else self.planned(planned.spec.start)
        return [] if start is None else [*self.beginnings(start), start]

    def _plan(self, spec: ModelSpec) -> Planned | None:
        splits = self._data(spec)
        if splits is None:
            return None
        recipe = recipe_of(self._options(spec), splits.train, spec.arch, find_device(self.device))
        start = None if spec.start is None else self.planned(spec.start)
        planned = Planned(
            spec=spec,
            recipe=recipe,
            splits=splits,
            start=None if start is None else start.key,
            schedule=recipe.schedule,
            epochs=recipe.epochs,
        )
        content = json.dumps(planned.ingredients, sort_keys=True)
        planned = replace(planned, key=hashlib.sha256(content.encode()).hexdigest()[:KEY])
        place = self.checkpoints.get(spec.name, spec.checkpoint)
        return planned if place is None else _as_given(planned, place)

    def _options(self, spec: ModelSpec) -> Options:
        fast = spec.defense != "none" and not self.published_schedule
        return replace(
            spec.options or Options(fast=fast, precision=self.precision),
            distance=spec.distance,
            loss=spec.loss,
            defense=spec.defense,
            sampler=spec.sampler,
            epochs=spec.epochs,
            batch=spec.batch,
            margin=spec.margin,
            learning_rate=spec.learning_rate,
            seed=spec.seed,
        )

    def _data(self, spec: ModelSpec) -> Splits | None:
        """Both splits of a model's data; None where it is not there."""
        key = (spec.data, _side(spec))
        if key not in self._splits:
            place = self._place(spec.data)
            self._splits[key] = None if place is None else self._read(spec, place)
        return self._splits[key]

    def _read(self, spec: ModelSpec, place: str) -> Splits:
        parts = []
        for split in ("train", "test"):
            with self.stage(f"reading {spec.data}") as progress:
                parts.append(load(place, split, size=_side(spec), root=self.root, progress=progress))
        train, test = parts
        return Splits(train=train, test=test, sha256=_digest(train, test))

    def _place(self, name: str) -> str | None:
        """Where a data set is, as `load` takes it; None where nobody has it."""
        if name in self.paths:
            return str(find(self.paths[name], self.root))
        if name in EMBEDDED:
            return name
        try:
            return str(find(name, self.root))
        except RankproofError:
            return None

    def _trained(self, planned: Planned) -> str:
        """Train a model, or go on where its training was stopped."""
        place, spec, weights = self.folder / planned.key, planned.spec, None
        for start in self.beginnings(planned):
            weights = Path(self.source(start) or self._trained(start)) / WEIGHTS
        write_json(place / INGREDIENTS, planned.ingredients, indent=2)
        run = Run(
            data=planned.splits.train,
            test=planned.splits.test,
            arch=spec.arch,
            recipe=planned.recipe,
            out=place,
            weights=weights,
            time_limit=None if spec.minutes is None else 60 * spec.minutes,
            resume=True,
            half=True,
            device=find_device(self.device),
        )
        self.log(f"training {spec.name} on {spec.data}, kept in {place}")
        worked = time.process_time()  # the time by the clock says little where others compute, too
        try:
            with self.stage(f"training {spec.name}") as progress:
                train_checkpoint(run, on_batch=progress, say=self.log)
        except TrainingFailedError as error:
            write_atomically(place / FAILED, f"{error}\n".encode())
            raise
        write_json(place / TRAINED, {"processor_seconds": time.process_time() - worked})
        return str(place)


def _as_given(planned: Planned, place: str) -> Planned:
    """The model of a checkpoint that the user named, if it can stand for the one of the table.

    Raises:
        RankproofError: it has another architecture or distance, or was trained on other data.
    """
    record, spec = load_checkpoint(place).record, planned.spec
    wanted = {"arch": spec.arch, "distance": spec.distance, "data": planned.splits.train.name}
    for name, value in wanted.items():
        if record.get(name) != value:
            raise RankproofError(
                f"--model {spec.name}={place}: its {name} is {record.get(name)}, not {value}"
            )
    return replace(
        planned,
        key=str(record["sha256"])[:KEY],
        checkpoint=place,
        schedule=str(record.get("settings", {}).get("schedule", "own")),
        epochs=int(record.get("epochs_done", 0)),
    )


def _origin(planned: Planned, source: str | None) -> str:
    """Where a model comes from, in a word."""
    if planned.checkpoint is not None:
        return "given"
    return "zoo" if source is not None and source.startswith("zoo:") else "trained"


def _is_the_same(record: Mapping[str, Any], planned: Planned) -> bool:
    """Whether a checkpoint was made of the same things, as far as its record says."""
    wanted = planned.ingredients
    same = all(record.get(name) == wanted[name] for name in ("arch", "data", "settings"))
    started = record.get("weights") is not None
    return same and started == (planned.start is not None)


def _is_finished(place: Path, planned: Planned) -> bool:
    """Whether a folder holds a model whose training went to its end, or to the end of its minutes."""
    try:
        record = json.loads((place / RECORD).read_text())
    except (OSError, ValueError):
        return False
    whole = record.get("epochs_done") == planned.recipe.epochs
    return _is_the_same(record, planned) and (whole or (place / TRAINED).is_file())


def _digest(*parts: Dataset) -> str:
    """The hash of the content of data sets."""
    return hashlib.sha256("/".join(part.sha256 for part in parts).encode()).hexdigest()


def _side(spec: ModelSpec) -> int | None:
    """The side that images are resized to."""
    fixed = ARCHITECTURES.get(spec.arch)
    return spec.size or (PHOTOGRAPH if fixed is not None and fixed.size is None else None)
