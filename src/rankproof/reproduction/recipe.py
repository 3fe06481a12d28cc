"""A recipe file: what is attacked how, of one table or figure with every printed figure, or for ourselves."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rankproof.config_table import Read, read_table, read_toml
from rankproof.errors import RankproofError
from rankproof.io import JsonObject
from rankproof.reproduction.schema import (
    DRAWINGS,
    EXPERIMENT_KINDS,
    FIGURE_KINDS,
    INSIDE,
    NOT_PRINTED,
    TABLE_KINDS,
    ExperimentBlock,
    FigureBlock,
    Kind,
    TableBlock,
    Typed,
    count,
    list_of,
    number,
    one_of,
    several,
    tables,
    text,
    typed,
    whole,
)
from rankproof.training.options import Options


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A model that a table names.

    Args:
        name: as the table calls it.
        data, arch, distance, loss, defense, seed: what is trained on what.
        recall_at_1: the printed R@1 in %, UNREADABLE or NOT_PRINTED.
        sampler, epochs, batch, margin, learning_rate: where they are not those of `rankproof train`.
        size: side every image is resized to; None leaves the data's own, or 224 for photographs.
        attacked_size: side of the images that are attacked, where they are resized to `size` afterwards.
        checkpoint: a model that is taken as it is, such as "zoo:fashion-mnist/c2f1-ct".
        start: name of the model whose weights its training begins with.
        minutes: after which no further epoch is started; None has no limit.
        options: of `rankproof train`, where the other fields say too little; schedule and precision are then
            these and not those of the command.
    """

    name: str
    data: str
    arch: str
    distance: str
    loss: str
    defense: str
    seed: int = 0
    recall_at_1: Typed = NOT_PRINTED
    sampler: str | None = None
    epochs: int | None = None
    batch: int | None = None
    margin: float | None = None
    learning_rate: float = 1e-3
    size: int | None = None
    attacked_size: int | None = None
    checkpoint: str | None = None
    start: str | None = None
    minutes: float | None = None
    options: Options | None = None


@dataclass(frozen=True, kw_only=True)
class TableRecipe:
    """One printed table.

    Args:
        paper, table, title: which.
        figure: "rank" in %, "tau" or "seconds".
        tolerance: how far from a printed figure a measured one still agrees.
        trials: T of a cell; `trials_single` that of the cells with w = m = 1.
        published_trials: T of the paper, one for all blocks or one for each.
        models, blocks: what is attacked, and the printed figures.
    """

    paper: str
    table: str
    title: str
    figure: str
    tolerance: float
    trials: int
    published_trials: tuple[int, ...]
    models: tuple[ModelSpec, ...]
    blocks: tuple[TableBlock, ...]
    trials_single: int | None = None

    @property
    def part(self) -> str:
        """Such as "table3"."""
        return f"table{self.table}"

    @property
    def name(self) -> str:
        """Such as "eccv20-table3"."""
        return f"{self.paper}-{self.part}"


@dataclass(frozen=True, kw_only=True)
class PartRecipe:
    """What the recipes of figures and of our own experiments share.

    Args:
        paper, part, title: which: paper and part are such as "eccv20" and "figure2", or "own" and its name.
        trials: T of a cell, for strips how many are drawn.
        models: what is attacked.
    """

    paper: str
    part: str
    title: str
    trials: int
    models: tuple[ModelSpec, ...]

    @property
    def name(self) -> str:
        """Such as "eccv20-figure2" or "own-stronger"."""
        return f"{self.paper}-{self.part}"


