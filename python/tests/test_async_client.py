"""`AsyncClient`, and its use of event loops."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import pytest

import needs
from counters import descriptors
from event_loops import INSTALLED_RUNNERS, NEW_LOOPS, RUNNERS, LoopWithoutReaders
from feishu_feed_card import AsyncClient, ClientClosedError, FeedCardError, InvalidInputError, RejectedError
from feishu_feed_card.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

Run = "Callable[[Coroutine[Any, Any, Any]], Any]"


@pytest.fixture(params=RUNNERS)
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """A function that runs a coroutine, one for each kind of event loop."""
    return request.param


def test_pins_and_unpins(run: Run, feishu_sandbox: Sandbox):
    async def main():
        async with feishu_sandbox.async_client() as client:
            outcome = await client.set_time_sensitive(feishu_sandbox.CHAT, [feishu_sandbox.USER], True)
            assert outcome.ok
            assert feishu_sandbox.pinned(feishu_sandbox.USER) == [feishu_sandbox.CHAT]
            with pytest.raises(RejectedError) as caught:
                await client.set_time_sensitive("oc_nowhere", [feishu_sandbox.USER], True)
            assert caught.value.platform_code == 232006
            assert (await client.set_bot_time_sensitive([feishu_sandbox.USER], True)).ok
        with pytest.raises(ClientClosedError, match="closed") as closed:
            await client.set_bot_time_sensitive([feishu_sandbox.USER], True)
        assert closed.value.not_attempted == (feishu_sandbox.USER,)

    run(main())


async def _sent(sandbox: Sandbox) -> None:
    while sandbox.request_count() < 2:
        await asyncio.sleep(0.005)


def test_closing_stops_a_call_after_its_timeout(run: Run, feishu_sandbox: Sandbox):
    feishu_sandbox.faults([{"on": "call", "delay_before_ms": 20_000}])

    async def main():
        client = feishu_sandbox.async_client()
        call = asyncio.ensure_future(
            client.set_time_sensitive(feishu_sandbox.CHAT, [feishu_sandbox.USER], True)
        )
        await asyncio.wait_for(_sent(feishu_sandbox), 10)
        await client.aclose()
        longer = asyncio.ensure_future(client.aclose(timeout=15))
        started = time.monotonic()
        await client.aclose(timeout=0.2)
        await longer
        # The clock of Windows has a resolution of 16 ms.
        assert 0.15 < time.monotonic() - started < 5
        with pytest.raises(ClientClosedError) as caught:
            await call
        assert (caught.value.station, caught.value.unknown) == ("answer", (feishu_sandbox.USER,))
        await client.aclose(timeout=0)

    run(main())


def test_closing_waits_for_calls_of_other_loops(feishu_sandbox: Sandbox):
    feishu_sandbox.faults([{"on": "call", "delay_before_ms": 300}])
    client = feishu_sandbox.async_client()
    ends: list[Any] = []

    def elsewhere():
        call = client.set_time_sensitive(feishu_sandbox.CHAT, [feishu_sandbox.USER], True)
        ends.append(asyncio.run(call))

    async def main():
        await asyncio.wait_for(_sent(feishu_sandbox), 10)
        await client.aclose(timeout=20)

    thread = threading.Thread(target=elsewhere, daemon=True)
    thread.start()
    asyncio.run(main())
    assert feishu_sandbox.pinned(feishu_sandbox.USER) == [feishu_sandbox.CHAT]
    thread.join(10)
    assert [end.ok for end in ends] == [True]


def test_cancelling_aclose_does_not_stop_calls(feishu_sandbox: Sandbox):
    feishu_sandbox.faults([{"on": "call", "delay_before_ms": 300}])

    async def main():
        client = feishu_sandbox.async_client()
        call = asyncio.ensure_future(
            client.set_time_sensitive(feishu_sandbox.CHAT, [feishu_sandbox.USER], True)
        )
        await asyncio.wait_for(_sent(feishu_sandbox), 10)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.aclose(timeout=0.2), 0.05)
        assert (await call).ok

    asyncio.run(main())


def test_a_wrong_timeout_leaves_the_client_open(feishu_sandbox: Sandbox):
    async def main():
        async with feishu_sandbox.async_client() as client:
            with pytest.raises(InvalidInputError) as caught:
                await client.aclose(-1)
            assert caught.value.field == "timeout"
            assert (await client.set_bot_time_sensitive([feishu_sandbox.USER], True)).ok

    asyncio.run(main())


def test_calls_are_coroutines():
    client = AsyncClient("cli_", "secret")
    assert inspect.iscoroutinefunction(client.set_time_sensitive)
    assert inspect.iscoroutinefunction(client.set_bot_time_sensitive)
    coroutine = client.set_time_sensitive("oc_1", ["ou_1"], True)
    assert inspect.iscoroutine(coroutine)
    coroutine.close()


def test_a_call_without_an_event_loop_raises(feishu_sandbox: Sandbox):
    coroutine = feishu_sandbox.async_client().set_bot_time_sensitive([feishu_sandbox.USER], True)
    with pytest.raises(RuntimeError, match="no running event loop"):
        coroutine.send(None)
    coroutine = feishu_sandbox.async_client().set_bot_time_sensitive([feishu_sandbox.USER], True)
    with pytest.raises(RuntimeError, match="With trio"):
        coroutine.send(None)


def test_many_tasks_share_a_client(run: Run, feishu_sandbox: Sandbox):
    feishu_sandbox.set_switches(per_second=None, per_minute=None)
    for number in range(20):
        feishu_sandbox.put_chat({"feed_card_id": f"oc_{number}", "members": [feishu_sandbox.USER]})

    async def main():
        async with feishu_sandbox.async_client(rate_limit=None) as client:
            outcomes = await asyncio.gather(
                *(
                    client.set_time_sensitive(f"oc_{number % 20}", [feishu_sandbox.USER], True)
                    for number in range(400)
                )
            )
        assert all(outcome.reached == (feishu_sandbox.USER,) for outcome in outcomes)
        assert len({outcome.log_id for outcome in outcomes}) == 400, "each call has its own response"

    run(main())
    assert feishu_sandbox.request_count() == 401
    assert feishu_sandbox.token_fetches() == 1


def test_contextvars_are_kept(run: Run, feishu_sandbox: Sandbox):
    request_id: contextvars.ContextVar[int] = contextvars.ContextVar("request_id")

    async def call(client: AsyncClient, number: int):
        request_id.set(number)
        for _ in range(3):
            await client.set_bot_time_sensitive([feishu_sandbox.USER], True)
            assert request_id.get() == number

    async def main():
        async with feishu_sandbox.async_client() as client:
            await asyncio.gather(*(call(client, number) for number in range(10)))

    run(main())


def test_cancelling_a_task_stops_its_request(run: Run, feishu_sandbox: Sandbox):
    feishu_sandbox.faults([{"on": "call", "delay_before_ms": 400}])

    async def main():
        async with feishu_sandbox.async_client() as client:
            task = asyncio.create_task(
                client.set_time_sensitive(feishu_sandbox.CHAT, [feishu_sandbox.USER], True)
            )
            while feishu_sandbox.request_count() < 2:
                await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.sleep(0.8)

    run(asyncio.wait_for(main(), 10))
    assert feishu_sandbox.pinned(feishu_sandbox.USER) == []


def test_a_timeout_of_wait_for_stops_the_request(feishu_sandbox: Sandbox):
    feishu_sandbox.faults([{"on": "call", "delay_before_ms": 400}])

    async def main():
        async with feishu_sandbox.async_client() as client:
            await client.set_bot_time_sensitive([feishu_sandbox.USER], True, timeout=5)
            feishu_sandbox.faults([{"on": "call", "delay_before_ms": 400}])
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(
                    client.set_time_sensitive(feishu_sandbox.CHAT, [feishu_sandbox.USER], True), 0.1
                )
            await asyncio.sleep(0.8)

    asyncio.run(main())
    assert feishu_sandbox.pinned(feishu_sandbox.USER) == []


def test_cancelling_at_any_moment_leaves_nothing_behind(run: Run, feishu_sandbox: Sandbox):
    feishu_sandbox.set_switches(per_second=None, per_minute=None)

    async def main():
        async with feishu_sandbox.async_client(rate_limit=None, late_arrival=0) as client:
            for wait in range(200):
                task = asyncio.create_task(client.set_bot_time_sensitive([feishu_sandbox.USER], True))
                await asyncio.sleep(wait / 100_000)
                task.cancel()
                await asyncio.wait([task])
                assert task.cancelled() or task.result().ok
            assert (await client.set_bot_time_sensitive([feishu_sandbox.USER], True)).ok
            calls = asyncio.get_running_loop()._feishu_feed_card_calls
            assert len(gc.get_referents(calls)) == 1, "no future is kept, only the type"

    run(main())


def test_loops_in_several_threads_share_a_client(feishu_sandbox: Sandbox):
    feishu_sandbox.set_switches(per_second=None, per_minute=None)
    client = feishu_sandbox.async_client(rate_limit=None)
    failures: list[BaseException] = []

    async def main():
        thread = threading.get_ident()
        for _ in range(20):
            outcomes = await asyncio.gather(
                *(client.set_bot_time_sensitive([feishu_sandbox.USER], True) for _ in range(5))
            )
            assert all(outcome.ok for outcome in outcomes)
            assert threading.get_ident() == thread

    def work(runner: Callable[[Coroutine[Any, Any, Any]], Any]):
        try:
            runner(main())
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(runner,)) for runner in INSTALLED_RUNNERS * 2]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert failures == []
    assert feishu_sandbox.request_count() == 1 + len(workers) * 100


def test_a_client_can_be_used_on_one_loop_after_another(run: Run, feishu_sandbox: Sandbox):
    client = feishu_sandbox.async_client()
    for _ in range(3):
        assert run(client.set_bot_time_sensitive([feishu_sandbox.USER], True)).ok
    assert feishu_sandbox.token_fetches() == 1


def close_loops_with_calls_in_flight(
    new_loop: Callable[[], Any], client: AsyncClient, sandbox: Sandbox
) -> list[weakref.ref[Any]]:
    """Makes a call on each of five loops, and closes the loop before the response."""
    gone = []
    for number in range(5):
        sandbox.faults([{"on": "call", "delay_before_ms": 300}])
        loop = new_loop()
        task = loop.create_task(client.set_bot_time_sensitive([sandbox.USER], True))
        for _ in range(200):
            loop.run_until_complete(asyncio.sleep(0.005))
            if sandbox.request_count() >= number + 2:
                break
        task._log_destroy_pending = False
        loop.close()
        gone.append(weakref.ref(loop))
        del loop, task
    time.sleep(0.5)
    gc.collect()
    return gone


LOOPS_OF_ALL_KINDS = pytest.mark.parametrize(
    "new_loop", [*NEW_LOOPS, pytest.param(LoopWithoutReaders, id="without_readers")]
)


@LOOPS_OF_ALL_KINDS
def test_a_loop_closed_with_a_call_in_flight_is_collected(
    new_loop: Callable[[], Any], feishu_sandbox: Sandbox
):
    gone = close_loops_with_calls_in_flight(new_loop, feishu_sandbox.async_client(), feishu_sandbox)
    assert [ref() for ref in gone] == [None] * 5


@needs.proc
@LOOPS_OF_ALL_KINDS
def test_a_loop_closed_with_a_call_in_flight_leaves_no_descriptor(
    new_loop: Callable[[], Any], feishu_sandbox: Sandbox
):
    before = descriptors()
    client = feishu_sandbox.async_client()
    close_loops_with_calls_in_flight(new_loop, client, feishu_sandbox)
    # The client's idle connections and the runtime's descriptors stay open.
    assert descriptors() - before < 12


@pytest.mark.parametrize("new_loop", NEW_LOOPS)
def test_closing_a_loop_stops_the_retries_of_its_calls(new_loop: Callable[[], Any], feishu_sandbox: Sandbox):
    client = feishu_sandbox.async_client(rate_limit=None)
    loop = new_loop()
    loop.run_until_complete(client.set_bot_time_sensitive([feishu_sandbox.USER], True))
    feishu_sandbox.faults([{"on": "call", "status": 502, "times": 0, "delay_before_ms": 150}])
    ids = (Sandbox.CHAT, [Sandbox.USER], True)
    tasks = [loop.create_task(client.set_time_sensitive(*ids, timeout=timeout)) for timeout in (20, 0.05)]
    loop.run_until_complete(asyncio.sleep(0))
    time.sleep(0.1)  # the second call has ended
    loop.close()
    feishu_sandbox.clear_record()
    time.sleep(1.5)
    assert feishu_sandbox.request_count() == 0, "no retry of the first call"
    for task in tasks:
        task._log_destroy_pending = False


def test_a_call_interrupted_at_its_start_leaves_no_future(
    feishu_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
):
    class Future(asyncio.Future):  # type: ignore[type-arg]
        """A future with weak references."""

    futures: list[weakref.ref[Any]] = []

    def interrupt() -> None:
        raise KeyboardInterrupt

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def create_future() -> Any:
            future = Future(loop=loop)
            futures.append(weakref.ref(future))
            return future

        monkeypatch.setattr(loop, "create_future", create_future)
        monkeypatch.setattr("feishu_feed_card._logging.caller", interrupt)
        client = feishu_sandbox.async_client()
        with pytest.raises(KeyboardInterrupt):
            await client.set_bot_time_sensitive([feishu_sandbox.USER], True, on_event=print)
        gc.collect()
        assert [future() for future in futures] == [None]

    asyncio.run(main())


def test_calls_of_a_stopped_loop_end_when_it_runs_again(feishu_sandbox: Sandbox):
    feishu_sandbox.faults([{"on": "call", "delay_before_ms": 100}])
    loop = asyncio.new_event_loop()
    try:
        client = feishu_sandbox.async_client()
        task = loop.create_task(client.set_bot_time_sensitive([feishu_sandbox.USER], True))
        loop.run_until_complete(asyncio.sleep(0))
        time.sleep(0.3)
        assert not task.done()
        assert loop.run_until_complete(task).ok
    finally:
        loop.close()


def test_a_call_works_in_debug_mode_of_asyncio(feishu_sandbox: Sandbox):
    async def main():
        async with feishu_sandbox.async_client() as client:
            assert (await client.set_bot_time_sensitive([feishu_sandbox.USER], True)).ok

    asyncio.run(main(), debug=True)


def test_the_traceback_of_an_error_has_the_callers_line(feishu_sandbox: Sandbox):
    async def main():
        await feishu_sandbox.async_client().set_time_sensitive("nowhere", [feishu_sandbox.USER], True)

    with pytest.raises(FeedCardError) as caught:
        asyncio.run(main())
    assert any('set_time_sensitive("nowhere"' in str(entry.statement) for entry in caught.traceback)


def test_blocking_and_async_calls_together(feishu_sandbox: Sandbox):
    feishu_sandbox.set_switches(per_second=None, per_minute=None)
    ends: list[bool] = []
    with feishu_sandbox.client(rate_limit=None) as client:

        def block():
            for _ in range(50):
                ends.append(client.set_bot_time_sensitive([feishu_sandbox.USER], True).ok)
                time.sleep(0.002)

        async def main():
            async with feishu_sandbox.async_client(rate_limit=None) as other:
                for _ in range(10):
                    calls = [other.set_bot_time_sensitive([feishu_sandbox.USER], True) for _ in range(5)]
                    ends.extend([outcome.ok for outcome in await asyncio.gather(*calls)])
                    await asyncio.sleep(0.03)

        thread = threading.Thread(target=block)
        thread.start()
        asyncio.run(main())
        thread.join(30)
    assert ends == [True] * 100


def test_a_blocking_call_inside_a_loop(feishu_sandbox: Sandbox):
    async def main():
        with feishu_sandbox.client() as client:
            assert client.set_bot_time_sensitive([feishu_sandbox.USER], True).ok

    asyncio.run(main())
