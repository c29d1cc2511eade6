"""Requests, arguments and items of `set_time_sensitive_many`."""

from __future__ import annotations

import gc
import pickle
import weakref
from collections import UserDict
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest

from feishu_feed_card import (
    AsyncClient,
    Client,
    FeedCardError,
    InvalidInputError,
    Progress,
    RejectedError,
    Report,
    Request,
)
from feishu_feed_card.sandbox import Sandbox
from many_players import PIN, asynchronously, play

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.mark.parametrize("concurrency", [None, 1, 7, 10_000])
def test_each_request_has_one_item(player: Callable[..., Any], sandbox: Sandbox, concurrency: int | None):
    requests = [dict(PIN) for _ in range(300)]
    items, report = player((request for request in requests), concurrency=concurrency)
    assert sorted(item.index for item in items) == list(range(300))
    for item in items:
        assert item.request is requests[item.index], "the same object"
        assert item.error is None
        assert item.outcome is not None
        assert item.outcome.reached == (sandbox.USER,)
    assert report == Report(taken=300, succeeded=300, failed=0)
    assert sandbox.token_fetches() == 1


def test_no_requests_have_no_items(player: Callable[..., Any]):
    reported: list[Progress] = []
    assert player([], progress=reported.append) == ([], Report(0, 0, 0))
    assert reported
    assert reported[-1].done == 0


def test_a_failed_request_does_not_stop_the_others(player: Callable[..., Any], sandbox: Sandbox):
    items, report = player([PIN, {**PIN, "feed_card_id": "oc_nowhere"}, PIN, {**PIN, "user_ids": ["ou_no"]}])
    errors = {item.index: item.error for item in items}
    assert errors[0] is errors[2] is None
    assert isinstance(errors[1], RejectedError)
    assert errors[1].platform_code == 232006
    assert (report.taken, report.succeeded, report.failed) == (4, 2, 2)


def test_requests_may_be_any_mapping_with_optional_keys(player: Callable[..., Any], sandbox: Sandbox):
    union_id = "on_" + sandbox.USER[3:]
    sandbox.put_user({"open_id": sandbox.USER, "union_id": union_id})
    items, _ = player(
        [
            UserDict(PIN),
            {**PIN, "user_ids": [union_id], "user_id_type": "union_id", "timeout": 5},
            {**PIN, "user_ids": (user for user in [sandbox.USER]), "timeout": None},
        ]
    )
    assert [(item.index, item.error) for item in sorted(items, key=lambda item: item.index)] == [
        (0, None),
        (1, None),
        (2, None),
    ]


class Id(str):
    """A subclass of `str`."""

    __slots__ = ()


@pytest.mark.parametrize(
    "user_ids",
    [
        lambda: [Sandbox.USER],
        lambda: (Sandbox.USER,),
        lambda: [Sandbox.USER, Sandbox.USER],
        lambda: [Id(Sandbox.USER)],
        lambda: {Sandbox.USER},
        lambda: (user for user in [Sandbox.USER]),
    ],
    ids=["list", "tuple", "repeated", "subclass", "set", "generator"],
)
def test_the_reached_ids_are_those_that_were_sent(player: Callable[..., Any], user_ids: Callable[[], Any]):
    handed_in = [user_ids() for _ in range(3)]

    def requests() -> Iterator[Any]:
        for ids in handed_in:
            yield {**PIN, "user_ids": ids}
            if isinstance(ids, list):
                ids[:] = ["ou_changed", "ou_later"]

    items, _ = player(requests())
    for item in items:
        assert item.outcome.reached == (Sandbox.USER,)
        assert type(item.outcome.reached[0]) is str


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (3, "request"),
        (None, "request"),
        ("oc_1", "request"),
        ({}, "user_ids"),
        ({"user_ids": [Sandbox.USER], "time_sensitive": True}, "feed_card_id"),
        ({"feed_card_id": Sandbox.CHAT, "time_sensitive": True}, "user_ids"),
        ({**PIN, "feed_card_id": b"oc_1"}, "feed_card_id"),
        ({**PIN, "feed_card_id": "nowhere"}, "feed_card_id"),
        ({**PIN, "user_ids": "ou_1"}, "user_ids"),
        ({**PIN, "user_ids": [1]}, "user_ids[0]"),
        ({**PIN, "user_ids": []}, "user_ids"),
        ({**PIN, "time_sensitive": 1}, "time_sensitive"),
        ({**PIN, "user_id_type": "openid"}, "user_id_type"),
        ({**PIN, "timeout": 0}, "timeout"),
        ({**PIN, "timeout": "5"}, "timeout"),
        ({**PIN, "priority": 1}, "priority"),
        ({**PIN, 1: 1}, "a request's key"),
    ],
)
def test_an_invalid_request_is_the_error_of_its_item(player: Callable[..., Any], request_: Any, field: str):
    items, report = player([PIN, request_, PIN])
    items.sort(key=lambda item: item.index)
    assert [item.error is None for item in items] == [True, False, True]
    assert items[1].request is request_
    assert items[1].outcome is None
    assert isinstance(items[1].error, InvalidInputError)
    assert items[1].error.field == field
    if isinstance(request_, dict) and request_.get("user_ids") == [Sandbox.USER]:
        assert items[1].error.not_attempted == (Sandbox.USER,)
    assert (report.taken, report.succeeded, report.failed) == (3, 2, 1)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"requests": 3}, "requests"),
        ({"requests": "oc_1"}, "requests"),
        ({"requests": PIN}, "requests"),
        ({"requests": [], "concurrency": 0}, "concurrency"),
        ({"requests": [], "concurrency": 1.5}, "concurrency"),
        ({"requests": [], "concurrency": True}, "concurrency"),
        ({"requests": [], "total_timeout": 0}, "total_timeout"),
        ({"requests": [], "total_timeout": float("nan")}, "total_timeout"),
        ({"requests": [], "progress": 1}, "progress"),
        ({"requests": [], "workers": 1}, "workers"),
        ({}, "requests"),
    ],
)
def test_an_invalid_argument_is_refused(
    client: Client, async_client: AsyncClient, arguments: Any, field: str
):
    for one in (client, async_client):
        with pytest.raises(InvalidInputError) as caught:
            one.set_time_sensitive_many(**arguments)
        assert caught.value.field == field


