"""How an attacker gets there."""

from rankproof.methods.base import Found, Method
from rankproof.methods.gradient import PGD
from rankproof.methods.strong import Strong

__all__ = ["PGD", "Found", "Method", "Strong"]
