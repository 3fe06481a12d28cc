"""The named protocol: everything that decides a figure of an audit but the model and the data, in one hash.

Figures of two audits are comparable where the hashes of protocol and data are equal. The hash changes with
every goal, parameter, method and hyper-parameter, with eps, K, the seed and the controls. It does not change
with how many attacks were made, nor with the versions of the software; both are told beside it.
"""

import ast
import inspect
import json
import sys
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from hashlib import sha256
from types import ModuleType

import torch
from torch import Tensor

from rankproof.attacks import white_box, worst_case
from rankproof.attacks.black_box import BUDGET
from rankproof.audit import control_methods, controls
from rankproof.cache.fingerprint import UnreadableError, fingerprint
from rankproof.checks import check_images
from rankproof.goals import Goal, Reorder, order, query, retrieval, selection, wish
from rankproof.goals.registry import parse, standard_audit
from rankproof.goals.wish import FIRST
from rankproof.io import JsonObject
from rankproof.methods import SPSA, defaults
from rankproof.methods.black_box.base import BlackBoxMethod
from rankproof.methods.white_box.base import Method
from rankproof.methods.white_box.budget_search import BudgetSearch
from rankproof.parameters import Checked, Count
from rankproof.ranking.gallery import Gallery
from rankproof.ranking.mixed_images import MixedImages
from rankproof.report.findings import ProtocolHashes
from rankproof.threat import LEVELS, Eps
from rankproof.types import ImagesLike

NAME = "rankproof-1"
DEFINITIONS = 1  # to be raised where a figure is defined otherwise, and no value below says so
DEFAULT_EPS = 2 / 255
QUERIES = (100, BUDGET, 500)
PROBES = 8
DIGITS = 3  # of the embeddings of probe images: more would differ between machines
ROWS = 256  # images digested together
NEAR = 1e-3  # of a grey level, which rounding may move a pixel

Search = Method | BlackBoxMethod | BudgetSearch

# Modules whose numbers decide figures; those of a method's own module are found by its class.
DECIDING: tuple[ModuleType, ...] = (white_box, worst_case, controls, control_methods)
DECIDING += (order, query, retrieval, selection, wish)
# Numbers in them that decide how fast it goes and nothing else.
SPEED = {"MEMORY", "ROWS", "BLOCK", "NEAR_SHARE"}


def standard_searches() -> tuple[tuple[Goal, tuple[Search, ...]], ...]:
    """Every goal of a standard audit with the searches that are made for it, then those of the black box."""
    pairs: list[tuple[Goal, tuple[Search, ...]]] = []
    for spec in standard_audit():
        goal = parse(spec.name)
        search = defaults.smallest(goal.metric, spec.direction, spec.family, keeps=spec.keeps)
        least = () if spec.wish is None else (search,)
        fixed = defaults.published(goal.metric), defaults.strong(goal.metric)
        pairs.append((goal, (*least, *fixed, defaults.audited(goal.metric))))
    pairs += [(Reorder(k=k), (SPSA(), defaults.automatic())) for k in (5, 10)]
    return tuple(pairs)


@dataclass(frozen=True, kw_only=True)
class Protocol(Checked):
    """How an audit attacks; the defaults are those of `rankproof-1`.

    Args:
        eps: the audited budget.
        first: K, how many results count as the first ones.
        seed: all choices and random numbers come from it.
        searches: every goal with the methods and searches for the smallest budget that are made for it.
        visible: N, how many results a black box shows.
        queries: Q of its attacks, in the order in which they are tried.
    """

    eps: Eps = DEFAULT_EPS
    first: Count = FIRST
    seed: int = 0
    searches: tuple[tuple[Goal, tuple[Search, ...]], ...] = field(default_factory=standard_searches)
    visible: Count = order.VISIBLE
    queries: tuple[int, ...] = QUERIES

    @property
    def description(self) -> JsonObject:
        """All that decides a figure, as JSON."""
        used = [search for _, searches in self.searches for search in searches]
        modules = {each.__name__: each for each in DECIDING}
        for search in used:
            for kind in type(search).__mro__:
                if kind.__module__.startswith("rankproof."):
                    modules[kind.__module__] = sys.modules[kind.__module__]
        return {
            "protocol": NAME,
            "definitions": DEFINITIONS,
            "eps": self.eps,
            "first": self.first,
            "seed": self.seed,
            "own_copy": "drop",
            "images": "in the order of one random permutation by the seed; n attacks are on its first n",
            "searches": [
                [_value(goal), [_value(search) | _evaluations(search, self.eps) for search in searches]]
                for goal, searches in self.searches
            ],
            "black_box": {"visible": self.visible, "queries": list(self.queries)},
            "numbers": {name: numbers for name in modules if (numbers := _numbers(modules[name]))},
        }

    @property
    def digest(self) -> str:
        """The sha256 of the description as canonical JSON."""
        return sha256(canonical(self.description).encode()).hexdigest()

    @property
    def name(self) -> str:
        """ "rankproof-1"; with what is otherwise, where something is."""
        own, standard = self.description, Protocol().description
        changed = [key.replace("_", " ") for key, value in own.items() if value != standard[key]]
        return NAME + (f" with other {', '.join(changed)}" if changed else "")


def record() -> str:
    """What docs/rankproof-1.json holds: the standard protocol with its hash."""
    standard = Protocol()
    return json.dumps({"sha256": standard.digest} | standard.description, indent=2) + "\n"


