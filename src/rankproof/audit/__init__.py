"""The standard audit: planned, run, checked for figures that cannot be trusted, and reported."""

from rankproof.audit.plan import AuditTask, Plan, plan
from rankproof.audit.result import AuditResult
from rankproof.audit.run import audit

__all__ = ["AuditResult", "AuditTask", "Plan", "audit", "plan"]
