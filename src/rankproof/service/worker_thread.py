"""Run work in a thread that ends with it, so that its OpenMP helper threads end too.

OpenMP keeps helper threads for every thread that has computed, as long as that thread lives. Once there are
more of them than cores, all threads sleep between two parallel regions instead of spinning, and the forward
passes of an encoder take longer. So a service is opened in another thread than the one it is served from.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from threading import Event, Thread
from typing import TypeVar

from rankproof.system import Stage
from rankproof.types import ProgressCallback

Result = TypeVar("Result")


def run_in_worker_thread(work: Callable[[Stage], Result], stage: Stage) -> Result:
    """Call `work` in a new thread and return its result. Ctrl-C stops it when it next reports progress.

    Args:
        work: called with a stage that reports to `stage`.
        stage: opens a progress display for one stage of the work, given its name.
    """
    stopped = Event()

    @contextmanager
    def stoppable(what: str) -> Iterator[ProgressCallback]:
        with stage(what) as tell:

            def report(done: int, total: int) -> None:
                if stopped.is_set():
                    raise KeyboardInterrupt
                tell(done, total)

            yield report

    outcome: Future[Result] = Future()

    def run() -> None:
        try:
            outcome.set_result(work(stoppable))
        except BaseException as error:  # re-raised in the calling thread
            outcome.set_exception(error)

    thread = Thread(target=run, name="worker")
    try:
        thread.start()
        wait([outcome])  # not join: CPython takes a thread for ended once its join was interrupted
    except KeyboardInterrupt:
        stopped.set()
        wait([outcome])
        raise
    finally:
        thread.join()
    return outcome.result()
