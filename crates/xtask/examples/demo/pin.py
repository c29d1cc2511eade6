"""One call from Python: pin.py sync|async on|off. The app and the platform are in the environment."""

import asyncio
import sys

from feishu_feed_card import AsyncClient, Client, Outcome

GROUP = "oc_679eaeb583654bff73fefcc6e6371370"
MEMBER = "ou_9d2beb613c85a2412862a49a924558c5"
OUTSIDER = "ou_679eaeb583654bff73fefcc6e6371301"


def pin(time_sensitive: bool) -> Outcome:
    print(f"client.set_time_sensitive(group, [member, outsider], {time_sensitive})")
    with Client.from_env() as client:
        return client.set_time_sensitive(GROUP, [MEMBER, OUTSIDER], time_sensitive)


async def pin_async(time_sensitive: bool) -> Outcome:
    print(f"await client.set_time_sensitive(group, [member, outsider], {time_sensitive})")
    async with AsyncClient.from_env() as client:
        return await client.set_time_sensitive(GROUP, [MEMBER, OUTSIDER], time_sensitive)


def row(name: str, value: object) -> None:
    print(f"  {name:<20} {value}")


mode, state = sys.argv[1:]
outcome = asyncio.run(pin_async(state == "on")) if mode == "async" else pin(state == "on")
row("ok", outcome.ok)
for reason in outcome.failed_user_reasons:
    row("failed_user_reasons", f"{reason.user_id}: {reason.error_message}")
row("log_id", outcome.log_id)
