"""The threads for work of the database: results, bounds, and what nobody waits for any more."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from chatstream.store.threads import Threads
from tests.support.client import PATIENCE


def _raise() -> None:
    raise LookupError("not there")


@pytest.mark.gen_test
async def test_each_caller_gets_its_result_or_its_error() -> None:
    threads = Threads(2)
    works: list[Callable[[], object]] = [lambda: 1, _raise, lambda: threading.current_thread().daemon]
    async with asyncio.timeout(PATIENCE):
        one, error, daemon = await asyncio.gather(*map(threads.run, works), return_exceptions=True)
    assert (one, str(error), daemon) == (1, "not there", True)
    threads.close()


@pytest.mark.gen_test
async def test_no_more_threads_than_allowed_and_no_more_than_needed() -> None:
    threads, go_on, begun = Threads(2), threading.Event(), threading.Semaphore(0)

    def work() -> str:
        begun.release()
        assert go_on.wait(PATIENCE)
        return threading.current_thread().name

    async with asyncio.timeout(PATIENCE):
        for _ in range(3):  # one after the other, they need one
            assert await threads.run(lambda: threading.current_thread().name) == "database-1"
        waiting = [threads.run(work) for _ in range(3)]
        await asyncio.to_thread(begun.acquire)
        await asyncio.to_thread(begun.acquire)
        assert not begun.acquire(blocking=False)  # the third waits for a thread
        go_on.set()
        assert {*await asyncio.gather(*waiting)} == {"database-1", "database-2"}
    threads.close()


@pytest.mark.gen_test
async def test_work_that_was_given_up_ends_and_its_thread_serves_on() -> None:
    threads, go_on, ended = Threads(1), threading.Event(), threading.Event()

    def work() -> None:
        assert go_on.wait(PATIENCE)
        ended.set()

    async with asyncio.timeout(PATIENCE):
        given_up, later = threads.run(work), threads.run(ended.is_set)
        given_up.cancel()
        go_on.set()
        assert await later
    threads.close()


def test_a_loop_that_is_closed_meanwhile_ends_no_thread() -> None:
    threads, go_on, begun = Threads(1), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert go_on.wait(PATIENCE)

    async def begin() -> None:
        threads.run(work)
        assert await asyncio.to_thread(begun.wait, PATIENCE)

    async def ask() -> str:
        async with asyncio.timeout(PATIENCE):
            return await threads.run(lambda: threading.current_thread().name)

    asyncio.run(begin())
    go_on.set()
    assert asyncio.run(ask()) == "database-1"
    threads.close()


@pytest.mark.gen_test
async def test_the_threads_end_behind_the_work_that_waits() -> None:
    threads = Threads(1)
    async with asyncio.timeout(PATIENCE):
        thread = await threads.run(threading.current_thread)
        last = threads.run(lambda: "done")
        threads.close()
        assert await last == "done"
        await asyncio.to_thread(thread.join)
