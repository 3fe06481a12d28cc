"""The standard audit: planned, run, checked for figures that cannot be trusted, and reported."""

from rankproof.audit.counts import Counts
from rankproof.audit.plan import Plan, plan
from rankproof.audit.result import AuditResult
from rankproof.audit.run import AuditOptions, audit

__all__ = ["AuditOptions", "AuditResult", "Counts", "Plan", "audit", "plan"]
