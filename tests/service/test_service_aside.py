"""Work goes on in another thread, which is gone afterwards, even when it is interrupted."""

import _thread
import threading
import time
from contextlib import contextmanager

import pytest

from rankproof.service.aside import aside


@contextmanager
def silent(what):
    yield lambda done, total: None


def test_it_is_another_thread_which_ends():
    thread = aside(lambda stage: threading.current_thread(), silent)
    assert thread is not threading.current_thread()
    assert not thread.is_alive()


def test_progress_and_errors_pass_through():
    told = []

    @contextmanager
    def stage(what):
        yield lambda done, total: told.append((what, done, total))

    def work(stage):
        with stage("embedding") as tell:
            tell(1, 2)
        raise ValueError("odd")

    with pytest.raises(ValueError, match="odd"):
        aside(work, stage)
    assert told == [("embedding", 1, 2)]


def test_an_interrupt_stops_it():
    ended = []

    def work(stage):
        with stage("embedding") as tell:
            try:
                _thread.interrupt_main()
                for number in range(100_000):
                    tell(number, 100_000)
                    time.sleep(0.001)
            finally:
                ended.append(number)

    with pytest.raises(KeyboardInterrupt):
        aside(work, silent)
    assert ended[0] < 99_999
