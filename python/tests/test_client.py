"""`Client`."""

from __future__ import annotations

import inspect
import pickle
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

import feishu_feed_card
from feishu_feed_card import (
    Client,
    ClientClosedError,
    DeadlineExceededError,
    FeedCardError,
    InvalidInputError,
    RateLimitedError,
)
from feishu_feed_card.sandbox import Sandbox

if TYPE_CHECKING:
    from typing import Any


def test_pins_and_unpins(feishu_sandbox: Sandbox):
    with Client(feishu_sandbox.APP_ID, feishu_sandbox.APP_SECRET, base_url=feishu_sandbox.base_url) as client:
        outcome = client.set_time_sensitive(feishu_sandbox.CHAT, [feishu_sandbox.USER], True)
        assert outcome.ok
        assert outcome.raise_for_failed() is outcome
        assert outcome.reached == (feishu_sandbox.USER,)
        assert feishu_sandbox.pinned(feishu_sandbox.USER) == [feishu_sandbox.CHAT]
        client.set_time_sensitive(feishu_sandbox.CHAT, [feishu_sandbox.USER], False)
        assert feishu_sandbox.pinned(feishu_sandbox.USER) == []
        assert client.set_bot_time_sensitive([feishu_sandbox.USER], True).ok
        assert feishu_sandbox.bot_pinned(feishu_sandbox.USER) == [feishu_sandbox.APP_ID]


@pytest.mark.parametrize(
    "ids",
    [
        pytest.param(lambda ids: tuple(ids), id="tuple"),
        pytest.param(lambda ids: set(ids), id="set"),
        pytest.param(lambda ids: frozenset(ids), id="frozenset"),
        pytest.param(lambda ids: iter(ids), id="iterator"),
        pytest.param(lambda ids: (i for i in ids), id="generator"),
        pytest.param(lambda ids: dict.fromkeys(ids).keys(), id="keys"),
    ],
)
def test_takes_ids_in_any_container(feishu_sandbox: Sandbox, ids):
    with feishu_sandbox.client() as client:
        outcome = client.set_time_sensitive(
            feishu_sandbox.CHAT, ids([feishu_sandbox.USER, feishu_sandbox.OUTSIDER]), True
        )
    assert outcome.reached == (feishu_sandbox.USER,)
    assert outcome.failed == (feishu_sandbox.OUTSIDER,)


def test_an_error_of_an_iterator_is_raised_unchanged(feishu_sandbox: Sandbox):
    def ids():
        yield feishu_sandbox.USER
        raise LookupError("the directory is down")

    with feishu_sandbox.client() as client, pytest.raises(LookupError, match="directory is down"):
        client.set_time_sensitive(feishu_sandbox.CHAT, ids(), True)
    assert feishu_sandbox.request_count() == 0


def test_a_closed_client_refuses_calls(feishu_sandbox: Sandbox):
    client = feishu_sandbox.client()
    client.close()
    client.close()
    with pytest.raises(ClientClosedError, match=r"the client is closed\. Create another client") as caught:
        client.set_time_sensitive(feishu_sandbox.CHAT, [feishu_sandbox.USER], True)
    assert not isinstance(caught.value, (InvalidInputError, ValueError))
    assert caught.value.not_attempted == (feishu_sandbox.USER,)
    with pytest.raises(ClientClosedError) as caught:
        client.set_bot_time_sensitive({feishu_sandbox.USER}, True)
    assert caught.value.not_attempted == (feishu_sandbox.USER,)
    with pytest.raises(ClientClosedError):
        client.set_app_ticket("ticket")
    assert "closed" in repr(client)
    assert feishu_sandbox.request_count() == 0


def test_calls_in_progress_end_after_close(feishu_sandbox: Sandbox):
    feishu_sandbox.faults([{"on": "call", "delay_before_ms": 200}])
    client = feishu_sandbox.client()
    ends = []
    thread = threading.Thread(
        target=lambda: ends.append(
            client.set_time_sensitive(feishu_sandbox.CHAT, [feishu_sandbox.USER], True)
        )
    )
    thread.start()
    deadline = time.monotonic() + 10
    while feishu_sandbox.request_count() < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    client.close()
    thread.join(10)
    assert [end.ok for end in ends] == [True]


