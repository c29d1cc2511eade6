"""Results can be stored, sent and compared."""

from __future__ import annotations

import copy
import gc
import json
import logging
import pickle
import weakref

import pytest

from feishu_feed_card import (
    FailedUserReason,
    FeedCardError,
    FieldViolation,
    Item,
    Outcome,
    PartialFailureError,
    PermissionDeniedError,
    PermissionViolation,
    Progress,
    RateLimitedError,
    Report,
    Unfinished,
)
from feishu_feed_card.sandbox import Sandbox
from scripts import prints

REQUEST = {"feed_card_id": "oc_1", "user_ids": ("ou_1",), "time_sensitive": True}
REASON = FailedUserReason(0, "not in the chat", "ou_2")
OUTCOME = Outcome([REASON], ["log"], 2, ["ou_1"], ["ou_2"], ["ou_3"], ["ou_4"], 7)
ITEM = Item(3, REQUEST, OUTCOME)
STOPPED = Unfinished(4, REQUEST, unknown=["ou_1"])
RECORDS = [
    REASON,
    OUTCOME,
    PermissionViolation("scope", "im:x"),
    FieldViolation("user_ids", "1", "too long"),
    ITEM,
    Item(1, REQUEST, error=RateLimitedError("wait", retry_after=1.5)),
    Progress(3, 4, 0, 1, 0.5),
    STOPPED,
    Report(3, 1, 1, [ITEM], [STOPPED]),
    Item(1, REQUEST, OUTCOME, tag=("row", 7)),
    Unfinished(4, REQUEST, tag="row"),
    Report(3, 1, 1, [ITEM], [STOPPED], [ITEM], 2000),
    Report(0, 0, 0, not_read=None),
]


@pytest.mark.parametrize("record", RECORDS, ids=repr)
def test_a_record_can_be_pickled_copied_and_rebuilt(record: Outcome):
    for back in (pickle.loads(pickle.dumps(record)), copy.copy(record), copy.deepcopy(record)):
        assert type(back) is type(record)
        assert back == record
        assert repr(back) == repr(record)
    assert type(record).__module__ == "feishu_feed_card"
    values = [getattr(record, name) for name in type(record).__match_args__]
    assert type(record)(*values) == record
    assert record != values[0]
    with pytest.raises(AttributeError):
        setattr(record, type(record).__match_args__[0], 1)


def test_records_are_hashed_by_their_fields():
    assert len({OUTCOME, pickle.loads(pickle.dumps(OUTCOME)), Outcome()}) == 2
    assert hash(Progress(1, None, 0, 0, None)) == hash(Progress(1, None, 0, 0, None))
    with pytest.raises(TypeError, match="unhashable"):
        hash(ITEM)  # of a request that is a dict


