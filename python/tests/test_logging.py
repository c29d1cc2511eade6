"""Log records and events: their content, when and where they are handled, and no work without a listener."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import feishu_feed_card
import needs
from event_loops import RUNNERS
from feishu_feed_card import AsyncClient, InvalidInputError, RejectedError
from feishu_feed_card.sandbox import Sandbox
from records import LOGGER, Kept
from scripts import prints, run

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from feishu_feed_card import Request


def play(sandbox: Sandbox) -> None:
    """Makes a call that is retried."""
    sandbox.faults([{"on": "call", "status": 502}])
    with sandbox.client() as client:
        assert client.set_time_sensitive(sandbox.CHAT, [sandbox.USER], True).ok


def play_async(sandbox: Sandbox) -> None:
    """Makes a call that is retried, on an event loop."""

    async def main() -> None:
        async with sandbox.async_client() as client:
            assert (await client.set_time_sensitive(sandbox.CHAT, [sandbox.USER], True)).ok

    sandbox.faults([{"on": "call", "status": 502}])
    asyncio.run(main())


def play_many(sandbox: Sandbox) -> None:
    """Makes a call that is retried, with `set_time_sensitive_many`."""
    sandbox.faults([{"on": "call", "status": 502}])
    with sandbox.client() as client:
        request = {"feed_card_id": sandbox.CHAT, "user_ids": [sandbox.USER], "time_sensitive": True}
        assert [item.error for item in client.set_time_sensitive_many([request])] == [None]  # type: ignore[list-item]


@pytest.mark.parametrize("player", [play, play_async, play_many])
def test_the_records_of_a_call_at_debug(
    kept: Kept, feishu_sandbox: Sandbox, player: Callable[[Sandbox], None]
):
    player(feishu_sandbox)
    kept.found("done")
    stations = [record.getMessage().split(" (")[0] for record in kept.records]
    assert stations == [
        "call begins",
        "token_fetch begins",
        "fetched a tenant_access_token",
        "attempt begins",
        "retrying",
        "attempt begins",
        "done",
    ]
    assert [record.created for record in kept.records] == sorted(record.created for record in kept.records)
    retrying = vars(kept.found("retrying")[0])
    assert retrying["levelno"] == logging.INFO
    assert retrying["name"] == "feishu_feed_card"
    assert retrying["status"] == 502
    assert retrying["attempt"] == 1
    assert retrying["wait_s"] > 0
    assert retrying["feed_card_id"] == feishu_sandbox.CHAT, "a record has the fields of its call"
    assert retrying["users"] == 1
    assert retrying["time_sensitive"] is True
    done = kept.found("done")[0]
    assert vars(done)["log_id"] in done.getMessage()
    now = logging.makeLogRecord({})
    # Python before 3.13 reads a clock of Windows with a resolution of 16 ms; the record's time is exact.
    assert -0.02 < now.created - done.created < 30
    assert now.relativeCreated - done.relativeCreated == pytest.approx(
        (now.created - done.created) * 1000, abs=0.01
    )
    assert not any(feishu_sandbox.USER in repr(vars(record)) for record in kept.records)


def test_the_records_of_a_failure_and_of_a_wait(kept: Kept, feishu_sandbox: Sandbox):
    with feishu_sandbox.client(rate_limit=(1, 1000)) as client:
        client.set_time_sensitive(feishu_sandbox.CHAT, [feishu_sandbox.USER], True)
        with pytest.raises(RejectedError) as caught:
            client.set_time_sensitive("oc_nowhere", [feishu_sandbox.USER], True)
    failed = kept.found("failed")[0]
    assert failed.levelno == logging.WARNING
    assert vars(failed)["code"] == caught.value.platform_code == 232006
    assert vars(failed)["log_id"] == caught.value.log_id
    assert vars(failed)["kind"] == "REJECTED"
    assert vars(kept.found("waiting for a slot")[0])["feed_card_id"] == "oc_nowhere"


def test_a_change_of_the_level_applies_to_the_next_call(kept: Kept, feishu_sandbox: Sandbox):
    with feishu_sandbox.client() as client:

        def call() -> None:
            with pytest.raises(RejectedError):
                client.set_time_sensitive("oc_nowhere", [feishu_sandbox.USER], True)

        LOGGER.setLevel(logging.WARNING)
        call()
        assert vars(kept.found("failed")[0])["feed_card_id"] == "oc_nowhere", "although spans are at DEBUG"
        LOGGER.setLevel(logging.CRITICAL)
        call()
        LOGGER.setLevel(logging.DEBUG)
        call()
        LOGGER.setLevel(logging.ERROR)
        kept.found("failed", 2)
        kept.found("call begins", 1)
        LOGGER.removeHandler(kept)
        call()
        LOGGER.addHandler(kept)
        LOGGER.setLevel(logging.WARNING)
        call()
        kept.found("failed", 3)
        kept.found("call begins", 1)


def test_logging_disable_is_respected(kept: Kept, feishu_sandbox: Sandbox):
    logging.disable(logging.INFO)
    try:
        with feishu_sandbox.client() as client, pytest.raises(RejectedError):
            client.set_time_sensitive("oc_nowhere", [feishu_sandbox.USER], True)
        kept.found("failed")
    finally:
        logging.disable(logging.NOTSET)
    assert {record.levelno for record in kept.records} == {logging.WARNING}


def test_a_disabled_logger_gets_no_records(
    kept: Kept, feishu_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
):
    with feishu_sandbox.client() as client:
        for is_disabled in (True, False):
            monkeypatch.setattr(LOGGER, "disabled", is_disabled)
            with pytest.raises(RejectedError):
                client.set_time_sensitive("oc_nowhere", [feishu_sandbox.USER], True)
    kept.found("failed")


@pytest.mark.parametrize(
    ("config", "records"),
    [("", 0), ("disable_existing_loggers=False", 1), ("loggers={'feishu_feed_card': {}}", 1)],
    ids=["", "not disabled", "named"],
)
def test_dict_config_disables_loggers_that_it_does_not_name(config: str, records: int):
    prints(
        f"""
