"""Single values that belong to a database, such as what its items were made by."""

from rankproof.service.database import Database


class Facts:
    """Names and values, one of each.

    Args:
        database: where they are kept.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        database.run("CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)")

    def get(self, name: str) -> str | None:
        """The value of a fact, None where nothing is known."""
        rows = self._database.run("SELECT value FROM facts WHERE name = ?", name)
        return str(rows[0][0]) if rows else None

    def put(self, name: str, value: str) -> None:
        """Keep a fact in place of what was known."""
        self._database.run(
            "INSERT INTO facts (name, value) VALUES (?, ?) "
            "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            name,
            value,
        )