def _made_in_a_thread(client: Client, sandbox: Sandbox) -> tuple[threading.Thread, list[Any]]:
    """Starts a call in a thread and waits until it is sent. The list gets its outcome or error."""
    ends: list[Any] = []

    def make() -> None:
        try:
            ends.append(client.set_time_sensitive(sandbox.CHAT, [sandbox.USER], True))
        except FeedCardError as error:
            ends.append(error)

    thread = threading.Thread(target=make, daemon=True)
    before = sandbox.request_count()
    thread.start()
    deadline = time.monotonic() + 10
    while sandbox.request_count() < before + 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    return thread, ends


def test_closing_stops_a_call_after_its_timeout(feishu_sandbox: Sandbox):
    feishu_sandbox.faults([{"on": "call", "delay_before_ms": 20_000}])
    client = feishu_sandbox.client()
    thread, ends = _made_in_a_thread(client, feishu_sandbox)
    started = time.monotonic()
    client.close(timeout=0.2)
    # The clock of Windows has a resolution of 16 ms.
    assert 0.15 < time.monotonic() - started < 5
    thread.join(10)
    [error] = ends
    assert type(error) is ClientClosedError
    assert (error.kind, error.station, error.retryable) == ("CLIENT_CLOSED", "answer", False)
    assert (error.unknown, error.not_attempted) == ((feishu_sandbox.USER,), ())
    client.close(timeout=10)
    assert time.monotonic() - started < 5, "there is no call to wait for"


def test_a_call_that_the_close_stops_is_logged(feishu_sandbox: Sandbox, caplog: pytest.LogCaptureFixture):
    feishu_sandbox.faults([{"on": "call", "delay_before_ms": 20_000}])
    client = feishu_sandbox.client()
    with caplog.at_level("WARNING", "feishu_feed_card"):
        thread, _ = _made_in_a_thread(client, feishu_sandbox)
        client.close(timeout=0)
        thread.join(10)
    [record] = caplog.records
    assert (record.levelname, record.kind, record.attempts) == ("WARNING", "CLIENT_CLOSED", 1)  # type: ignore[attr-defined]


def test_closing_waits_for_a_call_that_ends_in_time(feishu_sandbox: Sandbox):
    feishu_sandbox.faults([{"on": "call", "delay_before_ms": 300}])
    client = feishu_sandbox.client()
    thread, ends = _made_in_a_thread(client, feishu_sandbox)
    client.close(timeout=20)
    assert feishu_sandbox.pinned(feishu_sandbox.USER) == [feishu_sandbox.CHAT]
    thread.join(10)
    assert [end.ok for end in ends] == [True]


def test_a_second_close_may_stop_calls_earlier_than_the_first(feishu_sandbox: Sandbox):
    feishu_sandbox.faults([{"on": "call", "delay_before_ms": 20_000}])
    client = feishu_sandbox.client()
    thread, ends = _made_in_a_thread(client, feishu_sandbox)
    client.close()
    others = [threading.Thread(target=client.close, args=(15,), daemon=True) for _ in range(3)]
    for other in others:
        other.start()
    time.sleep(0.1)
    assert all(other.is_alive() for other in others)
    started = time.monotonic()
    client.close(timeout=0)
    for one in (*others, thread):
        one.join(10)
        assert not one.is_alive()
    assert time.monotonic() - started < 5
    assert [type(end) for end in ends] == [ClientClosedError]


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf"), "5", True])
def test_a_wrong_timeout_leaves_the_client_open(feishu_sandbox: Sandbox, timeout: Any):
    with feishu_sandbox.client() as client:
        with pytest.raises(InvalidInputError) as caught:
            client.close(timeout)
        assert caught.value.field == "timeout"
        assert client.set_bot_time_sensitive([feishu_sandbox.USER], True).ok


def test_closing_a_client_without_calls_does_not_wait(feishu_sandbox: Sandbox):
    started = time.monotonic()
    feishu_sandbox.client().close(timeout=20)
    feishu_sandbox.client().close()
    assert time.monotonic() - started < 5


def test_a_call_has_a_deadline(feishu_sandbox: Sandbox):
    feishu_sandbox.faults([{"on": "call", "delay_before_ms": 5000}])
    with feishu_sandbox.client() as client:
        started = time.monotonic()
        with pytest.raises(TimeoutError) as caught:
            client.set_time_sensitive(feishu_sandbox.CHAT, [feishu_sandbox.USER], True, timeout=0.1)
        assert time.monotonic() - started < 1
    assert isinstance(caught.value, DeadlineExceededError)
    assert caught.value.station == "answer"
    assert caught.value.unknown == (feishu_sandbox.USER,)


