import os
import signal
import subprocess
import sys

import pytest

from rankproof import RankproofError
from rankproof.wire import CapReachedError, ResponseCache


def test_answers_are_found_by_the_exact_bytes(cache):
    kept = cache()
    kept.store(b"one", ["a", "b"])
    assert b"one" in kept
    assert b"One" not in kept
    assert kept[b"one"] == ["a", "b"]


def test_answers_calls_and_the_numbers_of_ids_outlive_a_process(cache):
    first = cache()
    for sent, ids in ((b"one", ["b", "a"]), (b"two", []), (b"three", ["c", "a"])):
        first.count_call()
        first.store(sent, ids)
    again = cache()
    assert again.numbers == first.numbers == {"b": 0, "a": 1, "c": 2}
    assert (again[b"one"], again[b"two"], again[b"three"]) == (["b", "a"], [], ["c", "a"])
    assert again.calls == 3


def test_calls_are_counted_by_day(cache):
    days = iter(["2021-05-01", "2021-05-01", "2021-05-02", "2021-05-02"])
    kept = cache(day=lambda: next(days))
    for _ in range(3):
        kept.count_call()
    assert (kept.calls, kept.calls_today) == (3, 1)


def test_no_call_beyond_the_cap(cache):
    first = cache(cap=2)
    first.count_call()
    again = cache(cap=2)  # calls of an earlier process count
    again.count_call()
    with pytest.raises(CapReachedError, match="cap of 2 calls is reached; --cap allows more"):
        again.count_call()
    assert again.calls == 2
    cache(cap=3).count_call()


def test_one_process_at_a_time(cache, tmp_path):
    cache().count_call()
    with pytest.raises(RankproofError, match="is in use by another attack"):
        ResponseCache(tmp_path / "answers.sqlite", "a shop")


def test_answers_of_another_service_are_not_mixed_in(cache):
    cache().store(b"one", ["a"])
    with pytest.raises(RankproofError, match=r"answers\.sqlite: holds answers of another service"):
        cache(service="another shop")
    assert cache()[b"one"] == ["a"]  # the refused one let go of the file


def test_a_file_that_is_no_cache_is_told(tmp_path):
    path = tmp_path / "answers.sqlite"
    path.write_bytes(b"something else entirely" * 50)
    with pytest.raises(RankproofError, match=r"answers\.sqlite: cannot be read \(.*\); delete it"):
        ResponseCache(path, "a shop")
    assert path.read_bytes().startswith(b"something else")


def test_without_a_file_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept = ResponseCache(None, "a shop")
    kept.count_call()
    kept.store(b"one", ["a"])
    assert (kept.calls, kept[b"one"]) == (1, ["a"])
    kept.close()
    assert not list(tmp_path.iterdir())


def test_nothing_is_lost_when_a_process_is_killed(tmp_path, cache):
    code = """
import os, sys
from pathlib import Path
from rankproof.wire.response_cache import ResponseCache
kept = ResponseCache(Path(sys.argv[1]), "a shop")
for number in range(3):
    kept.count_call()
    kept.store(str(number).encode(), [str(number)])
kept.count_call()
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "answers.sqlite")], env=os.environ)
    assert done.returncode == -signal.SIGKILL
    kept = cache()
    assert [kept[str(number).encode()] for number in range(3)] == [["0"], ["1"], ["2"]]
    assert kept.calls == 4
