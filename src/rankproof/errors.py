"""Errors a user can mend: one line that says what is wrong and what to do."""


class RankproofError(Exception):
    """Bad input; the message is one line and names the file or option at fault."""


class ThreatViolationError(RuntimeError):
    """A method returned an image outside its threat set: a bug, never a result."""


class NotFiniteError(RankproofError):
    """An encoder returned NaN or infinite embeddings."""
