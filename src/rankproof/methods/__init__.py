"""How an attacker gets there."""

from rankproof.methods.base import Found, Method
from rankproof.methods.gradient import PGD

__all__ = ["PGD", "Found", "Method"]