import logging, logging.config
from feishu_feed_card import RejectedError
from feishu_feed_card.sandbox import Sandbox

class Kept(logging.Handler):
    def emit(self, record):
        kept.append(record.threadName)

kept = []
with Sandbox() as sandbox, sandbox.client() as client:
    root = dict(level="WARNING", handlers=["kept"])
    logging.config.dictConfig(dict(version=1, handlers=dict(kept={{"()": Kept}}), root=root, {config}))
    sandbox.faults([{{"on": "call", "code": 230001}}])
    try:
        client.set_time_sensitive(sandbox.CHAT, [sandbox.USER], True)
    except RejectedError:
        pass
print(sorted(set(kept)))
""",
        str(["MainThread"] * records),
    )


def test_each_record_has_the_fields_of_its_own_call(kept: Kept, feishu_sandbox: Sandbox):
    feishu_sandbox.set_switches(per_second=None, per_minute=None)
    client = feishu_sandbox.client(rate_limit=None)
    async_client = feishu_sandbox.async_client(rate_limit=None)
    chats = [f"oc_{number}" for number in range(40)]
    for chat in chats:
        feishu_sandbox.put_chat({"feed_card_id": chat, "members": [feishu_sandbox.USER]})

    def block(chats: list[str]) -> None:
        for chat in chats:
            client.set_time_sensitive(chat, [feishu_sandbox.USER], True)

    async def main(client: AsyncClient, chats: list[str]) -> None:
        calls = [client.set_time_sensitive(chat, [feishu_sandbox.USER], True) for chat in chats]
        await asyncio.gather(*calls)

    workers = [threading.Thread(target=block, args=(chats[start : start + 10],)) for start in (0, 10)]
    for worker in workers:
        worker.start()
    asyncio.run(main(async_client, chats[20:]))
    for worker in workers:
        worker.join()
    done = kept.found("done", 40)
    assert sorted(vars(record)["feed_card_id"] for record in done) == sorted(chats)


def test_an_exception_of_a_handler_does_not_stop_logging(
    kept: Kept, feishu_sandbox: Sandbox, capfd: pytest.CaptureFixture[str]
):
    class Broken(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raise LookupError("the disk is full")

    broken = Broken()
    LOGGER.addHandler(broken)
    with feishu_sandbox.client() as client:
        client.set_time_sensitive(feishu_sandbox.CHAT, [feishu_sandbox.USER], True)
        kept.found("done")
        LOGGER.removeHandler(broken)
        client.set_time_sensitive(feishu_sandbox.CHAT, [feishu_sandbox.USER], True)
        kept.found("done", 2)
    assert "the disk is full" in capfd.readouterr().err


def test_an_invalid_level_of_the_logger_does_not_fail_calls(
    kept: Kept, feishu_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
):
    seen = []
    monkeypatch.setattr("sys.unraisablehook", lambda unraisable: seen.append(unraisable.exc_type))
    monkeypatch.setattr(LOGGER, "level", "DEBUG")
    with feishu_sandbox.client() as client:
        assert client.set_time_sensitive(feishu_sandbox.CHAT, [feishu_sandbox.USER], True).ok
    assert set(seen) == {TypeError}


SCRIPT = """
import sys
from feishu_feed_card.sandbox import Sandbox
sandbox = Sandbox({"switches": {"per_second": None, "per_minute": None}})

