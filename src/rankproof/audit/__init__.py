"""How an audit is run, checked and told."""

from rankproof.audit.plan import Plan, plan
from rankproof.audit.result import AuditResult
from rankproof.audit.suite import audit

__all__ = ["AuditResult", "Plan", "audit", "plan"]
