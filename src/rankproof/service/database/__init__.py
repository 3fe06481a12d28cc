"""Where the service keeps what must survive a restart: items, keys and quotas."""

from rankproof.service.database.base import AwayError, Database
from rankproof.service.database.sqlite import Sqlite

__all__ = ["AwayError", "Database", "Sqlite"]
