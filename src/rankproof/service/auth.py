"""API keys: who may call the service. Only hashes of keys are stored."""

import hmac
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

from rankproof.errors import RankproofError
from rankproof.service.storage import Database

ANONYMOUS = "anonymous"
IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
KEY_BYTES = 32  # random bytes in a key: enough that an unsalted hash is safe


@dataclass(frozen=True)
class Caller:
    """The owner of a key.

    Args:
        name: the name the key was added under.
        admin: whether this caller may add and remove items.
    """

    name: str
    admin: bool = False


class Keys:
    """The keys of a service.

    Args:
        database: where they are stored.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        database.run(
            "CREATE TABLE IF NOT EXISTS keys (name TEXT PRIMARY KEY, digest TEXT NOT NULL, "
            "admin INTEGER NOT NULL)"
        )

    def __len__(self) -> int:
        return len(self.callers())

    def add(self, name: str, *, admin: bool = False) -> str:
        """Create a key and return it; it cannot be shown again.

        Raises:
            RankproofError: the name is invalid or taken.
        """
        if not IDENTIFIER.fullmatch(name) or name == ANONYMOUS:
            raise RankproofError(
                f"{name!r} is not a valid name for a key; use 1 to 64 letters, digits, dots, dashes and "
                "underscores"
            )
        key = secrets.token_urlsafe(KEY_BYTES)
        added = self._database.run(
            "INSERT INTO keys (name, digest, admin) VALUES (?, ?, ?) ON CONFLICT DO NOTHING RETURNING name",
            name,
            _digest(key),
            int(admin),
        )
        if not added:
            raise RankproofError(f"a key named {name} exists already; remove it first or choose another name")
        return key

    def remove(self, name: str) -> None:
        """Revoke a key; the next request with it is refused.

        Raises:
            RankproofError: there is no such key.
        """
        if not self._database.run("DELETE FROM keys WHERE name = ? RETURNING name", name):
            raise RankproofError(f"there is no key named {name}; `rankproof keys list` lists all keys")

    def callers(self) -> list[Caller]:
        """The owners of all keys."""
        rows = self._database.run("SELECT name, admin FROM keys ORDER BY name")
        return [Caller(name, bool(admin)) for name, admin in rows]

    def owner(self, key: str) -> Caller | None:
        """The owner of a key, or None; compares in constant time."""
        digest, owner = _digest(key), None
        for name, stored, admin in self._database.run("SELECT name, digest, admin FROM keys"):
            if hmac.compare_digest(digest, stored):
                owner = Caller(name, bool(admin))
        return owner


def key_command(database: Database, action: str, name: str | None, admin: bool) -> Iterator[str]:
    """Run `rankproof keys`; yields the lines it prints. Closes the database."""
    keys = Keys(database)
    try:
        match action, name:
            case "add", str():
                yield keys.add(name, admin=admin)
            case "list", None:
                yield from (f"{caller.name}{' (admin)' * caller.admin}" for caller in keys.callers())
            case "remove", str():
                keys.remove(name)
            case _:
                raise RankproofError(
                    "usage: rankproof keys add NAME, rankproof keys list, or rankproof keys remove NAME"
                )
    finally:
        database.close()


def _digest(key: str) -> str:
    return sha256(key.encode(errors="surrogateescape")).hexdigest()
