"""What an encoder is trained to lower."""

from torch import Tensor

from rankproof.ranking.distances import Distance


def triplet(z: Tensor, triplets: Tensor, distance: Distance, margin: float) -> Tensor:
    """Triplet loss of every triplet (ECCV eq. 3): [margin + d(a, p) - d(a, n)]+.

    Args:
        z: (b, d) embeddings of a batch, each image embedded once.
        triplets: (t, 3) positions of anchor, positive and negative in the batch.
        margin: 0.2 for cosine and 1.0 for Euclidean distance in the papers (28x28 images).
    Returns:
        (t,) one loss per triplet.
    """
    anchor, positive, negative = z[triplets].unbind(1)  # (t, d) each
    return (margin + distance.between(anchor, positive) - distance.between(anchor, negative)).relu()