def test_many_threads_share_one_client(feishu_sandbox: Sandbox):
    feishu_sandbox.set_switches(per_second=None, per_minute=None)
    failures = []
    with feishu_sandbox.client(rate_limit=None) as client:

        def call(number: int):
            try:
                for _ in range(25):
                    client.set_time_sensitive(f"oc_none_{number}", [feishu_sandbox.USER], True)
            except feishu_feed_card.RejectedError as error:
                failures.append(error.platform_code)

        feishu_sandbox.control("set_switches", switches={"per_second": None, "per_minute": None})
        for number in range(8):
            feishu_sandbox.put_chat({"feed_card_id": f"oc_none_{number}", "members": [feishu_sandbox.USER]})
        workers = [threading.Thread(target=call, args=(number,)) for number in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(30)
    assert failures == []
    assert feishu_sandbox.token_fetches() == 1
    assert feishu_sandbox.request_count() == 1 + 8 * 25


def test_a_slow_call_does_not_delay_other_threads(feishu_sandbox: Sandbox):
    feishu_sandbox.faults([{"on": "call", "delay_before_ms": 1500}])
    with feishu_sandbox.client() as client:
        client.set_app_ticket  # noqa: B018
        slow = threading.Thread(
            target=client.set_time_sensitive, args=(feishu_sandbox.CHAT, [feishu_sandbox.USER], True)
        )
        slow.start()
        deadline = time.monotonic() + 10
        while feishu_sandbox.request_count() < 2 and time.monotonic() < deadline:
            time.sleep(0.005)
        started = time.monotonic()
        for _ in range(10):
            assert client.set_bot_time_sensitive([feishu_sandbox.USER], True).ok
        assert time.monotonic() - started < 1
        slow.join(10)


def test_a_connection_closed_between_calls_is_replaced(feishu_sandbox: Sandbox):
    with feishu_sandbox.client() as client:
        for _ in range(3):
            outcome = client.set_time_sensitive(feishu_sandbox.CHAT, [feishu_sandbox.USER], True)
            assert outcome.requests == 1
            feishu_sandbox.close_connections()
            time.sleep(0.1)


def test_a_connection_closed_just_before_a_call_is_replaced():
    answered, closed = threading.Event(), threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    body = b'{"time_sensitive":true,"user_ids":["ou_1"]}'
    answer = b'{"code":0,"data":{}}'

    def serve() -> None:
        for _ in range(20):
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as request:
                while request.readline().strip():
                    pass
                request.read(len(body))
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(answer), answer))
                answered.wait(10)
                answered.clear()
            closed.set()

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with listener, Client(tenant_access_token="t-1", base_url=url, max_retries=0) as client:
        for _ in range(20):
            # Before the runtime's thread has noticed that the connection was closed.
            assert client.set_time_sensitive("oc_1", ["ou_1"], True).ok
            answered.set()
            assert closed.wait(10)
            closed.clear()
        server.join(10)


def test_a_token_is_renewed_between_calls(feishu_sandbox: Sandbox):
    feishu_sandbox.faults([{"on": "token", "expire": 2}, {"on": "token", "delay_before_ms": 200}])
    with feishu_sandbox.client() as client:
        client.set_time_sensitive(feishu_sandbox.CHAT, [feishu_sandbox.USER], True)
        time.sleep(1.1)
        started = time.monotonic()
        client.set_time_sensitive(feishu_sandbox.CHAT, [feishu_sandbox.USER], True)
        assert time.monotonic() - started < 0.15, "the call that starts the renewal uses the old token"
        time.sleep(0.5)
        assert feishu_sandbox.token_fetches() == 2
        client.set_time_sensitive(feishu_sandbox.CHAT, [feishu_sandbox.USER], True)
    assert feishu_sandbox.token_fetches() == 2


