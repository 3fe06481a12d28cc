"""Who may call: keys that are kept as hashes only."""

import hmac
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

from rankproof.errors import RankproofError
from rankproof.service.database import Database

ANONYMOUS = "anonymous"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
BYTES = 32  # of randomness in a key: too many to guess, so a plain hash of it is safe


@dataclass(frozen=True)
class Caller:
    """The owner of a key.

    Args:
        name: as the key was added.
        admin: whether items may be added and removed.
    """

    name: str
    admin: bool = False


class Keys:
    """The keys of a service.

    Args:
        database: where they are kept.
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
        """A new key, which cannot be shown again.

        Raises:
            RankproofError: the name is taken or odd.
        """
        if not NAME.fullmatch(name) or name == ANONYMOUS:
            raise RankproofError(
                f"{name!r} is no name for a key; use 1 to 64 letters, digits, dots and dashes"
            )
        key = secrets.token_urlsafe(BYTES)
        added = self._database.run(
            "INSERT INTO keys (name, digest, admin) VALUES (?, ?, ?) ON CONFLICT DO NOTHING RETURNING name",
            name,
            _digest(key),
            int(admin),
        )
        if not added:
            raise RankproofError(f"there is a key {name} already; remove it first or choose another name")
        return key

    def remove(self, name: str) -> None:
        """Make a key useless from the next request on.

        Raises:
            RankproofError: there is no such key.
        """
        if not self._database.run("DELETE FROM keys WHERE name = ? RETURNING name", name):
            raise RankproofError(f"there is no key {name}; `rankproof keys list` tells those there are")

    def callers(self) -> list[Caller]:
        """The owners of all keys."""
        rows = self._database.run("SELECT name, admin FROM keys ORDER BY name")
        return [Caller(name, bool(admin)) for name, admin in rows]

    def find(self, key: str) -> Caller | None:
        """The owner of a key; takes the same time whichever key it is, and for none."""
        digest, found = _digest(key), None
        for name, known, admin in self._database.run("SELECT name, digest, admin FROM keys"):
            if hmac.compare_digest(digest, known):
                found = Caller(name, bool(admin))
        return found


def key_command(database: Database, action: str, name: str | None, admin: bool) -> Iterator[str]:
    """Do what `rankproof keys` is asked for; the lines it prints."""
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
                raise RankproofError("write rankproof keys add NAME, keys list, or keys remove NAME")
    finally:
        database.close()


def _digest(key: str) -> str:
    return sha256(key.encode(errors="surrogateescape")).hexdigest()
