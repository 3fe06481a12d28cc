"""What the service stores: items, metadata, keys and quotas, in SQLite or in PostgreSQL."""

from rankproof.service.storage.base import Database, MetadataStore
from rankproof.service.storage.items import Items
from rankproof.service.storage.sqlite import Sqlite

__all__ = ["Database", "Items", "MetadataStore", "Sqlite"]
