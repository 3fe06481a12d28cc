"""Jobs side by side: what needs what, and what becomes of the processes."""

import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import torch

from rankproof.errors import RankproofError
from rankproof.parallel import Job, in_turn, side_by_side


def builder(folder):
    """What a worker does: leave a trace of where it was, or do harm."""

    def work(word):
        (folder / f"{os.getpid()}").touch()
        match word:
            case "threads":
                return torch.get_num_threads()
            case "process":
                return os.getpid()
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "sleep":
                time.sleep(600)
        return word.upper()

    return work


def job(name, *needs):
    return Job(name=name, what=name, needs=frozenset(needs))


JOBS = (job("a"), job("b", "a"), job("c"), job("d", "a", "c"), job("e", "d"))


def gone(folder):
    """Whether no process that was at work is there any more."""
    limit = time.monotonic() + 30
    while time.monotonic() < limit:
        alive = [path for path in folder.iterdir() if os.path.exists(f"/proc/{path.name}")]
        if not alive:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("way", ["in turn", "side by side"])
def test_every_job_is_done_once_and_after_those_it_needs(tmp_path, way):
    build = partial(builder, tmp_path)
    done = list(in_turn(JOBS, build()) if way == "in turn" else side_by_side(JOBS, build, 2))
    assert sorted((each.name, result) for each, result in done) == [(n, n.upper()) for n in "abcde"]
    order = [each.name for each, _ in done]
    assert all(order.index(need) < order.index(each.name) for each in JOBS for need in each.needs)


def test_processes_share_the_threads_and_end_with_the_jobs(tmp_path):
    jobs = [Job(name=f"{n}", what=what) for n, what in enumerate(["threads", "process", "process"])]
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        (_, threads), *others = sorted(
            side_by_side(jobs, partial(builder, tmp_path), 2), key=lambda done: done[0].name
        )
    finally:
        torch.set_num_threads(before)
    assert threads == 2
    assert os.getpid() not in {process for _, process in others}
    assert gone(tmp_path)


@pytest.mark.parametrize("words", [("die", "sleep"), ("sleep", "die")], ids=" then ".join)
def test_a_worker_that_is_killed_is_one_line(tmp_path, words):
    with pytest.raises(RankproofError, match="a worker was killed"):
        list(side_by_side([job(word) for word in words], partial(builder, tmp_path), 2))
    assert gone(tmp_path)


SCRIPT = """
import sys
from functools import partial
from pathlib import Path
sys.path.insert(0, {tests!r})
from rankproof.parallel import side_by_side
from test_parallel import builder, job
if __name__ == "__main__":
    for _ in side_by_side([job("a"), job("b"), job("sleep")], partial(builder, Path({folder!r})), 2):
        print("done", flush=True)
"""


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_when_their_parent_is_stopped(tmp_path, blow):
    (folder := tmp_path / "traces").mkdir()
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=os.path.dirname(__file__), folder=str(folder)))
    process = subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    assert [process.stdout.readline() for _ in range(2)] == ["done\n"] * 2
    if blow == signal.SIGINT:
        os.killpg(process.pid, blow)  # as a terminal does: to all of them
    else:
        process.send_signal(blow)
    _, said = process.communicate(timeout=60)
    assert gone(folder)
    assert said.count("Traceback") == (blow == signal.SIGINT)  # of the parent alone
