"""Typical uses, which type checkers must accept. Never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import feishu_feed_card
from feishu_feed_card import (
    AsyncClient,
    AsyncMany,
    Client,
    ClientOptions,
    ConnectionFailedError,
    ConnectionReason,
    FailedUserReason,
    FeedCardError,
    InvalidInputError,
    Item,
    Many,
    Outcome,
    PartialFailureError,
    Progress,
    Quota,
    RateLimitedError,
    Report,
    Request,
    Unfinished,
    UserIds,
    UserIdType,
)
from feishu_feed_card._types import Station
from feishu_feed_card.sandbox import Fault, RecordedRequest, Sandbox, World


def pin(client: Client, ids: UserIds, kind: UserIdType = "open_id") -> tuple[str, ...]:
    outcome: Outcome = client.set_time_sensitive("oc_1", ids, True, user_id_type=kind, timeout=5)
    reasons: tuple[FailedUserReason, ...] = outcome.failed_user_reasons
    for reason in reasons:
        user: str | None = reason.user_id
        print(reason.error_code + 1, reason.error_message.upper(), user)
    log_id: str | None = outcome.log_id
    print(log_id, outcome.requests + 1)
    return outcome.raise_for_failed().reached


def main() -> None:
    with Client("cli_1", "secret", timeout=5.0, rate_limit=(20, 400), ca_certs=Path("ca.pem")) as client:
        pin(client, ["ou_1"])
        pin(client, ("ou_1", "ou_2"))
        pin(client, {"ou_1"}, "union_id")
        pin(client, frozenset({"ou_1"}))
        pin(client, (user for user in ["ou_1"]))
        pin(client, {"ou_1": 1}.keys())
        client.set_bot_time_sensitive(["ou_1"], time_sensitive=False)
        quota: Quota | None = client.quota
        Client(tenant_access_token="t-1", quota=quota).set_app_ticket("ticket")
        Client("cli_1", "secret", rate_limit=None)
        Client("cli_1", "secret", proxy=False)
    options: ClientOptions = {"app_id": "cli_1", "timeout": 3}
    Client.from_env(**options).close()
    Client(token_provider=lambda: "t-1")
    Client(token_provider=lambda: ("t-1", 3600))
    Client(token_provider=lambda refused: "t-1" if refused is None else "t-2")
    Client(token_provider=provider_of_another)
    Client("cli_1", "secret").close(timeout=5)


async def provider_of_another(refused: str | None) -> str:
    return "t-1" if refused is None else "t-2"


async def provider() -> tuple[str, float]:
    return "t-1", 3600.0


async def async_main() -> None:
    async with AsyncClient.from_env(token_provider=provider) as client:
        outcome = await client.set_time_sensitive("oc_1", ["ou_1"], True)
        ok: bool = outcome.ok
        print(ok)
        await client.aclose()
        await client.aclose(timeout=0)


def requests() -> Iterator[Request]:
    yield {"feed_card_id": "oc_1", "user_ids": ["ou_1"], "time_sensitive": True}
    yield {
        "feed_card_id": "oc_1",
        "user_ids": ("ou_1",),
        "time_sensitive": False,
        "user_id_type": "open_id",
        "timeout": 5,
    }


async def async_requests() -> AsyncIterator[Request]:
    for request in requests():
        yield request


def show(progress: Progress) -> None:
    eta: float | None = progress.eta
    print(progress.done + progress.failed + progress.waiting_for_quota, progress.total, eta)


def read(item: Item) -> int:
    if item.error is not None:
        error: FeedCardError = item.error
        print(error.hint)
    elif item.outcome is not None:
        outcome: Outcome = item.outcome
        print(outcome.ok, item.request["feed_card_id"].upper())
    return item.index + 1


def store(item: Item, report: Report, error: FeedCardError) -> list[dict[str, object]]:
    match item:
        case Item(
            index, request, outcome=Outcome(ok=False, failed_user_reasons=(FailedUserReason(code), *_))
        ):
            print(index + 1, request["feed_card_id"], code + 1)
    call: int | None = error.call
    print(call, item.outcome and item.outcome.call)
    return [item.to_dict(), report.to_dict(), error.to_dict(), Outcome(reached={"ou_1"}).to_dict()]


def tell(report: Report) -> None:
    unread: tuple[Item, ...] = report.unread
    unfinished: tuple[Unfinished, ...] = report.unfinished
    print(
        report.taken - report.succeeded - report.failed, unread, [stopped.unknown for stopped in unfinished]
    )


def many(client: Client) -> None:
    with client.set_time_sensitive_many(requests(), progress=show, total_timeout=60) as many:
        for item in many:
            read(item)
        tell(many.report())
    chats = ["oc_1"]
    handle: Many = client.set_time_sensitive_many(
        {"feed_card_id": chat, "user_ids": ["ou_1"], "time_sensitive": True} for chat in chats
    )
    handle.close()
    tagged: list[Request] = [{"feed_card_id": "oc_1", "user_ids": ["ou_1"], "time_sensitive": True, "tag": 7}]
    items, report = client.set_time_sensitive_many(tagged).collect()
    row: int = items[0].tag
    left: int | None = report.not_read
    failures: tuple[Item, ...] = report.failures
    print(row, left, failures, str(report))
    plain: list[Request] = list(requests())
    print([item.index for item in client.set_time_sensitive_many(plain, concurrency=10)])


async def async_many(client: AsyncClient) -> None:
    async with client.set_time_sensitive_many(async_requests(), progress=print) as many:
        async for item in many:
            read(item)
        tell(await many.report())
    items, report = await client.set_time_sensitive_many(requests()).collect()
    tell(report)
    read(items[0])
    handle: AsyncMany = client.set_time_sensitive_many(requests())
    await handle.aclose()


def errors() -> None:
    try:
        main()
    except InvalidInputError as error:
        field: str | None = error.field
        value_error: ValueError = error
        print(field, value_error)
    except RateLimitedError as error:
        wait: float | None = error.retry_after
        print(wait)
    except PartialFailureError as error:
        print(error.outcome, error.failed, error.permission_violations[0].subject)
    except feishu_feed_card.ServerError as error:
        print(error.platform_code)
    except ConnectionFailedError as error:
        reason: ConnectionReason | None = error.reason
        if reason == "proxy_auth":
            raise
    except FeedCardError as error:
        station: Station | None = error.station
        if station == "token":
            raise


def test_bot(feishu_sandbox: Sandbox) -> None:
    world: World = {
        "chats": [{"feed_card_id": "oc_1", "members": ["ou_1"]}],
        "switches": {"per_second": None},
    }
    fault: Fault = {"on": "call", "status": 502, "html": True}
    with Sandbox(world, https=True) as sandbox, sandbox.client(timeout=1) as client:
        sandbox.faults([fault])
        pin(client, [sandbox.USER])
        chats: list[str] = sandbox.pinned(sandbox.USER)
        seen: list[RecordedRequest] = sandbox.requests()
        print([request["path"] for request in seen])
        count: int = sandbox.state()["request_count"]
        print(chats, count)
