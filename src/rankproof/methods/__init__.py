"""How an attacker searches: white-box methods follow gradients, black-box methods see places alone."""

from rankproof.methods.black_box.base import BlackBoxMethod
from rankproof.methods.black_box.beta import Beta
from rankproof.methods.black_box.nes import NES
from rankproof.methods.black_box.pso import PSO
from rankproof.methods.black_box.random_search import Rand
from rankproof.methods.black_box.spsa import SPSA
from rankproof.methods.black_box.subspace import Subspace
from rankproof.methods.black_box.thompson import ThompsonSampling
from rankproof.methods.white_box.base import Method, MethodOutput
from rankproof.methods.white_box.converged import Converged
from rankproof.methods.white_box.momentum_pgd import MomentumPGD
from rankproof.methods.white_box.pgd import PGD
from rankproof.methods.white_box.universal import Universal

__all__ = [
    "NES",
    "PGD",
    "PSO",
    "SPSA",
    "Beta",
    "BlackBoxMethod",
    "Converged",
    "Method",
    "MethodOutput",
    "MomentumPGD",
    "Rand",
    "Subspace",
    "ThompsonSampling",
    "Universal",
]
