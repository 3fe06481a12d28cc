"""What is attacked: images embedded by an encoder and ranked by distance."""

from rankproof.ranking.distances import Cosine, Distance, Euclidean
from rankproof.ranking.examination import Examination
from rankproof.ranking.gallery import Gallery
from rankproof.ranking.ranker import Ranker

__all__ = ["Cosine", "Distance", "Euclidean", "Examination", "Gallery", "Ranker"]
