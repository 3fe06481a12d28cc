"""Jobs one after the other, or side by side in processes of their own."""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

from rankproof.errors import RankproofError

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # names of glibc's settings
LARGEST = 2**31 - 1

What = TypeVar("What")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Job(Generic[What]):
    """Something to do, perhaps after others.

    Args:
        name: tells it from the others.
        what: what a worker is given.
        needs: names of the jobs that must be done before; they stand before it.
    """

    name: str
    what: What
    needs: frozenset[str] = frozenset()


def in_turn(
    jobs: Sequence[Job[What]], work: Callable[[What], Result]
) -> Generator[tuple[Job[What], Result], None, None]:
    """Do one job after the other in this process; yields each with its result."""
    for job in jobs:
        yield job, work(job.what)


def side_by_side(
    jobs: Sequence[Job[What]], build: Callable[[], Callable[[What], Result]], workers: int
) -> Generator[tuple[Job[What], Result], None, None]:
    """Do several jobs at a time; each is given back as soon as it is done.

    The processes share this one's threads. They end with the iteration, whatever ends it, and where this
    process is killed they end too.

    Args:
        jobs: those that others need are begun first.
        build: called once in each process, gives what does a job there.
        workers: how many processes.
    Raises:
        RankproofError: one of the processes was killed.
    """
    context = get_context("spawn")
    # Nothing is ever said on this line: the workers hear it cut off.
    theirs, ours = context.Pipe(duplex=False)
    import torch  # here, so that the command line starts without it

    threads = max(1, torch.get_num_threads() // workers)
    pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(build, threads, theirs))
    waiting, done = list(jobs), set[str]()
    running: dict[Future[Result], Job[What]] = {}
    try:
        while waiting or running:
            with _interrupts_held():
                for job in _ready(waiting, done):
                    waiting.remove(job)
                    running[pool.submit(_do, job.what)] = job
                # The pool watches a process only from the submission after the one that started it.
                pool.submit(_nothing)
            assert running, "a job needs one that is not there"
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job = running.pop(future)
                done.add(job.name)
                yield job, future.result()
    except BrokenProcessPool:
        raise RankproofError(
            "a worker was killed, perhaps for want of memory; what was finished is kept, "
            "the same command goes on, with fewer --workers if need be"
        ) from None
    finally:
        ours.close()
        pool.shutdown(cancel_futures=True)
        theirs.close()


def _ready(waiting: Sequence[Job[What]], done: set[str]) -> list[Job[What]]:
    """The jobs that can begin, those that others wait for first."""
    needed = frozenset[str]().union(*(job.needs for job in waiting))
    ready = [job for job in waiting if job.needs <= done]
    return sorted(ready, key=lambda job: job.name not in needed)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C has to wait; a process that starts meanwhile never hears it and is ended by this one."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# -- in a worker

_work: Callable[[Any], Any]


def _begin(build: Callable[[], Callable[[Any], Any]], threads: int, line: Connection) -> None:
    global _work
    threading.Thread(target=_end_with, args=(line,), daemon=True).start()
    import torch

    torch.set_num_threads(threads)
    keep_freed_memory()
    _work = build()


def _end_with(line: Connection) -> None:
    """End this process in the middle of whatever it does as soon as the line is cut."""
    line.poll(None)
    os._exit(1)


def _do(what: Any) -> Any:
    return _work(what)


def _nothing() -> None:
    pass


# -- memory


def keep_freed_memory() -> bool:
    """Tell the C library to keep what it has; returns whether it could be told.

    Passes of an encoder allocate the same large blocks again and again. Handed back and fetched anew each
    time, they cost a tenth of the time, in which the system clears their pages.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(MMAP_THRESHOLD, LARGEST)) and bool(mallopt(TRIM_THRESHOLD, LARGEST))
