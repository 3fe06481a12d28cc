"""Which settings go with which kind of goal."""

from rankproof.methods.gradient import PGD
from rankproof.methods.search import BlackBox
from rankproof.methods.strong import Strong
from rankproof.methods.thompson import Thompson


def published(metric: str, steps: int | None = None) -> PGD:
    """The descent of the paper that introduced goals of this metric: the order attack is ICCV's."""
    return PGD(rule="iccv21" if metric == "tau" else "eccv20", steps=steps)


def strong(metric: str, steps: int | None = None) -> Strong:
    """Our search with as many evaluations; the loss of an order is rougher: more momentum, shorter steps."""
    if metric == "tau":
        return Strong(rule="iccv21", steps=steps, momentum=0.9, longest=2 / 255, emphasis=5.0)
    return Strong(rule="eccv20", steps=steps)


def automatic() -> BlackBox:
    """Our search where only the first results can be seen."""
    return Thompson()