def names():
    import threading
    return [thread.name for thread in threading.enumerate() if "logging" in thread.name]

def call(client):
    return client.set_time_sensitive(sandbox.CHAT, [sandbox.USER], True).ok

def fail(client):
    try:
        client.set_time_sensitive("oc_nowhere", [sandbox.USER], True)
    except Exception as error:
        return error.kind
"""


def test_without_a_listener_no_record_is_made():
    prints(
        SCRIPT
        + """
client = sandbox.client()
print(fail(client), "logging" in sys.modules)
import logging
print(fail(client), names())
logging.getLogger("feishu_feed_card").setLevel(logging.DEBUG)
made = []
logging.Logger.makeRecord = lambda *arguments: made.append(arguments)
print(fail(client), names(), made)
""",
        "REJECTED False\nREJECTED []\nREJECTED [] []",
    )


def test_logging_may_be_configured_after_the_client_was_made():
    ended = run(
        SCRIPT
        + """
client = sandbox.client()
call(client)
import logging
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(levelname)s %(message).6s")
print(fail(client))
"""
    )
    assert (ended.code, ended.err) == (0, ""), ended
    assert ended.out.splitlines() == ["WARNING failed", "REJECTED"], ended


@needs.fork
def test_a_forked_child_logs_its_own_calls():
    ended = run(
        SCRIPT
        + """
import logging, os, signal
logging.basicConfig(stream=sys.stdout, format="%(process)d %(levelname)s %(message).6s")
client = sandbox.client()
fail(client)
sys.stdout.flush()
child = os.fork()
if child == 0:
    signal.alarm(20)
    fail(client)
    sys.exit()
print(child, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), os.getpid())
fail(client)
"""
    )
    assert (ended.code, ended.err) == (0, ""), ended
    lines = ended.out.split("\n")
    child, code, own = next(line for line in lines if "W" not in line).split()
    assert code == "0"
    assert lines.count(f"{own} WARNING failed") == 2, ended
    assert lines.count(f"{child} WARNING failed") == 1, ended


def test_a_failing_handler_is_called_again_without_stderr():
    ended = run(
        SCRIPT
        + """
import logging, time

seen = []

class Failing(logging.Handler):
    def emit(self, record):
        seen.append(record)
        raise ValueError("a bug of the handler's")

logging.basicConfig(level=logging.DEBUG, handlers=[Failing()])
client = sandbox.client()
sys.stderr.close()
for _ in range(2):
    before = len(seen)
    call(client)
    assert len(seen) > before