def protocol_hashes(
    protocol: Protocol,
    gallery: Gallery,
    images: ImagesLike,
    attacked: Tensor,
    gallery_ids: Tensor | None = None,
) -> ProtocolHashes:
    """The three hashes of an audit.

    Args:
        protocol: how it attacks.
        gallery: what is attacked.
        images: (n, c, h, w) the images that may be attacked.
        attacked: (n,) the order in which they are: attack i is on the image at its i-th place.
        gallery_ids: (n,) positions of their own clean copies; None: they are not in the gallery.
    """
    images = check_images("images", images)
    model, note = _model(gallery, images)
    return ProtocolHashes(
        name=protocol.name,
        protocol=protocol.digest,
        data=data_digest(gallery, images, attacked, gallery_ids),
        model=model,
        model_note=note,
    )


def data_digest(gallery: Gallery, images: Tensor, attacked: Tensor, gallery_ids: Tensor | None) -> str:
    """The sha256 of a gallery's pixels and labels, and of which images are attacked in which order.

    Pixels are 8-bit values where the images are given as such, or as floats that are multiples of 1/255. A
    gallery that does not hold its images counts by its size, with the pixels of the attacked images.
    """
    digest = sha256(f"{NAME} data, {len(gallery)} items".encode())
    if isinstance(gallery.images, MixedImages):
        digest.update(f"mixed {gallery.images.sha256}".encode())
    elif gallery.images is not None:
        digest.update(_pixels(gallery.images))
    digest.update(b"labels")
    if gallery.labels is not None:
        digest.update(_integers(gallery.labels))
    digest.update(b"attacked")
    if gallery_ids is not None:
        digest.update(_integers(gallery_ids[attacked.to(gallery_ids.device)]))
    if gallery_ids is None or gallery.images is None:
        digest.update(_pixels(images[attacked.to(images.device)]))
    return digest.hexdigest()


def canonical(value: object) -> str:
    """A value as JSON that is the same wherever it is written."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _value(value: object) -> JsonObject:
    """A goal or a search with all its parameters."""
    name = getattr(value, "name", None) if not isinstance(value, Goal) else value.spec.name
    return {"name": name, "type": type(value).__name__, "parameters": _plain(value, top=True)}


def _plain(value: object, *, top: bool = False) -> object:
    """A parameter as JSON knows it; dataclasses by their fields.

    Raises:
        TypeError: it is of a type whose values no hash should be made of.
    """
    if is_dataclass(value) and not isinstance(value, type):
        if not top:
            return _value(value)
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a parameter of type {type(value).__name__} has no place in a protocol")


def _evaluations(search: Search, eps: float) -> JsonObject:
    """The most evaluations of a search, which may follow eps."""
    if isinstance(search, BlackBoxMethod):
        return {}
    return {"evaluations": search.evaluations if isinstance(search, BudgetSearch) else search.passes(eps)}


def _numbers(module: ModuleType) -> JsonObject:
    """The constants of a module that are numbers, or tuples and tables of numbers."""
    values = {name: getattr(module, name) for name in _assigned(module)}
    found = {name: value for name, value in values.items() if name not in SPEED and _is_number(value)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


@cache
def _assigned(module: ModuleType) -> tuple[str, ...]:
    """The names of the constants that a module assigns itself: those it imports belong to another one."""
    statements = ast.parse(inspect.getsource(module)).body
    targets = [target for each in statements if isinstance(each, ast.Assign) for target in each.targets]
    names = [each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)]
    return tuple(name for name in names if name.isupper())


def _is_number(value: object) -> bool:
    if isinstance(value, tuple):
        return bool(value) and all(map(_is_number, value))
    if isinstance(value, dict):
        return (
            bool(value)
            and all(isinstance(key, str) for key in value)
            and all(map(_is_number, value.values()))
        )
    return isinstance(value, int | float) and not isinstance(value, bool)


def _integers(values: Tensor) -> bytes:
    return values.detach().cpu().to(torch.int64).contiguous().numpy().astype("<i8").tobytes()


def _pixels(images: Tensor) -> bytes:
    """The digest of pixels (n, c, h, w): as 8-bit values where they are, else as floats."""
    parts = [part.detach().cpu() for part in images.split(ROWS)]
    if images.dtype != torch.uint8 and all(map(_on_grid, parts)):
        parts = [torch.round(part * LEVELS).to(torch.uint8) for part in parts]
    kind = "8 bit" if parts[0].dtype == torch.uint8 else "float"
    digest = sha256(f"{tuple(images.shape)} {kind}".encode())
    for part in parts:
        raw = part.contiguous().numpy()
        digest.update((raw if part.dtype == torch.uint8 else raw.astype("<f4")).tobytes())
    return digest.digest()


def _on_grid(part: Tensor) -> bool:
    """Whether all values are multiples of 1/255, as the rounding of floats leaves them."""
    levels = part * LEVELS
    return bool((torch.round(levels) - levels).abs().max() < NEAR)


def _model(gallery: Gallery, images: Tensor) -> tuple[str, str]:
    """The sha256 of what makes embeddings, and a note where it could not be read to the ground."""
    ranker = gallery.ranker
    try:
        with ranker.frozen():
            return fingerprint(*ranker.parts, package=False), ""
    except UnreadableError as error:
        random = torch.Generator().manual_seed(0)
        probes = torch.randint(256, (PROBES, *images.shape[1:]), generator=random).to(torch.uint8)
        z = ranker.distance.prepare(ranker.embed_all(probes).double()).cpu()
        rounded = torch.round(z / z.abs().max().clamp_min(1e-30) * 10**DIGITS).long()
        digest = sha256(f"{NAME} probes {tuple(z.shape)}".encode() + _integers(rounded)).hexdigest()
        return digest, (
            f"{error} cannot be read, so this is the hash of the embeddings of {PROBES} fixed images, "
            "rounded: it may be another one on another machine"
        )
