"""Plays a case: starts the sandbox, makes the client, runs the steps, checks what the sandbox received."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from feishu_feed_card import AsyncClient, Client, FeedCardError, Item, Outcome, Report, Unfinished
from feishu_feed_card.sandbox import Sandbox

from .case import check
from .compare import differences

if TYPE_CHECKING:
    from collections.abc import Iterator

    AnyClient: TypeAlias = Client | AsyncClient
    End: TypeAlias = Outcome | FeedCardError | None


class CaseFailedError(Exception):
    """A difference between the expected and the actual result."""


def play_blocking(case: dict[str, Any]) -> None:
    """Plays a case with `Client`. Calls made together run in threads."""
    check(case)
    with _stage(case) as (sandbox, options):
        client = _client(Client, options, case)
        if client is None:
            return
        with client:
            for index, step in enumerate(case["steps"]):
                calls = step.get("together", [step] if "call" in step else [])
                if "many" in step:
                    _judge_many(f"step {index}", step["many"], *_many_blocking(client, step["many"]))
                elif not calls:
                    _control(sandbox, index, step)
                elif len(calls) == 1:
                    _judge(f"step {index}", calls[0], _blocking(client, calls[0]))
                else:
                    for call, end in zip(calls, _in_threads(client, calls), strict=True):
                        _judge(f"step {index}", call, end)
        _check_seen(sandbox, options, case.get("seen", {}))


def play_async(case: dict[str, Any]) -> None:
    """Plays a case with `AsyncClient`. Calls made together run in tasks."""
    check(case)
    asyncio.run(_play_async(case))


async def _play_async(case: dict[str, Any]) -> None:
    with _stage(case) as (sandbox, options):
        client = _client(AsyncClient, options, case)
        if client is None:
            return
        async with client:
            for index, step in enumerate(case["steps"]):
                calls = step.get("together", [step] if "call" in step else [])
                if "many" in step:
                    _judge_many(f"step {index}", step["many"], *await _many_awaited(client, step["many"]))
                elif not calls:
                    _control(sandbox, index, step)
                ends = await asyncio.gather(*(_awaited(client, call) for call in calls))
                for call, end in zip(calls, ends, strict=True):
                    _judge(f"step {index}", call, end)
        _check_seen(sandbox, options, case.get("seen", {}))


class _Provider:
    """Returns its tokens in turn, then always the last one. Records the refused tokens."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.refused: list[str | None] = []

    def __call__(self, refused_token: str | None) -> str:
        self.refused.append(refused_token)
        return self.tokens[min(len(self.refused), len(self.tokens)) - 1]


@contextlib.contextmanager
def _stage(case: dict[str, Any]) -> Iterator[tuple[Sandbox, dict[str, Any]]]:
    with contextlib.ExitStack() as stack:
        try:
            sandbox = stack.enter_context(Sandbox(case.get("world"), https=case.get("https", False)))
            sandbox.faults(case.get("faults", []))
        except ValueError as error:
            raise CaseFailedError(f"no sandbox: {error}") from None
        base_url = sandbox.https_base_url or sandbox.base_url
        options: dict[str, Any] = {"app_id": sandbox.APP_ID, "app_secret": sandbox.APP_SECRET}
        if sandbox.ca_pem is not None:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            options["ca_certs"] = Path(folder, "ca.pem")
            options["ca_certs"].write_text(sandbox.ca_pem, encoding="utf-8")
        options.update(case.get("client", {}))
        options = {name: value for name, value in options.items() if value is not None}
        options["base_url"] = options.get("base_url", "{base_url}").replace("{base_url}", base_url)
        if "rate_limit" in options:
            options["rate_limit"] = tuple(options["rate_limit"])
        if "token_provider" in options:
            options["token_provider"] = _Provider(options["token_provider"])
        yield sandbox, options


def _client(kind: Any, options: dict[str, Any], case: dict[str, Any]) -> Any:
    """Makes the client. Returns None if the case expects this to fail."""
    new = case["steps"][0].get("new_client")
    try:
        client = kind(**options)
    except FeedCardError as error:
        if new is None:
            raise CaseFailedError(f"no client: {error}") from None
        _judge("making the client", new, error)
        return None
    if new is not None:
        _judge("making the client", new, None)
    return client


def _blocking(client: Client, step: dict[str, Any]) -> End:
    try:
        return getattr(client, step["call"])(**step["args"])  # type: ignore[no-any-return]
    except FeedCardError as error:
        return error


