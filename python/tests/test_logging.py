"""What reaches `logging`, when, and what it costs where nobody listens."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import TYPE_CHECKING

import pytest

from feishu_feed_card import AsyncClient, RejectedError
from feishu_feed_card.sandbox import Sandbox
from scripts import prints, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOGGER = logging.getLogger("feishu_feed_card")


class Kept(logging.Handler):
    """Keeps the records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps it."""
        self.records.append(record)

    def wait_for(self, message: str, count: int = 1) -> list[logging.LogRecord]:
        """Those with this message, when they are there: 10 s at most."""
        end = time.monotonic() + 10
        while True:
            found = [record for record in self.records if record.getMessage().startswith(message)]
            if len(found) >= count or time.monotonic() > end:
                assert len(found) == count, [record.getMessage() for record in self.records]
                return found
            time.sleep(0.005)


@pytest.fixture
def kept() -> Iterator[Kept]:
    """What the package logs at DEBUG, and nobody else sees."""
    handler = Kept()
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.DEBUG)
    LOGGER.propagate = False
    yield handler
    LOGGER.removeHandler(handler)
    LOGGER.setLevel(logging.NOTSET)
    LOGGER.propagate = True


def play(sandbox: Sandbox) -> None:
    """A call that is replayed."""
    sandbox.faults([{"on": "call", "status": 502}])
    with sandbox.client() as client:
        assert client.set_time_sensitive(sandbox.CHAT, [sandbox.USER], True).ok


def play_async(sandbox: Sandbox) -> None:
    """The same on a loop."""

    async def main() -> None:
        async with sandbox.async_client() as client:
            assert (await client.set_time_sensitive(sandbox.CHAT, [sandbox.USER], True)).ok

    sandbox.faults([{"on": "call", "status": 502}])
    asyncio.run(main())


def play_many(sandbox: Sandbox) -> None:
    """The same as one of many."""
    sandbox.faults([{"on": "call", "status": 502}])
    with sandbox.client() as client:
        request = {"feed_card_id": sandbox.CHAT, "user_ids": [sandbox.USER], "time_sensitive": True}
        assert [item.error for item in client.set_time_sensitive_many([request])] == [None]  # type: ignore[list-item]


@pytest.mark.parametrize("player", [play, play_async, play_many])
def test_a_call_at_debug(kept: Kept, feishu_sandbox: Sandbox, player: Callable[[Sandbox], None]):
    player(feishu_sandbox)
    kept.wait_for("done")
    stations = [record.getMessage().split(" (")[0] for record in kept.records]
    assert stations == [
        "call begins",
        "token_fetch begins",
        "got a tenant_access_token",
        "attempt begins",
        "replaying",
        "attempt begins",
        "done",
    ]
    assert [record.created for record in kept.records] == sorted(record.created for record in kept.records)
    replaying = vars(kept.wait_for("replaying")[0])
    assert replaying["levelno"] == logging.INFO
    assert replaying["name"] == "feishu_feed_card"
    assert replaying["status"] == 502
    assert replaying["attempt"] == 1
    assert replaying["wait_s"] > 0
    assert replaying["feed_card_id"] == feishu_sandbox.CHAT, "what the record is about comes with it"
    assert replaying["users"] == 1
    assert replaying["time_sensitive"] is True
    done = kept.wait_for("done")[0]
    assert vars(done)["log_id"] in done.getMessage()
    now = logging.makeLogRecord({})
    assert 0 <= now.created - done.created < 30
    assert now.relativeCreated - done.relativeCreated == pytest.approx(
        (now.created - done.created) * 1000, abs=0.01
    )
    assert not any(feishu_sandbox.USER in repr(vars(record)) for record in kept.records)


def test_a_failure_and_a_wait(kept: Kept, feishu_sandbox: Sandbox):
    with feishu_sandbox.client(rate_limit=(1, 1000)) as client:
        client.set_time_sensitive(feishu_sandbox.CHAT, [feishu_sandbox.USER], True)
        with pytest.raises(RejectedError) as caught:
            client.set_time_sensitive("oc_nowhere", [feishu_sandbox.USER], True)
    failed = kept.wait_for("failed")[0]
    assert failed.levelno == logging.WARNING
    assert vars(failed)["code"] == caught.value.platform_code == 232006
    assert vars(failed)["log_id"] == caught.value.log_id
    assert vars(failed)["kind"] == "REJECTED"
    assert vars(kept.wait_for("waiting for a slot")[0])["feed_card_id"] == "oc_nowhere"


def test_the_level_is_heeded_from_one_call_to_the_next(kept: Kept, feishu_sandbox: Sandbox):
    with feishu_sandbox.client() as client:

        def call() -> None:
            with pytest.raises(RejectedError):
                client.set_time_sensitive("oc_nowhere", [feishu_sandbox.USER], True)

        LOGGER.setLevel(logging.WARNING)
        call()
        assert vars(kept.wait_for("failed")[0])["feed_card_id"] == "oc_nowhere", "though spans are at DEBUG"
        LOGGER.setLevel(logging.CRITICAL)
        call()
        LOGGER.setLevel(logging.DEBUG)
        call()
        LOGGER.setLevel(logging.ERROR)
        kept.wait_for("failed", 2)
        kept.wait_for("call begins", 1)
        LOGGER.removeHandler(kept)
        call()
        LOGGER.addHandler(kept)
        LOGGER.setLevel(logging.WARNING)
        call()
        kept.wait_for("failed", 3)
        kept.wait_for("call begins", 1)


def test_logging_disable(kept: Kept, feishu_sandbox: Sandbox):
    logging.disable(logging.INFO)
    try:
        with feishu_sandbox.client() as client, pytest.raises(RejectedError):
            client.set_time_sensitive("oc_nowhere", [feishu_sandbox.USER], True)
        kept.wait_for("failed")
    finally:
        logging.disable(logging.NOTSET)
    assert {record.levelno for record in kept.records} == {logging.WARNING}


def test_a_disabled_logger(kept: Kept, feishu_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch):
    with feishu_sandbox.client() as client:
        for is_disabled in (True, False):
            monkeypatch.setattr(LOGGER, "disabled", is_disabled)
            with pytest.raises(RejectedError):
                client.set_time_sensitive("oc_nowhere", [feishu_sandbox.USER], True)
    kept.wait_for("failed")


@pytest.mark.parametrize(
    ("config", "told"),
    [("", 0), ("disable_existing_loggers=False", 1), ("loggers={'feishu_feed_card': {}}", 1)],
    ids=["", "not disabled", "named"],
)
def test_a_configuration_silences_the_loggers_it_does_not_name(config: str, told: int):
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
import atexit
atexit._run_exitfuncs()
print(sorted(set(kept)))
""",
        str(["feishu-feed-card logging"] * told),
    )


