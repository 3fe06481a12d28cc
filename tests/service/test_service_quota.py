"""Keys and quotas: kept in a database, so that they hold after a restart and for several processes."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import pytest

from rankproof.errors import RankproofError
from rankproof.service.database import Sqlite
from rankproof.service.keys import Caller, Keys, key_command
from rankproof.service.limits import Limits
from rankproof.service.quota import DAY, Quota
from rankproof.service.refusal import RefusedError

NOON = 20_000 * DAY + DAY // 2


class Clock:
    def __init__(self, now=NOON):
        self.now = float(now)

    def __call__(self):
        return self.now


def take(quota, count, caller="alice"):
    """How many of some calls are allowed."""
    allowed = 0
    for _ in range(count):
        try:
            quota.take(caller)
            allowed += 1
        except RefusedError:
            pass
    return allowed


def refusal(quota, caller="alice"):
    with pytest.raises(RefusedError) as caught:
        quota.take(caller)
    return caught.value.reason, caught.value.retry_after


def test_a_day_has_so_many_calls(database):
    clock = Clock()
    quota = Quota(database, Limits(per_day=5, per_second=100), clock)
    assert take(quota, 7) == 5
    assert refusal(quota) == ("quota", DAY // 2)
    assert take(quota, 1, "bob") == 1  # each has an own quota
    clock.now = NOON + DAY // 2 - 0.5
    assert refusal(quota) == ("quota", 1)
    clock.now = NOON + DAY // 2  # midnight, UTC
    assert take(quota, 7) == 5


def test_a_second_has_so_many_calls(database):
    clock = Clock(NOON + 0.25)
    quota = Quota(database, Limits(per_day=7, per_second=3), clock)
    assert take(quota, 5) == 3
    assert refusal(quota) == ("rate", 1)
    assert quota.spent("alice") == 3  # refused calls do not count
    clock.now += 0.75
    assert take(quota, 5) == 3
    clock.now += 1
    assert take(quota, 5) == 1
    assert refusal(quota)[0] == "quota"


def test_a_call_that_could_not_be_answered_is_given_back(database):
    quota = Quota(database, Limits(per_day=2), Clock())
    assert take(quota, 2) == 2
    quota.give_back("alice")
    assert take(quota, 2) == 1
    quota.give_back("nobody")
    assert quota.spent("nobody") == 0


def test_two_objects_and_many_threads_share_it(database, tmp_path):
    other = Sqlite(tmp_path / "test.sqlite") if isinstance(database, Sqlite) else database
    limits = Limits(per_day=100, per_second=1000)
    quotas = [Quota(place, limits, Clock()) for place in (database, other)]
    with ThreadPoolExecutor(8) as pool:
        allowed = list(pool.map(lambda number: take(quotas[number % 2], 20), range(16)))
    assert sum(allowed) == 100
    if other is not database:
        other.close()


def test_two_processes_share_it_and_it_survives_them(tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from rankproof.service.database import Sqlite\n"
        "from rankproof.service.limits import Limits\n"
        "from rankproof.service.quota import Quota\n"
        "from rankproof.service.refusal import RefusedError\n"
        f"quota = Quota(Sqlite(Path(sys.argv[1])), Limits(per_day=150, per_second=1000), lambda: {NOON}.0)\n"
        "allowed = 0\n"
        "for _ in range(100):\n"
        "    try: quota.take('alice'); allowed += 1\n"
        "    except RefusedError: pass\n"
        "print(allowed)\n"
    )
    path = tmp_path / "test.sqlite"
    both = [subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE) for _ in range(2)]
    assert sum(int(process.communicate()[0]) for process in both) == 150
    database = Sqlite(path)
    assert Quota(database, Limits(), Clock()).spent("alice") == 150
    database.close()


def test_keys_are_kept_as_hashes(database):
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
    assert keys.find(alice) == Caller("alice")
    assert keys.find(bob) == Caller("bob", admin=True)
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
        assert keys.find(wrong) is None
    keys.remove("alice")
    assert keys.find(alice) is None
    assert keys.callers() == [Caller("bob", admin=True)]


def test_odd_names_of_keys(database):
    keys = Keys(database)
    keys.add("alice")
    for name in ("", "a b", "x" * 65, "a'--", "../a", "anonymous", "a\n"):
        with pytest.raises(RankproofError, match="is no name for a key"):
            keys.add(name)
    with pytest.raises(RankproofError, match="there is a key alice already"):
        keys.add("alice")
    with pytest.raises(RankproofError, match="there is no key bob"):
        keys.remove("bob")


def test_the_command_that_makes_keys(tmp_path):
    def call(*words, admin=False):
        return list(key_command(Sqlite(tmp_path / "a.sqlite"), *words, admin))

    (key,) = call("add", "alice")
    call("add", "bob", admin=True)
    assert call("list", None) == ["alice", "bob (admin)"]
    assert call("remove", "alice") == []
    assert call("list", None) == ["bob (admin)"]
    assert len(key) >= 40
    for words in (("add", None), ("list", "a"), ("remove", None), ("show", "a")):
        with pytest.raises(RankproofError, match="write rankproof keys add NAME"):
            call(*words)
