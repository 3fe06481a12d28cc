import sys
from dataclasses import dataclass

import pytest

import rankproof.audit  # noqa: F401
from rankproof.methods import SPSA

QUERIES = 61


@dataclass(frozen=True, kw_only=True)
class Own(SPSA):
    """Stands for the library's own search: not the reference method's name, 8-bit images."""

    sigma: float = 5 / 255
    step: float = 4 / 255

    name = "own"
    grid = True


@pytest.fixture(scope="module", autouse=True)
def own():
    """A search that differs from the reference method, and few queries."""
    plan = sys.modules["rankproof.audit.plan"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "automatic", Own)
        patch.setattr(plan, "BUDGET", QUERIES)
        yield Own()
