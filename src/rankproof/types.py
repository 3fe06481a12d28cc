"""Shapes of the tensors that travel between the rooms, written once."""

from jaxtyping import Float, Int
from torch import Tensor

Images = Float[Tensor, "b c h w"]
"""Pictures with values in [0, 1]."""

Embeddings = Float[Tensor, "b d"]
"""One embedding per image, already prepared for its distance (unit length for cosine)."""

Database = Float[Tensor, "n d"]
"""The embeddings of a whole gallery."""

Chosen = Float[Tensor, "b m d"]
"""The embeddings of m chosen items per attack."""

Ids = Int[Tensor, "b m"]
"""Positions in the gallery, one row per attack."""

Rows = Int[Tensor, " b"]
"""One position per attack."""

PerAttack = Float[Tensor, " b"]
"""One value per attack."""
