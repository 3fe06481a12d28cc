"""Work in a thread that ends with it, so that its helpers end too.

OpenMP keeps helpers for each thread that has computed, as long as the thread lives. Once there are more of
them than cores, all threads sleep from one piece of work to the next where they would stay awake otherwise,
and the passes of an encoder take longer. So a service is opened in another thread than the one it runs in.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from threading import Event, Thread
from typing import TypeVar

from rankproof.target import Stage, Tell

Result = TypeVar("Result")


def aside(work: Callable[[Stage], Result], stage: Stage) -> Result:
    """What `work` returns, from a thread of its own; Ctrl-C stops it where it next tells its progress.

    Args:
        work: called with a stage that shows the same progress.
        stage: as for `open_subject`.
    """
    stopped = Event()

    @contextmanager
    def stoppable(what: str) -> Iterator[Tell]:
        with stage(what) as tell:

            def told(done: int, total: int) -> None:
                if stopped.is_set():
                    raise KeyboardInterrupt
                tell(done, total)

            yield told

    outcome: Future[Result] = Future()

    def run() -> None:
        try:
            outcome.set_result(work(stoppable))
        except BaseException as error:  # which belongs to whoever waits
            outcome.set_exception(error)

    thread = Thread(target=run, name="aside")
    try:
        thread.start()
        thread.join()
    except KeyboardInterrupt:
        stopped.set()
        thread.join()
        raise
    return outcome.result()
