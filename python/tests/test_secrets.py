"""No result shows a secret. A server echoes all that it receives, so that every kind of error could."""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
import socket
import sys
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from feishu_feed_card import AsyncClient, Client, FeedCardError, Outcome
from feishu_feed_card._errors import CLASSES
from feishu_feed_card.sandbox import Sandbox
from waits import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from records import Kept

SECRET = "S3CRET-of-the-app-0123456789abcdef"
TOKEN = "t-T0KEN-of-the-tenant-0123456789"
APP_TOKEN = "a-APPT0KEN-0123456789-of-the-store"
TICKET = "T1CKET-of-the-store-0123456789"
PASSWORD = "PR0XY-password-0123456789"
BASIC = "bWU6UFIwWFktcGFzc3dvcmQtMDEyMzQ1Njc4OQ=="
"""The credentials as sent to a proxy: base64 of "me:…"."""

USER = Sandbox.USER
PIN: Any = {"feed_card_id": Sandbox.CHAT, "user_ids": [USER], "time_sensitive": True}


def assert_clean(what: str, shown: object) -> None:
    """Checks that no secret is shown. The middle part of a secret counts, too."""
    text = shown if isinstance(shown, str) else repr(shown)
    for secret in (SECRET, TOKEN, APP_TOKEN, TICKET, PASSWORD, BASIC):
        assert secret[2:-4] not in text, f"{what} shows {secret}: {text}"


def body(code: int, **more: Any) -> Callable[[str], str]:
    """An answer in the platform's form that echoes the request."""
    return lambda said: json.dumps({"code": code, "msg": said, **{key: f(said) for key, f in more.items()}})


ANSWERS: list[tuple[int, Callable[[str], str]]] = [
    (200, lambda said: f"<html>{said}</html>"),
    (502, lambda said: f"<html>{said}</html>"),
    (200, lambda said: "x" * 150 + said),
    (200, lambda said: said),
    (400, body(230001)),
    (200, body(99991663)),
    (400, body(99991663)),
    (400, body(99991400)),
    (429, body(99991400)),
    (200, body(99991403)),
    (200, body(2200, log_id=str)),
    (400, body(99991672, error=lambda said: {"permission_violations": [{"type": said, "subject": said}]})),
    (
        400,
        body(
            99992402,
            error=lambda said: {
                "log_id": said,
                "field_violations": [{"field": said, "value": said, "description": said}],
            },
        ),
    ),
    (
        200,
        body(
            0,
            data=lambda said: {
                "failed_user_reasons": [{"error_code": 0, "error_message": said, "user_id": USER}]
            },
        ),
    ),
]


class Echo(BaseHTTPRequestHandler):
    """Echoes requests. With `gives_tokens`, requests for a token get one."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one segment for head and body; otherwise each response waits 40 ms for an acknowledgement
    answer: tuple[int, Callable[[str], str]] = ANSWERS[0]
    gives_tokens = True

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        # A proxy removes its own header before it forwards a request.
        headers = {name: self.headers[name] for name in self.headers if name != "proxy-authorization"}
        said = f"{sent} {headers} {' '.join(headers.values())}"
        status, make = self.answer
        text = make(said)
        if self.gives_tokens and "/auth/" in self.path:
            status = 200
            text = json.dumps(
                {"code": 0, "expire": 7200, "tenant_access_token": TOKEN, "app_access_token": APP_TOKEN}
            )
        data = text.encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.send_header("x-tt-logid", " ".join(said.split()))
        self.end_headers()
        self.wfile.write(data)

    do_PATCH = do_POST  # noqa: N815 -- the base class calls it by the method's name

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def echo() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def options(echo: str) -> Iterator[dict[str, Any]]:
    """Client options with each kind of credentials, and with a proxy."""
    common: dict[str, Any] = {
        "max_retries": 0,
        "timeout": 5,
        "rate_limit": None,
        "base_url": f"http://{echo}",
    }
    yield {**common, "app_id": "cli_1", "app_secret": SECRET, "max_retries": 1}
    yield {**common, "app_id": "cli_1", "app_secret": SECRET, "tenant_key": "t", "app_ticket": TICKET}
    yield {**common, "tenant_access_token": TOKEN}
    yield {**common, "token_provider": lambda: TOKEN}
    yield {
        **common,
        "base_url": "http://platform.invalid",
        "allow_http": True,
        "proxy": f"http://me:{PASSWORD}@{echo}",
        "app_id": "cli_1",
        "app_secret": SECRET,
    }


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def check(what: object) -> None:
    """Checks all representations of an object that may end up in a log, a report or a file."""
    assert_clean("str", str(what))
    assert_clean("repr", what)
    if hasattr(what, "__dict__"):
        assert_clean("vars", vars(what))
        for value in vars(what).values():
            assert_clean("a value", value)
    for name in dir(what):
        if not name.startswith("__"):
            assert_clean(name, getattr(what, name, None))


def check_result(result: object) -> None:
    """Checks a result as `check` does, and pickles, copies and tracebacks of it."""
    check(result)
    for protocol in (0, pickle.HIGHEST_PROTOCOL):
        assert_clean("a pickle", pickle.dumps(result, protocol).decode("latin-1"))
    check(pickle.loads(pickle.dumps(result)))
    if isinstance(result, BaseException):
        assert_clean("a traceback", "".join(traceback.format_exception(result)))
        assert_clean("args", result.args)


def attempt(call: Callable[[], Any]) -> list[object]:
    """Returns the outcome of a call, or its error and the error's outcome."""
    try:
        outcome = call()
        outcome.raise_for_failed()
    except FeedCardError as error:
        return [error, error.outcome]
    return [outcome]


