"""A plain function as an encoder."""

from functools import partial
from typing import Any

from torch import Tensor, nn

from rankproof.errors import RankproofError


class EncoderFunction(nn.Module):
    """A function from pixels (b, c, h, w) to embeddings (b, d) as a module.

    The module that a method belongs to, as in `model.encode_image`, is part of it and so put into eval mode;
    one that the function takes from elsewhere is its author's to prepare.

    Args:
        function: any callable.
    """

    def __init__(self, function: Any) -> None:
        super().__init__()
        if not callable(function) or isinstance(function, type):
            said = function.__name__ if isinstance(function, type) else type(function).__name__
            kind = "the class" if isinstance(function, type) else "a value of type"
            raise RankproofError(
                f"encoder: give a torch module or a function of images (b, c, h, w), not {kind} {said}"
            )
        self.function = function
        bound = function.func if isinstance(function, partial) else function
        owner = getattr(bound, "__self__", None)
        self.owner = owner if isinstance(owner, nn.Module) else None

    def forward(self, images: Tensor) -> Any:
        """(b, c, h, w) to what the function returns, (b, d) embeddings if it is an encoder."""
        return self.function(images)
