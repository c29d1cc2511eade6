"""Wrong uses: each marked line must be an error of the named kind, and no other line. Never run."""

from __future__ import annotations

from feishu_feed_card import AsyncClient, Client, FeedCardError, Item, Outcome, RateLimitedError, Request
from feishu_feed_card.sandbox import Sandbox


def calls(client: Client) -> None:
    client.set_time_sensitive("oc_1", "ou_1", True)  # expect: arg-type
    client.set_time_sensitive("oc_1", b"ou_1", True)  # expect: arg-type
    client.set_time_sensitive("oc_1", {"ou_1": 1}, True)  # expect: arg-type
    client.set_time_sensitive("oc_1", [1], True)  # expect: list-item
    client.set_time_sensitive(1, ["ou_1"], True)  # expect: arg-type
    client.set_time_sensitive("oc_1", ["ou_1"], "true")  # expect: arg-type
    client.set_time_sensitive("oc_1", ["ou_1"])  # expect: call-arg
    client.set_time_sensitive("oc_1", ["ou_1"], True, "open_id")  # expect: call-arg
    client.set_time_sensitive("oc_1", ["ou_1"], True, user_id_type="openid")  # expect: arg-type
    client.set_time_sensitive("oc_1", ["ou_1"], True, timeout="5")  # expect: arg-type
    client.set_time_sensitive("oc_1", ["ou_1"], True, tiemout=5)  # expect: call-arg
    client.set_bot_time_sensitive("oc_1", ["ou_1"], True)  # expect: call-arg, arg-type
    client.set_bot_time_sensitive("ou_1", True)  # expect: arg-type


def clients() -> None:
    Client("cli_1", "secret", retries=3)  # expect: call-arg
    Client("cli_1", "secret", "token")  # expect: call-arg
    Client("cli_1", "secret", rate_limit=50)  # expect: arg-type
    Client("cli_1", b"secret")  # expect: arg-type
    Client(token_provider="t-1")  # expect: arg-type
    Client(token_provider=lambda: 1)  # expect: arg-type
    Client(quota="quota")  # expect: arg-type
    Client(proxy=True)  # expect: arg-type
    Client.from_env(retries=3)  # expect: call-arg
    with AsyncClient() as client:  # expect: attr-defined
        print(client)


async def coroutines(client: AsyncClient) -> None:
    client.set_time_sensitive("oc_1", ["ou_1"], True).ok  # expect: attr-defined
    outcome: Outcome = client.set_bot_time_sensitive(["ou_1"], True)  # expect: assignment
    print(outcome)
    await client.set_time_sensitive("oc_1", "ou_1", True)  # expect: arg-type


def many(client: Client, request: Request) -> None:
    client.set_time_sensitive_many(request)  # expect: arg-type
    client.set_time_sensitive_many("oc_1")  # expect: arg-type
    client.set_time_sensitive_many([{"feed_card_id": "oc_1"}])  # expect: typeddict-item
    client.set_time_sensitive_many([{**request, "priority": 1}])  # expect: typeddict-unknown-key
    client.set_time_sensitive_many([request], concurrency="10")  # expect: arg-type
    client.set_time_sensitive_many([request], progress=lambda: None)  # expect: arg-type, misc
    client.set_time_sensitive_many([request], workers=3)  # expect: call-arg
    client.set_time_sensitive_many([request]).report().left  # expect: attr-defined
    request["user_ids"] = "ou_1"  # expect: typeddict-item
    request["user_id_type"] = "openid"  # expect: typeddict-item


async def async_many(client: AsyncClient, request: Request) -> None:
    for item in client.set_time_sensitive_many([request]):  # expect: attr-defined
        print(item)
    client.set_time_sensitive_many([request]).report().taken  # expect: attr-defined
    client.set_time_sensitive_many([request]).collect()[0]  # expect: index
    client.set_time_sensitive_many(3)  # expect: arg-type


def items(item: Item) -> None:
    item.outcome.ok  # expect: union-attr
    item.index = 2  # expect: misc


def outcomes(outcome: Outcome) -> None:
    outcome.requests = 2  # expect: misc
    outcome.failed_user_reasons[0].error_code = 1  # expect: misc
    outcome.failed_user_reasons.append(1)  # expect: attr-defined
    outcome.users  # expect: attr-defined
    outcome.log_id.upper()  # expect: union-attr


def errors(error: FeedCardError) -> None:
    print(error.retry_after + 1)  # expect: operator
    if error.station == "tokens":  # expect: comparison-overlap
        print(error)
    if error.reason == "tls_unknown":  # expect: comparison-overlap
        print(error)
    raise RateLimitedError(retry_after="1")  # expect: arg-type


def sandboxes(sandbox: Sandbox) -> None:
    Sandbox({"chat": []})  # expect: arg-type
    sandbox.faults([{"on": "calls"}])  # expect: typeddict-item
    sandbox.faults([{"statsu": 502}])  # expect: typeddict-unknown-key
    sandbox.set_switches(per_hour=5)  # expect: call-arg
    sandbox.max_in_window("chat", 1)  # expect: arg-type