def results(made: dict[str, Any]) -> Iterator[object]:
    """Makes calls with both clients. Yields their outcomes, errors, items and reports."""
    with Client(**made) as client:
        check(client)
        yield from attempt(lambda: client.set_time_sensitive(Sandbox.CHAT, [USER], True))
        with client.set_time_sensitive_many([PIN, None], progress=check) as many:
            check(many)
            for item in many:
                yield from (item, item.error, item.outcome)
        yield many.report()

    async def main() -> list[object]:
        async with AsyncClient(**made) as client:
            check(client)
            try:
                outcome = await client.set_bot_time_sensitive([USER], True)
            except FeedCardError as error:
                return [error, error.outcome]
            return [outcome, *attempt(lambda: outcome)]

    yield from asyncio.run(main())


def others(sandbox: Sandbox) -> Iterator[object]:
    """Yields errors that do not come from a response."""
    wrong: list[dict[str, Any]] = [
        {"app_id": SECRET, "app_secret": ""},
        {"app_id": "cli_1", "app_secret": SECRET.encode()},
        {"app_id": "cli_1", "app_secret": SECRET + "\ud800"},
        {"app_id": "cli_1", "app_secret": SECRET, "tenant_access_token": TOKEN},
        {"app_id": "cli_1", "app_secret": SECRET, "app_ticket": TICKET},
        {"app_id": "cli_1", "app_secret": SECRET, "app_ticket": [TICKET]},
        {"tenant_access_token": f"{TOKEN}\n"},
        {"tenant_access_token": [TOKEN]},
        {"app_id": "cli_1", "app_secret": SECRET, "proxy": f"{PASSWORD}://{SECRET}"},
        {"app_id": "cli_1", "app_secret": SECRET, "proxy": f"http://me:{PASSWORD}@"},
        {"app_id": "cli_1", "app_secret": SECRET, "proxy": [f"http://me:{PASSWORD}@localhost"]},
        {"app_id": "cli_1", "app_secret": SECRET, "base_url": f"https://me:{SECRET}@example.invalid"},
        {"app_id": "cli_1", "app_secret": SECRET, "timeout": -1},
    ]
    for one in wrong:
        for cls in (Client, AsyncClient):
            with pytest.raises(FeedCardError) as caught:
                cls(**one)
            yield caught.value
    refused = f"127.0.0.1:{closed_port()}"
    for more in (
        {"base_url": f"http://{refused}"},
        {"base_url": "http://a.invalid", "allow_http": True, "proxy": f"http://me:{PASSWORD}@{refused}"},
        {"base_url": "https://a.invalid", "proxy": f"http://me:{PASSWORD}@{refused}"},
    ):
        with Client("cli_1", SECRET, max_retries=0, timeout=5, **more) as client:  # type: ignore[arg-type]
            yield from attempt(lambda client=client: client.set_bot_time_sensitive([USER], True))
            with pytest.raises(FeedCardError) as caught:
                client.set_app_ticket(TICKET)
            yield caught.value
            client.close(timeout=5)
            yield from attempt(lambda client=client: client.set_bot_time_sensitive([USER], True))
    sandbox.faults([{"on": "call", "delay_before_ms": 5000}])
    with sandbox.client(timeout=0.3) as client:
        yield from attempt(lambda: client.set_bot_time_sensitive([USER], True))

    def provider() -> Any:
        return [TOKEN]

    with sandbox.client(token_provider=provider) as client:
        yield from attempt(lambda: client.set_bot_time_sensitive([USER], True))