def test_a_blocking_client_refuses_an_async_iterable(client: Client):
    with pytest.raises(InvalidInputError) as caught:
        client.set_time_sensitive_many(asynchronously([PIN]))  # type: ignore[arg-type]
    assert caught.value.field == "requests"


def test_items_and_reports_can_be_pickled(client: Client):
    items, report = play(client, [{**PIN, "user_ids": ["ou_no"]}, None])
    assert pickle.loads(pickle.dumps(items)) == items
    assert pickle.loads(pickle.dumps(report)) == report
    assert repr(items[0]).startswith(f"Item(index={items[0].index}, request=")
    with pytest.raises(AttributeError, match="not writable"):
        items[0].index = 3  # type: ignore[misc]
    assert [isinstance(item.error, FeedCardError) for item in items] == [item.index == 1 for item in items]
    assert "Many, 0 done" in repr(client.set_time_sensitive_many([]))


class TestTag:
    """The `tag` of a request."""

    def test_each_kind_of_item_has_its_tag(self, player: Callable[..., Any]):
        tag = object()
        requests = [
            {**PIN, "tag": tag},
            {**PIN, "tag": None},
            PIN,
            {**PIN, "feed_card_id": "oc_nowhere", "tag": ["unhashable"]},
            {**PIN, "feed_card_id": "nowhere", "tag": 4},
            {**PIN, "timeout": "soon", "tag": 5},
            {"user_ids": 7, "tag": 6},
            UserDict({**PIN, "tag": 7}),
            "no request",
        ]
        items, report = player(iter(requests))
        items.sort(key=lambda item: item.index)
        assert [item.tag for item in items] == [tag, None, None, ["unhashable"], 4, 5, 6, 7, None]
        assert items[0].tag is tag
        assert list(report.failures) == [items[index] for index in (3, 4, 5, 6, 8)]
        assert all(failure is items[failure.index] for failure in report.failures)

    def test_a_tag_is_read_with_its_request(self, client: Client):
        def requests() -> Iterator[Request]:
            request = {**PIN}
            for row in range(5):
                request["tag"] = row
                yield request

        items, _ = client.set_time_sensitive_many(requests()).collect()
        assert [item.tag for item in items] == [0, 1, 2, 3, 4]

    def test_unfinished_requests_have_their_tag(self, client: Client, sandbox: Sandbox):
        sandbox.faults([{"on": "call", "delay_before_ms": 20_000, "times": 0}])

        def users() -> Iterator[str]:
            raise OSError("the list is gone")
            yield

        many = client.set_time_sensitive_many(
            [{**PIN, "tag": "row 1"}, {**PIN, "user_ids": users(), "tag": "row 2"}]
        )
        with pytest.raises(OSError, match="the list is gone"):
            next(many)
        assert [left.tag for left in many.report().unfinished] == ["row 1", "row 2"]

    def test_the_error_for_an_unknown_key_mentions_tag(self, client: Client):
        requests: list[Any] = [{**PIN, "row_id": 7, "tag": "mine"}]
        [item], _ = client.set_time_sensitive_many(requests).collect()
        assert isinstance(item.error, InvalidInputError)
        assert item.error.field == "row_id"
        assert str(item.error) == (
            "row_id: unknown key of a request; expected feed_card_id, user_ids, time_sensitive, "
            "user_id_type, timeout, or tag for any value of yours"
        )
        assert item.error.not_attempted == (Sandbox.USER,)
        assert item.tag == "mine"

    def test_a_tag_in_a_reference_cycle_is_collected(self, client: Client):
        tag = Mock()
        gone = weakref.ref(tag)
        many = client.set_time_sensitive_many([{**PIN, "user_ids": [], "tag": tag}])
        tag.many = many
        next(many)
        del many, tag
        gc.collect()
        assert gone() is None
