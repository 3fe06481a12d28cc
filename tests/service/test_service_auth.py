"""API keys: stored as hashes, found, removed, and managed from the command line."""

from hashlib import sha256

import pytest

from rankproof.errors import RankproofError
from rankproof.service.auth import Caller, Keys, key_command
from rankproof.service.storage import Sqlite


def test_keys_are_stored_as_hashes(database):
    keys = Keys(database)
    key = keys.add("alice")
    stored = database.run("SELECT * FROM keys")
    assert stored == [("alice", sha256(key.encode()).hexdigest(), 0)]
    assert key not in repr(stored)
    assert len(key) >= 40
    assert keys.add("bob") != key


def test_keys_are_found_and_removed(database):
    keys = Keys(database)
    alice, bob = keys.add("alice"), keys.add("bob", admin=True)
    assert keys.owner(alice) == Caller("alice")
    assert keys.owner(bob) == Caller("bob", admin=True)
    for wrong in (
        "",
        "alice",
        alice[:-1],
        alice + " ",
        alice.swapcase(),
        "' OR 1=1 --",
        "\udcff",
        "é" * 1000,
    ):
        assert keys.owner(wrong) is None
    keys.remove("alice")
    assert keys.owner(alice) is None
    assert keys.callers() == [Caller("bob", admin=True)]


def test_invalid_names_of_keys(database):
    keys = Keys(database)
    keys.add("alice")
    for name in ("", "a b", "x" * 65, "a'--", "../a", "anonymous", "a\n"):
        with pytest.raises(RankproofError, match="is not a valid name for a key"):
            keys.add(name)
    with pytest.raises(RankproofError, match="a key named alice exists already"):
        keys.add("alice")
    with pytest.raises(RankproofError, match="there is no key named bob"):
        keys.remove("bob")


def test_the_keys_command(tmp_path):
    def call(*words, admin=False):
        return list(key_command(Sqlite(tmp_path / "a.sqlite"), *words, admin))

    (key,) = call("add", "alice")
    call("add", "bob", admin=True)
    assert call("list", None) == ["alice", "bob (admin)"]
    assert call("remove", "alice") == []
    assert call("list", None) == ["bob (admin)"]
    assert len(key) >= 40
    for words in (("add", None), ("list", "a"), ("remove", None), ("show", "a")):
        with pytest.raises(RankproofError, match="usage: rankproof keys add NAME"):
            call(*words)
