"""Every method by its name: what the command line, recipes and results know of methods.

A new method is one file, made known by one call of `register`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from rankproof.errors import RankproofError
from rankproof.methods.black_box.base import BlackBoxMethod
from rankproof.methods.black_box.beta import Beta
from rankproof.methods.black_box.nes import NES
from rankproof.methods.black_box.pso import PSO
from rankproof.methods.black_box.random_search import Rand
from rankproof.methods.black_box.spsa import SPSA
from rankproof.methods.defaults import automatic, converged, published, strong
from rankproof.methods.white_box.base import Method

Kind = Literal["white-box", "black-box"]
Build = Callable[[str, int | None], Method | BlackBoxMethod]


@dataclass(frozen=True)
class MethodSpec:
    """A method by its name.

    Args:
        name: the word on the command line and in files.
        kind: whether it needs gradients ("white-box") or sees places alone ("black-box").
        published: whether it is a paper's; else it is our own.
        build: makes it for goals of a metric, with so many evaluations (None: as published).
        title: what pages call it; empty where that is its name.
    """

    name: str
    kind: Kind
    published: bool
    build: Build
    title: str = ""


_specs: dict[str, MethodSpec] = {}


def register(
    name: str,
    kind: Kind,
    build: Build,
    *,
    published: bool = False,
    title: str = "",
) -> None:
    """Make a method known by a name.

    Raises:
        RankproofError: another method has the name.
    """
    if name in _specs:
        raise RankproofError(f"method {name!r} is registered already; choose another name")
    _specs[name] = MethodSpec(name, kind, published, build, title)


def unregister(name: str) -> None:
    """Forget a method, as a test does with its own."""
    del _specs[name]


def names(kind: Kind | None = None) -> tuple[str, ...]:
    """The names of all methods, or of those of one kind."""
    return tuple(name for name, spec in _specs.items() if kind in (None, spec.kind))


def spec(name: str) -> MethodSpec:
    """A method by its name.

    Raises:
        RankproofError: there is no such method.
    """
    if name not in _specs:
        raise RankproofError(f"method {name!r} is unknown; known: {', '.join(_specs)}")
    return _specs[name]


def published_titles() -> dict[str, str]:
    """What pages call the published methods, with which an audit compares its own, by their names."""
    return {name: spec.title or name for name, spec in _specs.items() if spec.published}


def parse(name: str, metric: str = "rank", steps: int | None = None) -> Method | BlackBoxMethod:
    """The method of a name for goals of a metric.

    Args:
        metric: the goal's; published steps and momentum follow it.
        steps: forward and gradient evaluations of each attack; None is as published.
    Raises:
        RankproofError: there is no such method.
    """
    return spec(name).build(metric, steps)


def parse_black_box(name: str) -> BlackBoxMethod:
    """The black-box method of a name.

    Raises:
        RankproofError: there is no such method, or it needs gradients.
    """
    if name not in _specs:
        raise RankproofError(f"method {name!r} is unknown; known: {', '.join(names('black-box'))}")
    method = parse(name)
    if not isinstance(method, BlackBoxMethod):
        raise RankproofError(f"method {name!r} needs gradients; known: {', '.join(names('black-box'))}")
    return method


register("pgd", "white-box", published, published=True, title="plain PGD")
register("strong", "white-box", strong)
register("converged", "white-box", converged)
register("auto", "black-box", lambda metric, steps: automatic())
register("thompson", "black-box", lambda metric, steps: automatic())
for _method, _title in ((Rand, "Rand"), (Beta, "Beta"), (PSO, "PSO"), (NES, "NES"), (SPSA, "SPSA")):
    register(
        _method.name,
        "black-box",
        lambda metric, steps, build=_method: build(),  # type: ignore[misc]
        published=True,
        title=_title,
    )
