"""What an audit did not measure, each as a sentence."""

from collections.abc import Sequence

from rankproof.audit.measurements import Kind, Measurement
from rankproof.threat import format_eps


def missing(done: Sequence[tuple[Measurement, int]], eps: float, why: str) -> tuple[str, ...]:
    """The sentences of measurements without any attack.

    Args:
        done: every measurement with its number of attacks.
        eps: the audited budget.
        why: such as "for want of time".
    """
    found = []
    texts: dict[Kind, str] = {
        "smallest": "the smallest budgets",
        "at-eps": f"attacks at {format_eps(eps)}",
        "converged": f"converged attacks at {format_eps(eps)}",
        "controls": "the controls",
        "doubled": "the controls that search again",
    }
    for kind, text in texts.items():
        own = [(each, count) for each, count in done if each.kind == kind]
        names = [each.goal.spec.title for each, count in own if not count]
        if names:
            of = "every goal" if len(names) == len(own) else _listed(names)
            found.append(f"Not measured {why}: {text} of {of}.")
    looks: dict[str, int] = {}
    for each, count in done:
        if each.kind == "black-box":
            looks[str(each.goal.parameters["k"])] = looks.get(str(each.goal.parameters["k"]), 0) + count
    if absent := [f"{k} results" for k, count in looks.items() if not count]:
        found.append(f"Not measured {why}: the black box, a stranger who reorders {_listed(absent, 'or')}.")
    return tuple(found)


def _listed(names: Sequence[str], word: str = "and") -> str:
    return f" {word} ".join(filter(None, (", ".join(names[:-1]), names[-1])))
