"""Nearest-neighbour indexes: FAISS in the process, or pgvector in PostgreSQL; both imported on demand."""

from rankproof.indexes.base import HNSW_FROM, Index, ItemTable

__all__ = ["HNSW_FROM", "Index", "ItemTable"]
