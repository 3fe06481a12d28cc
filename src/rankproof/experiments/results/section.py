"""One section of the page."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rankproof.experiments.results.tables import NOT_RUN


@dataclass(frozen=True, kw_only=True)
class Section:
    """A title, what is to be known, the command and the tables.

    Args:
        title, text, command: as they stand on the page.
        records: what was measured, as a call; nothing is told of a section without any.
        render: the tables, as a call.
        always: whether they are shown without records too.
    """

    title: str
    text: str
    command: str
    records: Callable[[], Sequence[object]]
    render: Callable[[], str]
    always: bool = False

    def markdown(self) -> str:
        """All of it."""
        told = self.render() if self.always or self.records() else f"{NOT_RUN.capitalize()}."
        return f"## {self.title}\n\n{self.text}\n\n```\n{self.command}\n```\n\n{told}"