print("told")
"""
    )
    assert (ended.code, ended.out.strip()) == (0, "told"), ended


def test_caplog_gets_the_records(caplog: pytest.LogCaptureFixture, feishu_sandbox: Sandbox):
    with (
        caplog.at_level(logging.WARNING, "feishu_feed_card"),
        feishu_sandbox.client() as client,
        pytest.raises(RejectedError) as caught,
    ):
        client.set_time_sensitive("oc_nowhere", [feishu_sandbox.USER], True)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert vars(record)["call"] == caught.value.call
    assert "feed_card_id=oc_nowhere" in record.getMessage()


def test_no_record_of_many_calls_is_lost(kept: Kept, feishu_sandbox: Sandbox):
    feishu_sandbox.set_switches(per_second=None, per_minute=None)
    request: Request = {
        "feed_card_id": feishu_sandbox.CHAT,
        "user_ids": [feishu_sandbox.USER],
        "time_sensitive": True,
    }
    with feishu_sandbox.client(rate_limit=None) as client:
        assert all(item.error is None for item in client.set_time_sensitive_many([request] * 5000))
    kept.found("done", 5000)


@pytest.mark.parametrize("player", [play, play_async, play_many])
def test_records_name_the_callers_line(
    kept: Kept, feishu_sandbox: Sandbox, player: Callable[[Sandbox], None]
):
    player(feishu_sandbox)
    lines, first = inspect.getsourcelines(player)
    for record in kept.records:
        assert record.pathname == __file__
        assert first <= record.lineno < first + len(lines)
        assert record.threadName == threading.current_thread().name


REQUEST_ID: contextvars.ContextVar[str] = contextvars.ContextVar("REQUEST_ID", default="none")


class WithRequestId(logging.Filter):
    """Adds a context variable to each record, as web frameworks do."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = REQUEST_ID.get()
        return True


@pytest.mark.parametrize("runner", RUNNERS)
def test_handlers_run_in_the_context_of_their_call(
    kept: Kept, feishu_sandbox: Sandbox, runner: Callable[[Coroutine[Any, Any, Any]], Any]
):
    kept.addFilter(WithRequestId())
    feishu_sandbox.set_switches(per_second=None, per_minute=None)
    ids = {f"oc_{number}": f"request {number}" for number in range(20)}
    for chat in ids:
        feishu_sandbox.put_chat({"feed_card_id": chat, "members": [feishu_sandbox.USER]})

    async def main() -> None:
        async with feishu_sandbox.async_client() as client:

            async def serve(chat: str) -> None:
                REQUEST_ID.set(ids[chat])
                await client.set_time_sensitive(chat, [feishu_sandbox.USER], True)

            await asyncio.gather(*[serve(chat) for chat in ids])

    runner(main())
    for record in kept.records:
        fields = vars(record)
        assert fields["request_id"] == ids[fields["feed_card_id"]]
    assert len(kept.found("done", len(ids))) == len(ids)

    REQUEST_ID.set("blocking")
    with feishu_sandbox.client() as client:
        client.set_bot_time_sensitive([feishu_sandbox.USER], True)
    assert vars(kept.records[-1])["request_id"] == "blocking"
    REQUEST_ID.set("none")


def test_records_of_a_long_call_are_handled_during_the_call(kept: Kept, feishu_sandbox: Sandbox):
    feishu_sandbox.faults([{"on": "call", "delay_before_ms": 500}])
    seen = []

    def look() -> None:
        time.sleep(0.25)
        seen.extend(record.getMessage().split(" (")[0] for record in kept.records)

    watcher = threading.Thread(target=look)
    watcher.start()
    with feishu_sandbox.client() as client:
        client.set_bot_time_sensitive([feishu_sandbox.USER], True)
    watcher.join()
    assert "attempt begins" in seen
    assert "done" not in seen


def test_a_handler_may_make_calls(kept: Kept, feishu_sandbox: Sandbox):
    class Pinning(logging.Handler):
        """Pins the incident group for each warning."""

        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno == logging.WARNING:
                assert client.set_time_sensitive(feishu_sandbox.CHAT, [feishu_sandbox.USER], True).ok

    pinning = Pinning()
    LOGGER.addHandler(pinning)
    try:
        with feishu_sandbox.client() as client, pytest.raises(RejectedError):
            client.set_time_sensitive("oc_nowhere", [feishu_sandbox.USER], True)
    finally:
        LOGGER.removeHandler(pinning)
    assert feishu_sandbox.pinned(feishu_sandbox.USER) == [feishu_sandbox.CHAT]
    kept.found("done")


def test_flush_handles_records_of_background_work(kept: Kept, feishu_sandbox: Sandbox):
    # The second call renews the token in the background, and returns before that ends.
    feishu_sandbox.faults([{"on": "token", "expire": 2}, {"on": "token", "delay_before_ms": 200}])
    with feishu_sandbox.client() as client:
        client.set_bot_time_sensitive([feishu_sandbox.USER], True)
        time.sleep(1.2)
        client.set_bot_time_sensitive([feishu_sandbox.USER], True)
        kept.found("fetched a tenant_access_token", 1)
        time.sleep(0.4)
        kept.found("fetched a tenant_access_token", 1)
        feishu_feed_card.flush()
        kept.found("fetched a tenant_access_token", 2)


