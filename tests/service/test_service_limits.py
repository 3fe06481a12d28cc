"""Limits are checked, and quotas hold after a restart and for several processes."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from rankproof.errors import RankproofError
from rankproof.service.errors import RefusedError
from rankproof.service.limits import DAY, Limits, Quota
from rankproof.service.storage import Sqlite

NOON = 20_000 * DAY + DAY // 2


class Clock:
    def __init__(self, now=NOON):
        self.now = float(now)

    def __call__(self):
        return self.now


def take(quota, count, caller="alice"):
    """How many of `count` calls are allowed."""
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
    assert take(quota, 1, "bob") == 1  # every caller has a quota
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


def test_a_call_that_could_not_be_answered_is_refunded(database):
    quota = Quota(database, Limits(per_day=2), Clock())
    assert take(quota, 2) == 2
    quota.refund("alice")
    assert take(quota, 2) == 1
    quota.refund("nobody")
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
        "from rankproof.service.errors import RefusedError\n"
        "from rankproof.service.limits import Limits, Quota\n"
        "from rankproof.service.storage import Sqlite\n"
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


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"visible": 0}, "--visible must be between 1 and 50"),
        ({"visible": 51}, "--visible must be between 1 and 50"),
        ({"per_day": 0}, "--per-day must be at least 1"),
        ({"per_second": 0}, "--per-second must be at least 1"),
        ({"max_bytes": 0}, "--max-bytes must be at least 1"),
        ({"min_side": -1}, "--min-side must be at least 0"),
        ({"window": 1.5}, "--window must be between 0 and 1"),
        ({"window": float("nan")}, "--window must be between 0 and 1"),
    ],
)
def test_invalid_limits(limits, words):
    with pytest.raises(RankproofError, match=words):
        Limits(**limits)
