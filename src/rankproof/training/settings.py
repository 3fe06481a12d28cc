"""What the parts of a recipe write about themselves into a checkpoint's record."""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

Settings = dict[str, Any]
"""Plain values by name, as they stand in model.json."""


@dataclass(frozen=True)
class RecipePart:
    """Base of the losses, samplers and defences that are plain values."""

    name: ClassVar[str]
    """Used on the command line and in records."""

    def settings(self) -> Settings:
        """The name and every field; the fields of an inner attack come last, on the same level."""
        fields = asdict(self)
        inner: Settings = fields.pop("inner", {})
        return {"name": self.name, **fields, **inner}