def test_nothing_shows_a_secret(
    echo: str, feishu_sandbox: Sandbox, kept: Kept, monkeypatch: pytest.MonkeyPatch
):
    kinds: set[str] = set()
    outcomes = 0
    for gives_tokens in (True, False):
        monkeypatch.setattr(Echo, "gives_tokens", gives_tokens)
        for answer in ANSWERS:
            monkeypatch.setattr(Echo, "answer", answer)
            for made in options(echo):
                for result in results(made):
                    check_result(result)
                    outcomes += isinstance(result, Outcome)
                    kinds.add(getattr(result, "kind", ""))
    for result in others(feishu_sandbox):
        check_result(result)
        kinds.add(getattr(result, "kind", ""))
    assert kinds - {""} == set(CLASSES), "each kind of error was made"
    assert outcomes > 5

    with feishu_sandbox.client() as client:
        assert client.set_time_sensitive(Sandbox.CHAT, [USER], True, timeout=7).requests == 1
    eventually(lambda: vars(kept.records[-1]).get("log_id") and kept.records[-1].getMessage()[:4] == "done")
    assert {record.levelno for record in kept.records} == {logging.DEBUG, logging.INFO, logging.WARNING}
    for record in kept.records:
        assert_clean("a record", record.getMessage())
        assert_clean("a record", vars(record))
        assert USER not in repr(vars(record)), "user ids are counted, not listed"


def test_the_sandbox_shows_no_secret():
    world = Sandbox.example_world()
    world["apps"][0]["app_secret"] = SECRET
    with Sandbox(world) as sandbox, sandbox.client(app_secret=SECRET) as client:
        assert client.set_time_sensitive(sandbox.CHAT, [sandbox.USER], True).ok
        check(sandbox)
        shown = repr([sandbox.requests(), sandbox.state(), client])
        assert SECRET[2:-4] not in shown
        assert "Bearer t-" not in shown


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize(
    "proxy",
    [
        f"http://me:{PASSWORD}",
        f"socks4://me:{PASSWORD}@proxy.invalid",
        f'"http://me:{PASSWORD}@proxy.invalid"',
        f" http://me:{PASSWORD}@proxy.invalid",
        f"http://me:{PASSWORD}/@proxy.invalid",
        f"http://me:{PASSWORD}#@proxy.invalid",
        f"http://me:{PASSWORD} @proxy.invalid",
        f"http://me:{PASSWORD}@{PASSWORD}@proxy.invalid",
        f"socks5h://me:{PASSWORD}{'x' * 256}@proxy.invalid",
        f"me:{PASSWORD}@proxy.invalid",
    ],
)
def test_an_unusable_proxy_of_the_environment_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch, variable: str, proxy: str
):
    monkeypatch.setenv(variable, proxy)
    if sys.platform == "win32":
        variable = variable.upper()  # names of variables have no letter case there
    for cls in (Client, AsyncClient):
        with pytest.raises(FeedCardError, match=variable) as caught:
            cls("cli_1", "secret")
        assert (caught.value.kind, caught.value.field) == ("INVALID_INPUT", "proxy")
        assert variable in (caught.value.hint or "")
        check_result(caught.value)
        assert cls("cli_1", "secret", proxy=False).quota is not None


@pytest.mark.parametrize(
    "call",
    [
        lambda: Client("cli_example", SECRET, timeut=4),  # type: ignore[call-arg]
        lambda: Client("cli_example", SECRET, timeout=-1),
        lambda: Client("cli_example", SECRET, tenant_access_token=TOKEN),
        lambda: Client("cli_example", SECRET, proxy=f"me:{PASSWORD}@nowhere"),
        lambda: AsyncClient("cli_example", SECRET, tenant_key="t", app_ticket=TICKET, timeout="x"),  # type: ignore[arg-type]
        lambda: Client.from_env(app_id="cli_example", app_secret=SECRET, timeout=-1),
        lambda: Client("cli_example", SECRET).set_app_ticket(TICKET),
    ],
)
def test_no_frame_of_the_package_has_a_secret(call: Callable[[], object]) -> None:
    # pytest, rich and error trackers show the variables of frames.
    with pytest.raises(FeedCardError) as caught:
        call()
    frames = [frame for frame, _ in traceback.walk_tb(caught.value.__traceback__)]
    ours = [frame for frame in frames if "feishu_feed_card" in frame.f_code.co_filename]
    assert ours
    for frame in ours:
        assert_clean(frame.f_code.co_name, repr(frame.f_locals))