def test_calls_of_many_threads_and_loops_are_told_apart(kept: Kept, feishu_sandbox: Sandbox):
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
    done = kept.wait_for("done", 40)
    assert sorted(vars(record)["feed_card_id"] for record in done) == sorted(chats)


def test_a_handler_that_raises(kept: Kept, feishu_sandbox: Sandbox, capfd: pytest.CaptureFixture[str]):
    class Broken(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raise LookupError("the disk is full")

    broken = Broken()
    LOGGER.addHandler(broken)
    with feishu_sandbox.client() as client:
        client.set_time_sensitive(feishu_sandbox.CHAT, [feishu_sandbox.USER], True)
        kept.wait_for("done")
        LOGGER.removeHandler(broken)
        client.set_time_sensitive(feishu_sandbox.CHAT, [feishu_sandbox.USER], True)
        kept.wait_for("done", 2)
    assert "the disk is full" in capfd.readouterr().err


def test_a_level_that_is_no_number(kept: Kept, feishu_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch):
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


def test_nobody_listens():
    prints(
        SCRIPT
        + """
client = sandbox.client()
print(fail(client), "logging" in sys.modules)
import logging
print(fail(client), names())
logging.getLogger("feishu_feed_card").setLevel(logging.DEBUG)
print(fail(client), names(), "feishu_feed_card._logging" in sys.modules)
""",
        "REJECTED False\nREJECTED []\nREJECTED [] False",
    )


def test_basic_config_after_the_client_was_made():
    ended = run(
        SCRIPT
        + """
client = sandbox.client()
call(client)
import logging
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(levelname)s %(message).6s")
sys.stdout.write(fail(client) + "\\n")  # at once: another thread writes, too
"""
    )
    assert (ended.code, ended.err) == (0, ""), ended
    assert sorted(ended.out.splitlines()) == ["REJECTED", "WARNING failed"], ended


def test_what_is_queued_is_flushed_at_the_end():
    ended = run(
        SCRIPT
        + """
import logging, time

class Slow(logging.Handler):
    def emit(self, record):
        time.sleep(0.01)
        print(record.getMessage().split(" (")[0])

logging.basicConfig(level=logging.DEBUG, handlers=[Slow()])
client = sandbox.client()
for _ in range(10):
    call(client)
"""
    )
    assert (ended.code, ended.err) == (0, ""), ended
    assert ended.out.splitlines().count("done") == 10, ended


def test_a_handler_that_hangs_does_not_keep_the_interpreter():
    ended = run(
        SCRIPT
        + """
import logging, time

class Stuck(logging.Handler):
    # Not in emit: `logging` itself waits at its end for the lock that is held there.
    def handle(self, record):
        time.sleep(3600)

logging.basicConfig(level=logging.DEBUG, handlers=[Stuck()])
call(sandbox.client())
print("leaving")
"""
    )
    assert (ended.code, ended.out) == (0, "leaving\n"), ended
    assert ended.seconds < 20


def test_too_many_records_are_dropped_and_counted():
    ended = run(
        SCRIPT
        + """
import logging, threading
gate = threading.Event()
seen = []

class Gated(logging.Handler):
    def emit(self, record):
        gate.wait()
        seen.append(record)

logging.basicConfig(level=logging.DEBUG, handlers=[Gated()])
request = {"feed_card_id": sandbox.CHAT, "user_ids": [sandbox.USER], "time_sensitive": True}
client = sandbox.client(rate_limit=None)
for item in client.set_time_sensitive_many(request for _ in range(6000)):
    pass
gate.set()

import atexit, time
end = time.monotonic() + 20
while not any(hasattr(record, "dropped") for record in seen) and time.monotonic() < end:
    time.sleep(0.01)
dropped = [record.dropped for record in seen if hasattr(record, "dropped")]
kept = len(seen) - len(dropped)
print(len(dropped), dropped[0] > 1000, kept >= 10_000, seen[-1].levelname, kept + dropped[0] >= 18_000)
"""
    )
    assert (ended.code, ended.out, ended.err) == (0, "1 True True WARNING True\n", ""), ended


def test_a_forked_child_logs_of_its_own():
    ended = run(
        SCRIPT
        + """
import logging, os, signal
logging.basicConfig(stream=sys.stdout, format="%(process)d %(levelname)s %(message).6s")
client = sandbox.client()
fail(client)
import time
time.sleep(0.5)
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


def test_a_handler_that_fails_where_nobody_can_be_told_is_asked_again():
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
    end = time.monotonic() + 10
    while len(seen) == before and time.monotonic() < end:
        time.sleep(0.01)
    assert len(seen) > before
    time.sleep(0.1)
print("told")
"""
    )
    assert (ended.code, ended.out.strip()) == (0, "told"), ended
