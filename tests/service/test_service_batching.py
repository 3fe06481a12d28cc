"""What arrives together is worked on together, and nobody gets another's answer or error."""

import asyncio
import threading

import pytest

from rankproof.service.batching import Batcher


def run(work, asked, window=0.02, most=4):
    """Ask everything at once; the answers, errors included, and the sizes of the batches."""
    sizes = []

    async def all_at_once():
        batch = Batcher(work, window, most, sizes.append)
        answers = await asyncio.gather(*map(batch, asked), return_exceptions=True)
        assert len(batch) == 0
        batch.close()
        return answers

    return asyncio.run(all_at_once()), sizes


def double(numbers):
    return [2 * number for number in numbers]


def test_those_who_come_together_are_answered_together():
    answers, sizes = run(double, range(10))
    assert answers == [2 * number for number in range(10)]
    assert sizes == [4, 4, 2]


def test_one_alone_is_answered_too():
    assert run(double, [7]) == ([14], [1])


def test_while_one_batch_is_worked_on_the_next_gathers():
    sizes, free = [], threading.Event()

    def wait(numbers):
        free.wait(10)
        return double(numbers)

    async def main():
        batch = Batcher(wait, 0.0, 16, sizes.append)
        first = asyncio.create_task(batch(0))
        while not sizes:
            await asyncio.sleep(0)
        rest = [asyncio.create_task(batch(number)) for number in range(1, 6)]
        await asyncio.sleep(0)
        free.set()
        answers = await asyncio.gather(first, *rest)
        batch.close()
        return answers

    assert asyncio.run(main()) == [0, 2, 4, 6, 8, 10]
    assert sizes == [1, 5]


def test_an_error_belongs_to_its_batch():
    def fail(numbers):
        if 0 in numbers:
            raise ValueError("odd")
        return double(numbers)

    answers, _ = run(fail, range(6))
    assert [type(answer) for answer in answers[:4]] == [ValueError] * 4
    assert answers[4:] == [8, 10]


def test_who_has_gone_is_left_out():
    async def main():
        batch = Batcher(double, 0.0, 16)
        tasks = [asyncio.create_task(batch(number)) for number in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert await batch(5) == 10
        batch.close()
        return answers

    first, gone, last = asyncio.run(main())
    assert (first, last) == (0, 4)
    assert isinstance(gone, asyncio.CancelledError)


@pytest.mark.parametrize("loops", [3])
def test_it_outlives_an_event_loop(loops):
    batch = Batcher(double, 0.0, 16)
    assert [asyncio.run(batch(number)) for number in range(loops)] == [0, 2, 4]
    batch.close()