def test_lists_of_records_are_tuples():
    outcome = Outcome(reached=(user for user in ["ou_1"]), log_ids={"log"})
    assert (outcome.reached, outcome.log_ids) == (("ou_1",), ("log",))
    assert isinstance(Report(0, 0, 0, [ITEM]).unread, tuple)
    with pytest.raises(TypeError):
        Outcome(reached=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        FailedUserReason("0")  # type: ignore[arg-type]


def test_records_can_be_used_in_match_statements():
    match ITEM:
        case Item(3, _, Outcome(ok=False, failed_user_reasons=(FailedUserReason(code, _, user),))):
            assert (code, user) == (0, "ou_2")
        case _:
            pytest.fail("no match")


def test_an_outcome_as_json():
    outcome = OUTCOME.to_dict()
    assert json.loads(json.dumps(outcome)) == outcome
    assert outcome == {
        "ok": False,
        "log_id": "log",
        "failed_user_reasons": [{"error_code": 0, "error_message": "not in the chat", "user_id": "ou_2"}],
        "log_ids": ["log"],
        "requests": 2,
        "reached": ["ou_1"],
        "failed": ["ou_2"],
        "unknown": ["ou_3"],
        "not_attempted": ["ou_4"],
        "call": 7,
    }
    assert Outcome().to_dict().keys().isdisjoint({"log_id", "call"}), "what is not known is left out"


def test_a_report_as_json():
    requests = (user for user in ["ou_1"])
    report = Report(2, 0, 1, [Item(0, {**REQUEST, "user_ids": {"ou_1"}}, error=RateLimitedError("wait"))], [])
    data = report.to_dict()
    assert json.loads(json.dumps(data)) == data
    item = data["unread"][0]
    assert item["request"]["user_ids"] == ["ou_1"]
    assert item["error"]["kind"] == "RATE_LIMITED"
    assert "outcome" not in item
    assert "generator" in Item(0, {**REQUEST, "user_ids": requests}).to_dict()["request"]["user_ids"]
    assert Progress(1, None, 0, 0, None).to_dict() == {"done": 1, "failed": 0, "waiting_for_quota": 0}


def test_a_report_as_text():
    report = Report(12_345, 11_000, 1_344, unfinished=[STOPPED], not_read=1_000_000)
    assert str(report) == "12,345 taken: 11,000 succeeded, 1,344 failed, 1 unfinished; 1,000,000 not read"
    assert f"{Report(0, 0, 0, not_read=None)}".endswith("; an unknown number not read")
    assert "not_read" not in Report(0, 0, 0, not_read=None).to_dict()


def test_an_error_as_json():
    error = PermissionDeniedError(
        "the scope is missing",
        msg="Access denied",
        platform_code=99991672,
        call=7,
        permission_violations=[PermissionViolation("scope", "im:x")],
        outcome=OUTCOME,
    )
    error.__cause__ = ValueError("why")
    error.__cause__.__cause__ = KeyError()
    data = error.to_dict()
    assert json.loads(json.dumps(data)) == data
    assert data == {
        "type": "PermissionDeniedError",
        "kind": "PERMISSION_DENIED",
        "message": "the scope is missing",
        "retryable": False,
        "attempts": 0,
        "platform_code": 99991672,
        "platform_msg": "Access denied",
        "call": 7,
        "permission_violations": [{"type": "scope", "subject": "im:x"}],
        "outcome": OUTCOME.to_dict(),
        "causes": ["why", "KeyError"],
    }
    error.__cause__ = error
    assert len(error.to_dict()["causes"]) == 10


def test_outcomes_and_errors_have_the_number_of_their_call(
    feishu_sandbox: Sandbox, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG, "feishu_feed_card")
    with feishu_sandbox.client() as client:
        first = client.set_time_sensitive(feishu_sandbox.CHAT, [feishu_sandbox.USER], True)
        second = client.set_time_sensitive(feishu_sandbox.CHAT, [feishu_sandbox.OUTSIDER], True)
        with pytest.raises(FeedCardError) as refused:
            client.set_time_sensitive("oc_nowhere", [feishu_sandbox.USER], True)
        with pytest.raises(FeedCardError) as wrong:
            client.set_time_sensitive("", [feishu_sandbox.USER], True)
        pin = {"feed_card_id": feishu_sandbox.CHAT, "user_ids": [feishu_sandbox.USER], "time_sensitive": True}
        numbers = [item.outcome.call for item in client.set_time_sensitive_many([pin, pin])]
    calls = [first.call, second.call, refused.value.call, *numbers]
    assert all(isinstance(call, int) for call in calls)
    assert len(set(calls)) == 5
    assert wrong.value.call is None
    with pytest.raises(PartialFailureError) as failed:
        second.raise_for_failed()
    assert failed.value.call == second.call
    assert pickle.loads(pickle.dumps(failed.value)).call == second.call


def test_an_item_in_a_cycle_is_collected():
    class Requests(dict):  # type: ignore[type-arg]
        """A request with weak references."""

    request = Requests(REQUEST)
    request["self"] = Item(0, request)  # type: ignore[arg-type]
    watched = weakref.ref(request)
    del request
    gc.collect()
    assert watched() is None


def test_a_request_that_contains_itself_is_a_recursion_error():
    def in_itself() -> Item:
        request = dict(REQUEST)
        request["self"] = item = Item(0, request)  # type: ignore[arg-type]
        return item

    ids: list[object] = []
    ids.append(ids)
    for item in (in_itself(), Item(0, {**REQUEST, "user_ids": ids})):  # type: ignore[typeddict-item]
        with pytest.raises(RecursionError):
            item.to_dict()
    with pytest.raises(RecursionError):
        assert in_itself() == in_itself()
    assert "{...}" in repr(in_itself())
    assert ITEM.to_dict()["index"] == 3


def test_a_second_import_of_the_package_raises_its_own_error_classes():
    prints(
        """
        import sys
        from feishu_feed_card.sandbox import Sandbox

        def imported():
            for name in [name for name in sys.modules if name.split(".")[0] == "feishu_feed_card"]:
                del sys.modules[name]
            import feishu_feed_card
            return feishu_feed_card

        def raised(call):
            try:
                call()
            except Exception as error:
                return type(error)

        def kinds(package, client, outcome):
            pin = {"feed_card_id": "oc_1", "user_ids": [], "time_sensitive": True}
            return [
                raised(lambda: package.Client(timeout="1")),
                raised(lambda: package.Client("cli_1", "secret", no_option=1)),
                raised(lambda: client.set_time_sensitive("oc_1", [1], True)),
                raised(lambda: client.set_time_sensitive("oc_1", ["ou_1"])),
                raised(lambda: client.set_time_sensitive("oc_nowhere", [sandbox.USER], True)),
                raised(lambda: client.set_time_sensitive_many(1)),
                type(next(client.set_time_sensitive_many([pin])).error),
                type(next(client.set_time_sensitive_many([1])).error),
                raised(outcome.raise_for_failed),
                raised(lambda: client.set_app_ticket("ticket")),
            ]

        sandbox = Sandbox()
        packages = [imported(), imported()]
        assert packages[0].FeedCardError is not packages[1].FeedCardError
        app = ("cli_example", "example-secret")
        clients = [package.Client(*app, base_url=sandbox.base_url) for package in packages]
        outcomes = [client.set_time_sensitive(sandbox.CHAT, [sandbox.OUTSIDER], True) for client in clients]
        for package, client, outcome in zip(packages, clients, outcomes):
            for kind in kinds(package, client, outcome):
                assert issubclass(kind, package.FeedCardError), (kind, kind.__mro__)

        async def main():
            for package in packages:
                async with package.AsyncClient("cli_1", "secret", base_url=sandbox.base_url) as client:
                    try:
                        await client.set_time_sensitive("oc_1", ["ou_1"], True)
                    except package.AuthenticationError as error:
                        print(error.kind)

        import asyncio
        asyncio.run(main())
        """,
        "AUTHENTICATION\nAUTHENTICATION",
    )