def _in_threads(client: Client, steps: list[dict[str, Any]]) -> list[End]:
    ends: list[End] = [None] * len(steps)

    def make(index: int) -> None:
        ends[index] = _blocking(client, steps[index])

    threads = [threading.Thread(target=make, args=(index,), daemon=True) for index in range(len(steps))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        if thread.is_alive():
            raise CaseFailedError("a call of a together step has not ended after 30 s")
    return ends


async def _awaited(client: AsyncClient, step: dict[str, Any]) -> End:
    try:
        name = "aclose" if step["call"] == "close" else step["call"]
        call = getattr(client, name)(**step["args"])
        return await call if asyncio.iscoroutine(call) else call
    except FeedCardError as error:
        return error


def _many_blocking(client: Client, step: dict[str, Any]) -> tuple[list[Item], Report, End]:
    items = []
    end = None
    with client.set_time_sensitive_many(step["requests"], **_options(step)) as many:
        if step.get("collect"):
            return *many.collect(), None
        try:
            for item in many:
                items.append(item)
                if len(items) == step.get("take"):
                    break
        except FeedCardError as error:
            end = error
    items.sort(key=lambda item: item.index)
    return items, many.report(), end


async def _many_awaited(client: AsyncClient, step: dict[str, Any]) -> tuple[list[Item], Report, End]:
    items = []
    end = None
    async with client.set_time_sensitive_many(step["requests"], **_options(step)) as many:
        if step.get("collect"):
            return *await many.collect(), None
        try:
            async for item in many:
                items.append(item)
                if len(items) == step.get("take"):
                    break
        except FeedCardError as error:
            end = error
    items.sort(key=lambda item: item.index)
    return items, await many.report(), end


def _options(step: dict[str, Any]) -> dict[str, Any]:
    return {name: step.get(name) for name in ("concurrency", "total_timeout")}


def _judge_many(place: str, step: dict[str, Any], items: list[Item], report: Report, end: End) -> None:
    came, due = [item.index for item in items], [item["index"] for item in step["items"]]
    if came != due:
        raise CaseFailedError(f"{place}: expected the items {due}, {came} came")
    for item, expected in zip(items, step["items"], strict=True):
        if "tag" in expected:
            _verdict(f"{place}, item {item.index}", differences(expected["tag"], item.tag), item.tag)
        _judge(f"{place}, item {item.index}", expected, item.error or item.outcome)
    _judge(f"{place}, end", {"raises": step["raises"]} if "raises" in step else {"returns": None}, end)
    if "report" in step:
        actual = _report_in_json(report)
        _verdict(f"{place}, report", differences(step["report"], actual), actual)


def _control(sandbox: Sandbox, index: int, step: dict[str, Any]) -> None:
    try:
        sandbox.control(**step["control"])
    except ValueError as error:
        raise CaseFailedError(f"step {index}: {error}") from None


def _judge(place: str, step: dict[str, Any], end: End) -> None:
    came = _error_in_json(end) if isinstance(end, FeedCardError) else _outcome_in_json(end)
    if "returns" in step and isinstance(end, FeedCardError):
        wrong = [f"expected it to return {step['returns']}, raised {end.kind}"]
    elif "returns" in step:
        wrong = differences(step["returns"], came)
    elif isinstance(end, FeedCardError):
        wrong = _wrong_with(end, step["raises"])
    else:
        wrong = [f"expected it to raise {step['raises']}"]
    _verdict(place, wrong, came)


def _wrong_with(error: FeedCardError, expected: dict[str, Any]) -> list[str]:
    expected = dict(expected)
    wrong = []
    for key, text in (("message_contains", str(error)), ("hint_contains", error.hint or "")):
        wrong += [
            f".{key}: expected {part!r} in {text!r}" for part in expected.pop(key, []) if part not in text
        ]
    return wrong + differences(expected, _error_in_json(error))


def _check_seen(sandbox: Sandbox, options: dict[str, Any], seen: dict[str, Any]) -> None:
    calls = [dict(request) for request in sandbox.requests() if request["method"] == "PATCH"]
    came = {
        "requests": calls,
        "calls": len(calls),
        "token_fetches": sandbox.token_fetches(),
        "pinned": {open_id: sandbox.pinned(open_id) for open_id in seen.get("pinned", {})},
        "refused_tokens": getattr(options.get("token_provider"), "refused", None),
        "bot_pinned": sandbox.bot_pinned_users(options.get("app_id", "")),
    }
    _verdict("seen", differences(seen, came), came)


def _verdict(place: str, wrong: list[str], came: object) -> None:
    if wrong:
        lines = [f"{place}: {line}" for line in wrong]
        raise CaseFailedError(
            "\n".join([*lines, f"{place}: all that came: {json.dumps(came, ensure_ascii=False)}"])
        )


def _report_in_json(report: Report) -> dict[str, Any]:
    return {
        "taken": report.taken,
        "succeeded": report.succeeded,
        "failed": report.failed,
        "not_read": report.not_read,
        "text": str(report),
        "failures": [{"index": item.index, "tag": item.tag} for item in report.failures],
        "unread": [item.index for item in report.unread],
        "unfinished": [
            {"index": stopped.index, "tag": stopped.tag, "users": _users_in_json(stopped)}
            for stopped in report.unfinished
        ],
    }


def _users_in_json(came: Outcome | FeedCardError | Unfinished) -> dict[str, Any]:
    return {name: list(getattr(came, name)) for name in ("reached", "failed", "unknown", "not_attempted")}


def _records_in_json(records: Any) -> list[dict[str, Any]]:
    return [{name: getattr(record, name) for name in record.__match_args__} for record in records]


def _outcome_in_json(outcome: Outcome | None) -> dict[str, Any] | None:
    if outcome is None:
        return None
    return {
        "ok": outcome.ok,
        "failed_user_reasons": _records_in_json(outcome.failed_user_reasons),
        "log_id": outcome.log_id,
        "log_ids": list(outcome.log_ids),
        "requests": outcome.requests,
        "users": _users_in_json(outcome),
    }


def _error_in_json(error: FeedCardError) -> dict[str, Any]:
    names = (
        "platform_code",
        "http_status",
        "retryable",
        "attempts",
        "station",
        "reason",
        "field",
        "log_id",
        "retry_after",
    )
    return {
        "kind": error.kind,
        "message": str(error),
        **{name: getattr(error, name) for name in names},
        "users": _users_in_json(error),
        "field_violations": _records_in_json(error.field_violations),
        "permission_violations": _records_in_json(error.permission_violations),
    }
