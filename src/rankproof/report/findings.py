"""What an audit found beside the figures of attacks: controls, classes, and under which protocol."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Control:
    """One check, on a few attacks, of whether the search itself can be trusted.

    "gradient", "noise", "png" and "jpeg-90" are made on the strong search, the others on the one that goes on
    until it has converged.

    Args:
        name: which check: "gradient", "noise", "doubled", "eps-1", "best-iterate", "png" or "jpeg-90".
        goal: the goal it was made for, by its name.
        eps: budget in [0, 1].
        trials: attacks.
        value: the mean headline figure that the control gave; of "eps-1" the share that reached its wish, of
            "gradient" the share whose loss falls along the gradient.
        compared_with: the mean figure of the attacks it is made on; of "eps-1" and "gradient" it is 1.
        passed: whether there is no reason to doubt the search; None where it is a figure to read.
        text: what it did and what came of it, as one sentence.
    """

    name: str
    goal: str
    eps: float
    trials: int
    value: float
    compared_with: float
    passed: bool | None
    text: str


@dataclass(frozen=True, kw_only=True)
class ClassBudget:
    """The smallest budgets of the images of one class.

    Args:
        goal: the goal by its name.
        label: name of the class.
        trials: attacked images of the class, without those whose wish held before.
        eps_star: their median smallest budget; None where half of them or fewer were reached.
    """

    goal: str
    label: str
    trials: int
    eps_star: float | None


@dataclass(frozen=True, kw_only=True)
class ProtocolHashes:
    """Under which protocol figures were taken: equal `protocol` and `data` are comparable.

    Args:
        name: such as "rankproof-1".
        protocol: sha256 of everything that decides a figure but model and data.
        data: sha256 of the images, their labels and which of them were attacked.
        model: sha256 of what the embeddings depend on.
        model_note: how the model was read, where it could not be read to the ground; else empty.
    """

    name: str
    protocol: str
    data: str
    model: str
    model_note: str = ""