@dataclass(frozen=True, kw_only=True)
class FigureRecipe(PartRecipe):
    """One figure, or several of a kind.

    Args:
        drawing: what is drawn: curves over eps, strips, an order, losses or weights.
        blocks: what is attacked how.
        note: what else a reader should know.
    """

    drawing: str
    blocks: tuple[FigureBlock, ...]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section of docs/results.md.

    Args:
        title, text: as they stand on the page.
        view: which tables show it, a name of `rankproof.reproduction.results_page.VIEWS`.
        blocks: numbers of the blocks whose cells it shows, from 1.
        command: what makes it; left out: `rankproof reproduce` and the recipe.
    """

    title: str
    text: str
    view: str
    blocks: tuple[int, ...] = ()
    command: str = ""


@dataclass(frozen=True, kw_only=True)
class ExperimentRecipe(PartRecipe):
    """An experiment of our own, without printed figures.

    Args:
        blocks: what is attacked how.
        sections: how docs/results.md shows it.
    """

    blocks: tuple[ExperimentBlock, ...]
    sections: tuple[Section, ...]


Recipe = TableRecipe | FigureRecipe | ExperimentRecipe


def paper_name(paper: str) -> str:
    """The paper of a folder of recipes, such as "ECCV 2020"."""
    return {"eccv20": "ECCV 2020", "iccv21": "ICCV 2021"}.get(paper, paper)


def read_recipe(path: Path) -> Recipe:
    """A recipe file, checked; a figure's says what is drawn.

    Raises:
        RankproofError: the file, the block and the key at fault.
    """
    content = read_toml(path)
    kinds = TABLE_KINDS
    if "drawing" in content:
        kinds = FIGURE_KINDS
    elif "sections" in content:
        kinds = EXPERIMENT_KINDS
    parts: JsonObject = {
        "models": tuple(
            ModelSpec(**read_table(model, f"{path}, model {number}", MODEL, MODEL_MORE))
            for number, model in enumerate(tables(content.pop("models", None), path, "models"), 1)
        ),
        "blocks": tuple(
            _block(block, f"{path}, block {number}", kinds)
            for number, block in enumerate(tables(content.pop("blocks", None), path, "blocks"), 1)
        ),
    }
    recipe: Recipe
    if kinds is FIGURE_KINDS:
        recipe = FigureRecipe(**read_table(content, str(path), FIGURE_HEAD, {"note": text}), **parts)
    elif kinds is EXPERIMENT_KINDS:
        sections = tuple(
            Section(**read_table(section, f"{path}, section {number}", SECTION, SECTION_MORE))
            for number, section in enumerate(tables(content.pop("sections"), path, "sections"), 1)
        )
        recipe = ExperimentRecipe(
            **read_table(content, str(path), EXPERIMENT_HEAD, {}), sections=sections, **parts
        )
    else:
        recipe = TableRecipe(**read_table(content, str(path), HEAD, {"trials_single": count}), **parts)
    _check(recipe, path)
    return recipe


def find_recipe(word: str, folder: Path | None) -> Path:
    """The file of a table or figure such as "eccv20/table3".

    Args:
        folder: where recipes are; None looks for it.
    Raises:
        RankproofError: there is none; the message names those that there are.
    """
    place = recipe_folder(folder)
    words = known_recipes(place)
    if word not in words:
        names = ", ".join(words) or f"none in {place}"
        raise RankproofError(f"{word}: no such table or figure; known: {names}")
    return place / f"{word}.toml"


def recipe_folder(folder: Path | None = None) -> Path:
    """Where recipes are: the folder given; else beside the source tree, in the installation, or ./recipes.

    Raises:
        RankproofError: there is no such folder.
    """
    source = Path(__file__).resolve().parents[3] / "recipes"
    installed = Path(sys.prefix) / "share" / "rankproof" / "recipes"
    places = (source, installed, Path("recipes")) if folder is None else (folder,)
    place = next((place for place in places if place.is_dir()), None)
    if place is None:
        raise RankproofError(f"no folder of recipes at {', '.join(map(str, places))}; name one by --recipes")
    return place


def known_recipes(place: Path) -> tuple[str, ...]:
    """The words of all recipes in a folder, by paper and number."""
    words = [path.relative_to(place).with_suffix("").as_posix() for path in place.glob("*/*.toml")]
    return tuple(sorted(words, key=lambda word: (word.rstrip("0123456789"), len(word), word)))


def _block(block: Mapping[str, Any], where: str, kinds: Mapping[str, Kind]) -> Any:
    values = dict(block)
    kind = values.pop("kind", "eps")  # tables 1 to 4 and 8 to 10 of ECCV have no other kind and do not say it
    if kind not in kinds:
        raise RankproofError(f"{where}: kind {kind!r} is unknown; known: {', '.join(kinds)}")
    build, needed, more = kinds[kind]
    read = read_table(values, f"{where} ({kind})", needed, more)
    try:
        return build(**{INSIDE.get(key, key): value for key, value in read.items()})
    except RankproofError as error:
        raise RankproofError(f"{where} ({kind}): {error}") from None


def _check(recipe: Recipe, path: Path) -> None:
    """Every model has one name, every block names models there are, and every block has its T."""
    names = [model.name for model in recipe.models]
    if len(set(names)) != len(names):
        raise RankproofError(f"{path}: two models have the same name")
    for place, block in enumerate(recipe.blocks, 1):
        several = [name for key in ("made_on", "models", "ranked_by") for name in getattr(block, key, ())]
        for name in filter(None, (getattr(block, "model", None), *several)):
            if name not in names:
                raise RankproofError(f"{path}, block {place}: model {name!r} is not among {names}")
    if isinstance(recipe, TableRecipe) and len(recipe.published_trials) not in (1, len(recipe.blocks)):
        raise RankproofError(f"{path}: published_trials must be one number, or one for each block")


def training_options(value: Any) -> Options:
    """Options of `rankproof train` by their names."""
    names = {each.name for each in fields(Options)}
    if not isinstance(value, dict) or not value.keys() <= names:
        raise RankproofError(f"expected a table with some of {', '.join(sorted(names))}, got {value!r}")
    options: JsonObject = {
        name: tuple(each) if isinstance(each, list) else each for name, each in value.items()
    }
    return Options(**options)


HEAD: dict[str, Read] = {
    **dict.fromkeys(("paper", "table", "title"), text),
    "figure": one_of(("rank", "tau", "seconds")),
    "tolerance": number,
    "trials": count,
    "published_trials": several(count),
}
MODEL: dict[str, Read] = dict.fromkeys(("name", "data", "arch", "distance", "loss", "defense"), text)
MODEL_MORE: dict[str, Read] = {
    "seed": whole,
    "recall_at_1": typed,
    "sampler": text,
    **dict.fromkeys(("margin", "learning_rate"), number),
    **dict.fromkeys(("epochs", "batch", "size", "attacked_size"), count),
    **dict.fromkeys(("checkpoint", "start"), text),
    "minutes": number,
    "options": training_options,
}
EXPERIMENT_HEAD: dict[str, Read] = {**dict.fromkeys(("paper", "part", "title"), text), "trials": count}
SECTION: dict[str, Read] = dict.fromkeys(("title", "text", "view"), text)
SECTION_MORE: dict[str, Read] = {"command": text, "blocks": list_of(count)}
FIGURE_HEAD: dict[str, Read] = {
    **dict.fromkeys(("paper", "part", "title"), text),
    "drawing": one_of(DRAWINGS),
    "trials": count,
}