def test_from_env_reads_the_environment(feishu_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(InvalidInputError, match="FEISHU_APP_ID"):
        Client.from_env()
    monkeypatch.setenv("FEISHU_APP_ID", feishu_sandbox.APP_ID)
    monkeypatch.setenv("FEISHU_APP_SECRET", feishu_sandbox.APP_SECRET)
    monkeypatch.setenv("FEISHU_BASE_URL", feishu_sandbox.base_url)
    with Client.from_env(timeout=10) as client:
        assert client.set_time_sensitive(feishu_sandbox.CHAT, [feishu_sandbox.USER], True).ok
    with pytest.raises(InvalidInputError) as caught:
        Client.from_env(tiemout=10)  # type: ignore[call-arg]
    assert caught.value.field == "tiemout"


def test_clients_can_share_a_quota(feishu_sandbox: Sandbox):
    with (
        feishu_sandbox.client(rate_limit=(2, 100)) as one,
        feishu_sandbox.client(quota=one.quota) as other,
    ):
        assert repr(one.quota) == "<feishu_feed_card.Quota of 2 a second, 100 a minute>"
        assert other.quota is one.quota
        one.set_bot_time_sensitive([feishu_sandbox.USER], True)
        other.set_bot_time_sensitive([feishu_sandbox.USER], True)
        with pytest.raises(RateLimitedError) as caught:
            one.set_bot_time_sensitive([feishu_sandbox.USER], True, timeout=0.2)
    assert caught.value.station == "quota"
    assert caught.value.not_attempted == (feishu_sandbox.USER,)
    assert caught.value.retry_after is not None
    assert 0.5 < caught.value.retry_after <= 1.01


def test_a_client_without_pacing_has_no_quota(feishu_sandbox: Sandbox):
    assert feishu_sandbox.client(rate_limit=None).quota is None


def test_quota_and_rate_limit_cannot_be_combined(feishu_sandbox: Sandbox):
    quota = feishu_sandbox.client().quota
    with pytest.raises(InvalidInputError, match="given together with quota"):
        feishu_sandbox.client(quota=quota, rate_limit=(50, 1000))


def test_a_client_cannot_be_pickled(feishu_sandbox: Sandbox):
    with pytest.raises(TypeError, match="create one in each process"):
        pickle.dumps(feishu_sandbox.client())


def test_repr_shows_no_secret(feishu_sandbox: Sandbox):
    client = feishu_sandbox.client()
    assert repr(client) == f"<feishu_feed_card.Client of {feishu_sandbox.base_url}>"
    assert feishu_sandbox.APP_SECRET not in repr(client)
    assert feishu_sandbox.APP_SECRET not in repr(vars(client))


def test_signatures_are_shown():
    signature = inspect.signature(Client.set_time_sensitive)
    assert list(signature.parameters) == [
        "self", "feed_card_id", "user_ids", "time_sensitive", "user_id_type", "timeout", "on_event",
    ]  # fmt: skip
    assert signature.parameters["user_id_type"].default == "open_id"
    assert "tenant_access_token" in inspect.signature(Client).parameters


def test_every_public_name_has_a_docstring():
    for name in feishu_feed_card.__all__:
        thing = getattr(feishu_feed_card, name)
        if not inspect.isclass(thing):
            continue
        assert inspect.getdoc(thing), name
        for method, value in vars(thing).items():
            if not method.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
                assert inspect.getdoc(value), f"{name}.{method}"


def test_an_error_has_the_exception_being_handled_as_its_context(feishu_sandbox: Sandbox):
    with feishu_sandbox.client() as client:
        calls = [
            lambda: client.set_time_sensitive("nope", [feishu_sandbox.USER], False),
            lambda: client.set_time_sensitive("nope", [feishu_sandbox.USER], False, timeut=1),
            lambda: Client("cli_example", ""),
        ]
        for call in calls:
            why = RuntimeError("the alert page is down")
            with pytest.raises(InvalidInputError) as caught:
                try:
                    raise why
                finally:
                    call()
            assert caught.value.__context__ is why


def test_an_uninitialised_client_has_a_repr():
    assert repr(Client.__new__(Client)) == "<feishu_feed_card.Client without options>"


def test_ids_before_an_invalid_id_are_not_attempted(feishu_sandbox: Sandbox):
    ids = [feishu_sandbox.USER, 5]
    with feishu_sandbox.client() as client:
        with pytest.raises(InvalidInputError) as caught:
            client.set_time_sensitive(feishu_sandbox.CHAT, ids, True)  # type: ignore[arg-type]
        assert caught.value.not_attempted == (feishu_sandbox.USER,)
        request = {"feed_card_id": feishu_sandbox.CHAT, "user_ids": ids, "time_sensitive": True}
        [item] = client.set_time_sensitive_many([request])  # type: ignore[list-item]
        assert item.error is not None
        assert item.error.not_attempted == (feishu_sandbox.USER,)
