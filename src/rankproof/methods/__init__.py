"""How an attacker gets there."""

from rankproof.methods.base import Found, Method
from rankproof.methods.estimate import NES, SPSA
from rankproof.methods.gradient import PGD
from rankproof.methods.population import PSO, Beta, Rand
from rankproof.methods.search import BlackBox
from rankproof.methods.strong import Strong
from rankproof.methods.thompson import Thompson
from rankproof.methods.universal import Universal

__all__ = [
    "NES",
    "PGD",
    "PSO",
    "SPSA",
    "Beta",
    "BlackBox",
    "Found",
    "Method",
    "Rand",
    "Strong",
    "Thompson",
    "Universal",
]