def test_an_interrupt_in_a_handler_ends_the_call(feishu_sandbox: Sandbox):
    class Interrupting(logging.Handler):
        """Raises as Ctrl-C would, while the handler runs."""

        def emit(self, record: logging.LogRecord) -> None:
            raise KeyboardInterrupt

    async def main() -> None:
        async with feishu_sandbox.async_client() as client:
            await client.set_time_sensitive("oc_nowhere", [feishu_sandbox.USER], True)

    interrupting = Interrupting()
    LOGGER.addHandler(interrupting)
    try:
        with feishu_sandbox.client() as client, pytest.raises(KeyboardInterrupt):
            client.set_time_sensitive("oc_nowhere", [feishu_sandbox.USER], True)
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(main())
    finally:
        LOGGER.removeHandler(interrupting)


def test_on_event_gets_the_events_of_its_call(feishu_sandbox: Sandbox):
    events: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []

    async def main() -> int | None:
        async with feishu_sandbox.async_client() as client:
            REQUEST_ID.set("awaited")
            first = client.set_bot_time_sensitive([feishu_sandbox.USER], True, on_event=events.append)
            second = client.set_bot_time_sensitive([feishu_sandbox.USER], True, on_event=others.append)
            return (await asyncio.gather(first, second))[0].call

    call = asyncio.run(main())
    assert {event["call"] for event in events} == {call}
    assert call not in {event["call"] for event in others}

    feishu_sandbox.faults([{"on": "call", "status": 502}])
    with feishu_sandbox.client() as client:
        for listener in (events, others):
            listener.clear()
            outcome = client.set_time_sensitive(
                feishu_sandbox.CHAT, [feishu_sandbox.USER], True, on_event=listener.append
            )
            assert {event["call"] for event in listener} == {outcome.call}
            assert [event["name"] for event in listener][-3:] == ["attempt", "done", "call"]
    assert [event["status"] for event in events if event["name"] == "retrying"] == [502]
    assert all(event["duration_s"] > 0 for event in events if event["name"] == "attempt")
    assert "retrying" not in [event["name"] for event in others]


def test_on_event_of_many_gets_the_events_of_all_calls(feishu_sandbox: Sandbox):
    requests: list[Request] = [
        {"feed_card_id": feishu_sandbox.CHAT, "user_ids": [feishu_sandbox.USER], "time_sensitive": True}
    ] * 3
    events: list[dict[str, Any]] = []

    async def main() -> None:
        async with feishu_sandbox.async_client() as client:
            many = client.set_time_sensitive_many(requests, on_event=events.append)
            calls = {item.outcome.call async for item in many if item.outcome}
            assert {event["call"] for event in events if event["name"] == "done"} == calls

    asyncio.run(main())
    assert len([event for event in events if event["name"] == "done"]) == 3
    events.clear()
    with feishu_sandbox.client() as client:
        calls = [
            item.outcome.call
            for item in client.set_time_sensitive_many(requests, on_event=events.append)
            if item.outcome
        ]
        client.set_bot_time_sensitive([feishu_sandbox.USER], True)
    assert sorted(event["call"] for event in events if event["name"] == "done") == sorted(calls)


def test_an_exception_of_on_event_is_printed_and_the_call_goes_on(
    feishu_sandbox: Sandbox, capfd: pytest.CaptureFixture[str]
):
    def broken(event: dict[str, Any]) -> None:
        raise LookupError(event["name"])

    with feishu_sandbox.client() as client:
        assert client.set_bot_time_sensitive([feishu_sandbox.USER], True, on_event=broken).ok
    assert "LookupError: done" in capfd.readouterr().err


@pytest.mark.parametrize("wrong", [1, "print", asyncio.sleep], ids=["number", "text", "async"])
def test_an_on_event_that_is_not_a_function_is_refused(feishu_sandbox: Sandbox, wrong: Any):
    with feishu_sandbox.client() as client, pytest.raises(InvalidInputError, match="on_event") as caught:
        client.set_bot_time_sensitive([feishu_sandbox.USER], True, on_event=wrong)
    assert caught.value.not_attempted == (feishu_sandbox.USER,)
    assert feishu_sandbox.request_count() == 0
