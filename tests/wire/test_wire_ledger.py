import os
import signal
import subprocess
import sys

import pytest

from rankproof import RankproofError
from rankproof.wire import CapReachedError, Ledger


def test_answers_are_found_by_the_exact_bytes(ledger):
    kept = ledger()
    kept.keep(b"one", ["a", "b"])
    assert b"one" in kept
    assert b"One" not in kept
    assert kept[b"one"] == ["a", "b"]


def test_answers_calls_and_the_numbers_of_ids_outlive_a_process(ledger):
    first = ledger()
    for sent, ids in ((b"one", ["b", "a"]), (b"two", []), (b"three", ["c", "a"])):
        first.call()
        first.keep(sent, ids)
    again = ledger()
    assert again.numbers == first.numbers == {"b": 0, "a": 1, "c": 2}
    assert (again[b"one"], again[b"two"], again[b"three"]) == (["b", "a"], [], ["c", "a"])
    assert again.calls == 3


def test_calls_are_counted_by_day(ledger):
    days = iter(["2021-05-01", "2021-05-01", "2021-05-02", "2021-05-02"])
    kept = ledger(day=lambda: next(days))
    for _ in range(3):
        kept.call()
    assert (kept.calls, kept.calls_today) == (3, 1)


def test_no_call_beyond_the_cap(ledger):
    first = ledger(cap=2)
    first.call()
    again = ledger(cap=2)  # calls of an earlier process count
    again.call()
    with pytest.raises(CapReachedError, match="cap of 2 calls is reached; --cap allows more"):
        again.call()
    assert again.calls == 2
    ledger(cap=3).call()


def test_one_process_at_a_time(ledger, tmp_path):
    ledger().call()
    with pytest.raises(RankproofError, match="is in use by another attack"):
        Ledger(tmp_path / "answers.sqlite", "a shop")


def test_answers_of_another_service_are_not_mixed_in(ledger):
    ledger().keep(b"one", ["a"])
    with pytest.raises(RankproofError, match=r"answers\.sqlite: holds answers of another service"):
        ledger(service="another shop")
    assert ledger()[b"one"] == ["a"]  # the refused one let go of the file


def test_a_file_that_is_no_ledger_is_told(tmp_path):
    path = tmp_path / "answers.sqlite"
    path.write_bytes(b"something else entirely" * 50)
    with pytest.raises(RankproofError, match=r"answers\.sqlite: cannot be read \(.*\); delete it"):
        Ledger(path, "a shop")
    assert path.read_bytes().startswith(b"something else")


def test_without_a_file_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept = Ledger(None, "a shop")
    kept.call()
    kept.keep(b"one", ["a"])
    assert (kept.calls, kept[b"one"]) == (1, ["a"])
    kept.close()
    assert not list(tmp_path.iterdir())


def test_nothing_is_lost_when_a_process_is_killed(tmp_path, ledger):
    code = """
import os, sys
from pathlib import Path
from rankproof.wire.ledger import Ledger
kept = Ledger(Path(sys.argv[1]), "a shop")
for number in range(3):
    kept.call()
    kept.keep(str(number).encode(), [str(number)])
kept.call()
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "answers.sqlite")], env=os.environ)
    assert done.returncode == -signal.SIGKILL
    kept = ledger()
    assert [kept[str(number).encode()] for number in range(3)] == [["0"], ["1"], ["2"]]
    assert kept.calls == 4
