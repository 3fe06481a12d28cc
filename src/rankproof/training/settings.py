"""What the parts of a recipe write about themselves into a checkpoint's record."""

from dataclasses import asdict, dataclass
from typing import ClassVar

from rankproof.io import JsonObject
from rankproof.parameters import Checked


@dataclass(frozen=True)
class RecipePart(Checked):
    """Base of the losses, samplers and defences that are plain values."""

    name: ClassVar[str]
    """Used on the command line and in records."""

    def settings(self) -> JsonObject:
        """The name and every field; the fields of an inner attack come last, on the same level."""
        fields = asdict(self)
        inner: JsonObject = fields.pop("inner", {})
        return {"name": self.name, **fields, **inner}
