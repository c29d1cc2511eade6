"""Invalid values and types raise `InvalidInputError` with the field, before anything is sent."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import inspect
import os
from typing import TYPE_CHECKING, Any

import pytest

from feishu_feed_card import AsyncClient, Client, ClientOptions, InvalidInputError
from feishu_feed_card._native import CLIENT_OPTIONS

if TYPE_CHECKING:
    from feishu_feed_card.sandbox import Sandbox

SURROGATE = "ou_\ud800"


class Odd:
    """An object whose methods all raise."""

    def __repr__(self) -> str:
        raise RuntimeError("repr")

    def __str__(self) -> str:
        raise RuntimeError("str")

    def __len__(self) -> int:
        raise RuntimeError("len")


CALLS: list[tuple[str, Any, str, str]] = [
    ("feed_card_id", None, "feed_card_id", "None; expected a str"),
    ("feed_card_id", 1, "feed_card_id", "1 of type int; expected a str"),
    ("feed_card_id", True, "feed_card_id", "True of type bool"),
    ("feed_card_id", b"oc_1", "feed_card_id", "b'oc_1' of type bytes"),
    ("feed_card_id", ["oc_1"], "feed_card_id", "of type list"),
    ("feed_card_id", Odd(), "feed_card_id", "of type Odd"),
    ("feed_card_id", "oc_\udcff", "feed_card_id", "text without lone surrogates"),
    ("feed_card_id", "", "feed_card_id", "a group chat's id"),
    ("feed_card_id", "oc_" + "x" * 10_000, "feed_card_id", "…"),
    ("feed_card_id", "bot_time_sentive", "feed_card_id", "set_bot_time_sensitive"),
    ("user_ids", None, "user_ids", "None; expected a list of user ids"),
    ("user_ids", "ou_1", "user_ids", "'ou_1' of type str; expected a list of user ids"),
    ("user_ids", b"ou_1", "user_ids", "of type bytes"),
    ("user_ids", bytearray(b"ou_1"), "user_ids", "of type bytearray"),
    ("user_ids", memoryview(b"ou_1"), "user_ids", "of type memoryview"),
    ("user_ids", {"ou_1": 1}, "user_ids", "of type dict"),
    ("user_ids", os.environ, "user_ids", "of type _Environ"),
    ("user_ids", 3.5, "user_ids", "3.5 of type float"),
    ("user_ids", Odd(), "user_ids", "of type Odd"),
    ("user_ids", [], "user_ids", "empty"),
    ("user_ids", iter(()), "user_ids", "empty"),
    ("user_ids", ["ou_1", 2], "user_ids[1]", "2 of type int"),
    ("user_ids", ["ou_1", None], "user_ids[1]", "None"),
    ("user_ids", [["ou_1"]], "user_ids[0]", "of type list"),
    ("user_ids", [b"ou_1"], "user_ids[0]", "of type bytes"),
    ("user_ids", [SURROGATE], "user_ids[0]", "surrogates"),
    ("user_ids", ["ou_1", "on_2"], "user_ids[1]", "starts with `ou_`"),
    ("time_sensitive", 1, "time_sensitive", "1 of type int; expected True or False"),
    ("time_sensitive", 0, "time_sensitive", "expected True or False"),
    ("time_sensitive", "true", "time_sensitive", "'true' of type str"),
    ("time_sensitive", None, "time_sensitive", "None"),
    ("user_id_type", "openid", "user_id_type", "`open_id`, `union_id` or `user_id`"),
    ("user_id_type", None, "user_id_type", "None"),
    ("user_id_type", 7, "user_id_type", "7 of type int"),
    ("timeout", 0, "timeout", "positive"),
    ("timeout", -1.0, "timeout", "positive"),
    ("timeout", float("nan"), "timeout", "positive"),
    ("timeout", float("inf"), "timeout", "finite"),
    ("timeout", 10**400, "timeout", "finite"),
    ("timeout", True, "timeout", "True of type bool; expected a number of seconds"),
    ("timeout", "5", "timeout", "'5' of type str"),
    ("timeout", decimal.Decimal(5), "timeout", "of type Decimal"),
    ("timeout", datetime.timedelta(seconds=5), "timeout", "of type timedelta"),
]

OPTIONS: list[tuple[str, Any, str, str]] = [
    ("app_id", 1, "app_id", "1 of type int"),
    ("app_id", "", "app_id", "empty"),
    ("app_id", SURROGATE, "app_id", "surrogates"),
    ("app_secret", 1, "app_secret", "of type int; expected a str"),
    ("tenant_key", b"", "tenant_key", "of type bytes"),
    ("app_ticket", [], "app_ticket", "of type list"),
    ("tenant_access_token", {}, "tenant_access_token", "of type dict"),
    ("token_provider", "t-1", "token_provider", "'t-1' of type str; expected a function"),
    ("base_url", 1, "base_url", "1 of type int"),
    ("base_url", "ftp://host", "base_url", "a URL like"),
    ("base_url", "http://example.com", "base_url", "allow_http"),
    ("allow_http", "yes", "allow_http", "True or False"),
    ("proxy", 8080, "proxy", "of type int"),
    ("proxy", True, "proxy", "False for no proxy"),
    ("proxy", "user:password@host", "proxy", "not a proxy's URL"),
    ("ca_certs", 1, "ca_certs", "the path of a file"),
    ("ca_certs", "/nowhere/ca.pem", "ca_certs", "/nowhere/ca.pem"),
    ("user_agent", "a\nb", "user_agent", "printable ASCII"),
    ("timeout", 0, "timeout", "positive"),
    ("timeout", False, "timeout", "False of type bool"),
    ("connect_timeout", "1", "connect_timeout", "a number of seconds"),
    ("attempt_timeout", -1, "attempt_timeout", "positive"),
    ("late_arrival", -1, "late_arrival", "positive"),
    ("late_arrival", float("nan"), "late_arrival", "finite"),
    ("max_retries", -1, "max_retries", "-1 of type int; expected a whole number, not negative"),
    ("max_retries", 1.0, "max_retries", "1.0 of type float"),
    ("max_retries", True, "max_retries", "True of type bool"),
    ("max_retries", 2**32, "max_retries", "a whole number"),
    ("max_users_per_request", 0, "max_users_per_request", "at least 1"),
    ("rate_limit", 50, "rate_limit", "a tuple of the calls per second and the calls per minute"),
    ("rate_limit", (50,), "rate_limit", "of type tuple"),
    ("rate_limit", "ab", "rate_limit", "'ab' of type str"),
    ("rate_limit", (50, "1000"), "rate_limit[1]", "'1000' of type str"),
    ("rate_limit", (0, 10), "rate_limit", "at least 1"),
    ("quota", object(), "quota", "of type object; expected another client's quota"),
]


def ids(table: list[tuple[str, Any, str, str]]) -> list[str]:
    """Test ids without the values, because `repr` of some raises."""
    return [f"{name}-{number}" for number, (name, *_) in enumerate(table)]


@pytest.mark.parametrize(("name", "value", "field", "words"), CALLS, ids=ids(CALLS))
def test_an_invalid_argument_of_a_call_is_refused(
    feishu_sandbox: Sandbox, name: str, value: Any, field: str, words: str
):
    arguments: dict[str, Any] = {
        "feed_card_id": feishu_sandbox.CHAT,
        "user_ids": [feishu_sandbox.USER],
        "time_sensitive": True,
        name: value,
    }
    with feishu_sandbox.client() as client, pytest.raises(InvalidInputError) as caught:
        client.set_time_sensitive(**arguments)
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: ")
    assert words in str(caught.value)
    assert len(str(caught.value)) < 300

    async def main() -> None:
        async with feishu_sandbox.async_client() as client:
            await client.set_time_sensitive(**arguments)

    if not hasattr(value, "__next__"):
        with pytest.raises(InvalidInputError) as caught_async:
            asyncio.run(main())
        assert str(caught_async.value) == str(caught.value)
    assert feishu_sandbox.request_count() == 0


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(("name", "value", "field", "words"), OPTIONS, ids=ids(OPTIONS))
def test_an_invalid_option_is_refused(kind: Any, name: str, value: Any, field: str, words: str):
    options: dict[str, Any] = {"app_id": "cli_1", "app_secret": "hidden-secret", name: value}
    if name in ("tenant_access_token", "token_provider"):
        del options["app_id"], options["app_secret"]
    with pytest.raises(InvalidInputError) as caught:
        kind(**options)
    assert caught.value.field == field
    assert words in str(caught.value)
    assert "hidden-secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["app_secret", "tenant_access_token", "app_ticket", "proxy"])
@pytest.mark.parametrize("value", [b"hidden-value", ["hidden-value"], "hidden-value\ud800"])
def test_a_secret_of_a_wrong_type_is_not_shown(name: str, value: Any):
    with pytest.raises(InvalidInputError) as caught:
        Client(**{"app_id": "cli_1", "app_secret": "s", name: value})
    assert "hidden-value" not in repr(caught.value)


@pytest.mark.parametrize(
    ("call", "field", "words"),
    [
        (
            lambda c: c.set_time_sensitive("oc_1", ["ou_1"], True, tiemout=1),
            "tiemout",
            "one of feed_card_id, ",
        ),
        (lambda c: c.set_time_sensitive("oc_1", ["ou_1"]), "time_sensitive", "missing"),
        (lambda c: c.set_time_sensitive(), "feed_card_id", "missing"),
        (lambda c: c.set_time_sensitive("oc_1", ["ou_1"], True, "open_id"), "user_id_type", "4 positional"),
        (lambda c: c.set_time_sensitive("oc_1", ["ou_1"], True, user_ids=[]), "user_ids", "given twice"),
        (lambda c: c.set_bot_time_sensitive(["ou_1"]), "time_sensitive", "missing"),
        (lambda c: c.set_app_ticket(), "app_ticket", "missing"),
        (lambda c: c.set_app_ticket(5), "app_ticket", "of type int"),
    ],
)
def test_a_call_with_a_wrong_signature_is_refused(call: Any, field: str, words: str):
    for client in (Client("cli_1", "secret"), AsyncClient("cli_1", "secret")):
        with pytest.raises(InvalidInputError) as caught:
            made = call(client)
            made.send(None)
        assert caught.value.field == field
        assert words in str(caught.value)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_an_unknown_option_is_refused(kind: Any):
    with pytest.raises(InvalidInputError) as caught:
        kind("cli_1", "secret", retries=3)
    assert caught.value.field == "retries"
    assert "max_retries" in str(caught.value)
    with pytest.raises(InvalidInputError) as caught:
        kind("cli_1", "secret", "token")
    assert caught.value.field == "tenant_access_token"
    with pytest.raises(InvalidInputError) as caught:
        kind.from_env(retries=None)
    assert caught.value.field == "retries"


class Raising:
    """An argument whose methods raise a given exception."""

    def __init__(self, exception: BaseException) -> None:
        self.exception = exception

    def __iter__(self) -> Any:
        raise self.exception

    def __fspath__(self) -> str:
        raise self.exception


class RaisingLength(list[Any]):
    def __len__(self) -> int:
        raise KeyboardInterrupt


class RaisingKeys:
    @property
    def keys(self) -> Any:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    "exception",
    [ConnectionError("the database is down"), TypeError("a bug"), KeyboardInterrupt(), SystemExit()],
)
def test_an_exception_of_an_iterable_is_raised_unchanged(feishu_sandbox: Sandbox, exception: BaseException):
    value: Any = Raising(exception)
    request: Any = {"feed_card_id": feishu_sandbox.CHAT, "user_ids": value, "time_sensitive": True}
    with feishu_sandbox.client() as client:
        for call in (
            lambda: client.set_time_sensitive(feishu_sandbox.CHAT, value, True),
            lambda: client.set_time_sensitive_many(value),
            lambda: next(client.set_time_sensitive_many([request])),
        ):
            with pytest.raises(type(exception)) as caught:
                call()
            assert caught.value is exception


def test_an_interrupt_during_the_check_of_an_argument_is_raised(feishu_sandbox: Sandbox):
    with feishu_sandbox.client() as client:
        for call in (
            lambda: client.set_time_sensitive(feishu_sandbox.CHAT, RaisingLength(), True),
            lambda: client.set_time_sensitive_many(RaisingLength()),
            lambda: client.set_time_sensitive_many(RaisingKeys()),  # type: ignore[arg-type]
            lambda: Client("cli_1", "secret", ca_certs=Raising(KeyboardInterrupt())),
        ):
            with pytest.raises(KeyboardInterrupt):
                call()


def test_late_arrival_may_be_zero():
    Client("cli_1", "secret", late_arrival=0).close()


def test_subclasses_of_builtin_types_are_accepted(feishu_sandbox: Sandbox):
    class Id(str):
        __slots__ = ()

    class Seconds(float):
        pass

    with feishu_sandbox.client(timeout=Seconds(5)) as client:
        assert client.set_time_sensitive(Id(feishu_sandbox.CHAT), [Id(feishu_sandbox.USER)], True).ok


@pytest.mark.parametrize(
    "wrong", [{"feed_card_id": 1}, {"time_sensitive": 1}, {"timeout": "5"}, {"user_id_type": "openid"}]
)
def test_the_ids_of_a_call_with_an_invalid_argument_are_not_attempted(wrong: dict[str, Any]):
    arguments = {
        "feed_card_id": "oc_1",
        "user_ids": ["ou_1", "ou_2", "ou_1"],
        "time_sensitive": True,
        **wrong,
    }
    with Client("cli_1", "secret") as client, pytest.raises(InvalidInputError) as caught:
        client.set_time_sensitive(**arguments)
    assert caught.value.not_attempted == ("ou_1", "ou_2")
    with pytest.raises(InvalidInputError) as caught:
        asyncio.run(AsyncClient("cli_1", "secret").set_time_sensitive(**arguments))
    assert caught.value.not_attempted == ("ou_1", "ou_2")


def test_signatures_list_all_options():
    for client in (Client, AsyncClient):
        signature = inspect.signature(client.__init__)
        assert {*signature.parameters} - {"self"} == {*CLIENT_OPTIONS}
    assert ClientOptions.__annotations__.keys() == {*CLIENT_OPTIONS}


@pytest.mark.parametrize("name", CLIENT_OPTIONS)
def test_every_option_checks_its_type(name: str):
    with pytest.raises(InvalidInputError) as caught:
        Client(**{name: object()})
    assert caught.value.field == name


@pytest.mark.parametrize("is_async", [False, True])
def test_the_error_of_a_refused_call_has_its_user_ids(feishu_sandbox: Sandbox, is_async: bool):
    ids, chat = ["ou_1", "ou_2", "ou_1"], feishu_sandbox.CHAT
    client: Any = feishu_sandbox.async_client() if is_async else feishu_sandbox.client()

    def refusal(method: str, *args: Any, **kwargs: Any) -> Any:
        with pytest.raises(InvalidInputError) as caught:
            end = getattr(client, method)(*args, **kwargs)
            asyncio.run(end)
        return caught.value

    group, bot = "set_time_sensitive", "set_bot_time_sensitive"
    for error, field in (
        (refusal(group, chat, ids), "time_sensitive"),
        (refusal(group, user_ids=ids, time_sensitive=True), "feed_card_id"),
        (refusal(group, chat, ids, True, time_out=5), "time_out"),
        (refusal(group, chat, tuple(ids), True, time_sensitive=True), "time_sensitive"),
        (refusal(group, chat, ids, True, "open_id"), "user_id_type"),
        (refusal(group, chat, user_ids=ids, time_sensitive=1), "time_sensitive"),
        (refusal(bot, ids), "time_sensitive"),
        (refusal(bot, ids, True, time_out=5), "time_out"),
        (refusal(bot, time_sensitive=True, user_ids=ids, feed_card_id=chat), "feed_card_id"),
        (refusal(bot, ids, "yes"), "time_sensitive"),
        (refusal(group, chat, ["ou_1", 5, "ou_2"], True), "user_ids[1]"),
        (refusal(bot, (i for i in ["ou_1", "ou_2", None, "ou_3"]), True), "user_ids[2]"),
    ):
        assert (error.field, error.not_attempted) == (field, ("ou_1", "ou_2")), field
    assert refusal(group, chat, {"ou_1"}).not_attempted == ("ou_1",)
    assert refusal(group, chat, "ou_1", True).not_attempted == ("ou_1",)
    assert refusal(bot, "ou_1").not_attempted == ("ou_1",)
    # An iterator is not consumed, so the caller can still read it.
    unread = iter(ids)
    assert refusal(bot, unread).not_attempted == ()
    assert list(unread) == ids
    assert refusal(group, chat, time_sensitive=True).not_attempted == ()
    assert refusal(group, chat, {"ou_1": 1}).not_attempted == ()
    assert feishu_sandbox.request_count() == 0


def test_the_error_of_a_refused_request_of_many_has_its_user_ids(feishu_sandbox: Sandbox):
    ids, chat = ["ou_1", "ou_2"], feishu_sandbox.CHAT
    requests: Any = [
        {"user_ids": ids, "time_sensitive": True},
        {"feed_card_id": chat, "user_ids": ids},
        {"feed_card_id": chat, "user_ids": ids, "time_sensitive": True, "time_out": 5},
        {"feed_card_id": chat, "user_ids": ["ou_1", 5, "ou_2"], "time_sensitive": True},
        {"feed_card_id": chat, "user_ids": "ou_1", "time_sensitive": True},
        {"feed_card_id": chat, "time_sensitive": True},
    ]
    with feishu_sandbox.client() as client:
        items = sorted(client.set_time_sensitive_many(requests), key=lambda item: item.index)
    errors: Any = [item.error for item in items]
    assert [error.kind for error in errors] == ["INVALID_INPUT"] * 6
    assert [error.not_attempted for error in errors] == [("ou_1", "ou_2")] * 4 + [("ou_1",), ()]
