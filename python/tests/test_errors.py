"""Errors and outcomes: classes, equality, `repr`, pickling."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import re

import pytest

import feishu_feed_card
from feishu_feed_card import (
    Client,
    ConnectionFailedError,
    DeadlineExceededError,
    FailedUserReason,
    FeedCardError,
    FieldViolation,
    InvalidInputError,
    Outcome,
    PartialFailureError,
    PermissionDeniedError,
    PermissionViolation,
    RateLimitedError,
)
from feishu_feed_card._errors import CLASSES
from feishu_feed_card._native import ERROR_KINDS
from feishu_feed_card.sandbox import Sandbox

WHOLE = PermissionDeniedError(
    "the scope is missing",
    field="x",
    platform_code=99991672,
    msg="Access denied",
    http_status=400,
    log_id="2024",
    retryable=True,
    retry_after=1.5,
    attempts=2,
    call=7,
    station="answer",
    reason="closed",
    hint="Add the scope",
    permission_violations=[PermissionViolation("scope", "im:x")],
    field_violations=[FieldViolation("user_ids", "1", "too long")],
    reached=["ou_1"],
    failed=["ou_2"],
    unknown=["ou_3"],
    not_attempted=["ou_4"],
    outcome=Outcome(reached=["ou_1"]),
)


def test_there_is_a_class_for_each_kind():
    assert tuple(CLASSES) == ERROR_KINDS
    for kind, cls in CLASSES.items():
        assert issubclass(cls, FeedCardError)
        assert getattr(feishu_feed_card, cls.__name__) is cls
        assert cls.kind == kind
        assert cls.__module__ == "feishu_feed_card"
        error = cls("why")
        assert str(error) == "why"
        assert error.args == ("why",)


def test_errors_are_subclasses_of_builtin_exceptions():
    assert issubclass(InvalidInputError, ValueError)
    assert issubclass(ConnectionFailedError, ConnectionError)
    assert issubclass(DeadlineExceededError, TimeoutError)
    error = ConnectionFailedError("refused", attempts=3)
    assert isinstance(error, OSError)
    assert str(error) == "refused"
    assert error.attempts == 3


@pytest.mark.parametrize("cls", [FeedCardError, *CLASSES.values()])
def test_an_error_can_be_pickled_and_copied(cls: type[FeedCardError]):
    error = cls("why", attempts=2, failed=["ou_1"], outcome=Outcome(requests=1))
    for back in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(back) is cls
        assert back == error
        assert vars(back) == vars(error)
        assert str(back) == "why"


def test_pickling_keeps_every_attribute_of_an_error():
    back = pickle.loads(pickle.dumps(WHOLE))
    assert back == WHOLE
    assert vars(back) == vars(WHOLE)
    assert all(value not in (None, ()) for value in vars(back).values())


def test_errors_are_equal_by_class_message_and_attributes():
    assert FeedCardError("a") == FeedCardError("a")
    assert FeedCardError("a") != FeedCardError("b")
    assert FeedCardError("a") != FeedCardError("a", attempts=1)
    assert FeedCardError("a") != InvalidInputError("a")
    assert FeedCardError("a") != "a"
    assert len({FeedCardError("a"), FeedCardError("a")}) == 1


def test_reprs_are_readable():
    assert repr(RateLimitedError("wait", retry_after=1.5, retryable=True)) == (
        "RateLimitedError('wait', retryable=True, retry_after=1.5)"
    )
    assert repr(Outcome(reached=["ou_1"], requests=1)).startswith(
        "Outcome(failed_user_reasons=(), log_ids=(), "
    )
    assert repr(FailedUserReason(0, "not in the chat", "ou_1")) == (
        "FailedUserReason(error_code=0, error_message='not in the chat', user_id='ou_1')"
    )


def test_outcomes_are_immutable():
    outcome = Outcome(reached=["ou_1"], requests=1)
    with pytest.raises(AttributeError, match="not writable"):
        outcome.requests = 2  # type: ignore[misc]
    with pytest.raises(AttributeError):
        outcome.other = 2  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        del outcome.requests
    assert outcome == Outcome(reached=("ou_1",), requests=1)
    assert hash(outcome) == hash(Outcome(reached=("ou_1",), requests=1))
    assert outcome != Outcome(reached=("ou_2",), requests=1)
    assert outcome != "outcome"
    for back in (pickle.loads(pickle.dumps(outcome)), copy.deepcopy(outcome)):
        assert back == outcome


def test_raise_for_failed_raises_an_error_with_the_outcome(feishu_sandbox: Sandbox):
    with feishu_sandbox.client() as client:
        outcome = client.set_time_sensitive(
            feishu_sandbox.CHAT, [feishu_sandbox.USER, feishu_sandbox.OUTSIDER], True
        )
    assert not outcome.ok
    with pytest.raises(PartialFailureError) as caught:
        pickle.loads(pickle.dumps(outcome)).raise_for_failed()
    error = caught.value
    assert error.outcome == outcome
    assert error.reached == (feishu_sandbox.USER,)
    assert error.failed == (feishu_sandbox.OUTSIDER,)
    assert error.log_id == outcome.log_id
    assert str(error).startswith("1 of 2 users were not reached")
    assert pickle.loads(pickle.dumps(error)) == error


def in_a_process(base_url: str) -> None:
    """Raises an error of the package."""
    Client("cli_example", "wrong", base_url=base_url).set_bot_time_sensitive(["ou_1"], True)


def test_an_error_comes_back_from_another_process(feishu_sandbox: Sandbox):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        with pytest.raises(feishu_feed_card.AuthenticationError) as caught:
            pool.apply_async(in_a_process, (feishu_sandbox.base_url,)).get(30)
    assert caught.value.platform_code == 10014
    assert caught.value.not_attempted == ("ou_1",)


def test_a_secret_echoed_by_the_platform_is_masked(feishu_sandbox: Sandbox):
    secret = "very-secret-value"
    echo = f'{{"code": 10014, "msg": "bad secret {secret}"}}'
    feishu_sandbox.faults([{"on": "token", "body": echo, "status": 200, "times": 0}])
    with Client("cli_1", secret, base_url=feishu_sandbox.base_url) as client:
        with pytest.raises(FeedCardError) as caught:
            client.set_bot_time_sensitive(["ou_1"], True)
        assert secret not in repr(client)
    assert "[secret]" in str(caught.value)
    for shown in (
        str(caught.value),
        repr(caught.value),
        repr(vars(caught.value)),
        pickle.dumps(caught.value),
    ):
        assert secret not in str(shown)


def test_a_refused_connection_has_a_reason(feishu_sandbox: Sandbox):
    feishu_sandbox.close()
    with feishu_sandbox.client(max_retries=0) as client, pytest.raises(ConnectionError) as caught:
        client.set_bot_time_sensitive(["ou_1"], True)
    assert isinstance(caught.value, ConnectionFailedError)
    assert caught.value.retryable
    assert caught.value.reason == "refused"
    assert "reason='refused'" in repr(caught.value)
    # The message has the system's own description, in any wording.
    assert re.match(r"no connection \(.*\): .+ \(reason refused, station ", str(caught.value))
    assert caught.value.not_attempted == ("ou_1",)
