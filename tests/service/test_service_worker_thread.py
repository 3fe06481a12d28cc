"""Work runs in another thread, which ends with it, even when it is interrupted."""

import signal
import threading
import time
from contextlib import contextmanager

import pytest

from rankproof.service.worker_thread import run_in_worker_thread


@contextmanager
def no_progress(what):
    yield lambda done, total: None


def test_it_is_another_thread_which_ends():
    thread = run_in_worker_thread(lambda stage: threading.current_thread(), no_progress)
    assert thread is not threading.current_thread()
    assert not thread.is_alive()


def test_progress_and_errors_pass_through():
    reports = []

    @contextmanager
    def stage(what):
        yield lambda done, total: reports.append((what, done, total))

    def work(stage):
        with stage("embedding") as tell:
            tell(1, 2)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        run_in_worker_thread(work, stage)
    assert reports == [("embedding", 1, 2)]


def test_an_interrupt_stops_it():
    ended = []

    def work(stage):
        with stage("embedding") as tell:
            try:
                time.sleep(0.2)  # until the main thread waits
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
                for number in range(100_000):
                    tell(number, 100_000)
                    time.sleep(0.001)
            finally:
                ended.append(number)

    with pytest.raises(KeyboardInterrupt):
        run_in_worker_thread(work, no_progress)
    assert ended[0] < 99_999
