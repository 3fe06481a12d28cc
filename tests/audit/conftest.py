import sys
from dataclasses import dataclass

import pytest
import torch

import rankproof.audit  # noqa: F401
from rankproof import Gallery
from rankproof.goals.registry import parse
from rankproof.methods import SPSA
from rankproof.methods.defaults import strong
from rankproof.methods.white_box.converged import Converged
from rankproof.methods.white_box.shrinking_budget import ShrinkingBudget

QUERIES = 21
GOALS = ("qa+", "sp-qa-", "oa", "shift")


@dataclass(frozen=True, kw_only=True)
class Own(SPSA):
    """Stands for the library's own search: not the reference method's name, 8-bit images."""

    sigma: float = 5 / 255
    step: float = 4 / 255

    name = "own"
    grid = True


@pytest.fixture(scope="module", autouse=True)
def own():
    """A search that differs from the reference method, few queries, and white boxes of few steps."""
    measurements, counts = (sys.modules[f"rankproof.audit.{name}"] for name in ("measurements", "counts"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measurements, "automatic", Own)
        short = lambda metric: Converged(search=strong(metric), least=1, blocks=3)  # noqa: E731
        patch.setattr(measurements, "audited", short)
        patch.setattr(counts, "BUDGET", QUERIES)
        for module in (measurements, sys.modules["rankproof.attacks.smallest_budget"]):
            patch.setattr(module, "smallest", lambda *_, **__: ShrinkingBudget(evaluations=12, start=0.1))
        yield Own()


@pytest.fixture(scope="module")
def few_goals():
    """Audits of four goals: one, one that keeps results, an order, and one without a yes or no."""
    with pytest.MonkeyPatch.context() as patch:
        measurements = sys.modules["rankproof.audit.measurements"]
        patch.setattr(measurements, "standard_goals", lambda size: tuple(map(parse, GOALS)))
        yield GOALS


@pytest.fixture(scope="module")
def shop(make):
    """24 images of two classes."""
    images = make.images(24)
    return Gallery.build(make.ranker(), images, torch.arange(24) % 2)
