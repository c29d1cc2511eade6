"""The calls made with the platform's own Python client: pin.py BASE_URL true|false sync|async.

Prints what came back as JSON.
"""

import asyncio
import json
import sys

import lark_oapi as lark
from lark_oapi.api.im.v2 import (
    BotTimeSentiveFeedCardRequest,
    BotTimeSentiveFeedCardRequestBody,
    PatchFeedCardRequest,
    PatchFeedCardRequestBody,
)

GROUP = "oc_679eaeb583654bff73fefcc6e6371370"
WITHOUT_BOT = "oc_without_bot"
MEMBER = "ou_9d2beb613c85a2412862a49a924558c5"
OUTSIDER = "ou_679eaeb583654bff73fefcc6e6371301"

base_url, time_sensitive, mode = sys.argv[1], sys.argv[2] == "true", sys.argv[3]
client = lark.Client.builder().app_id("cli_example").app_secret("example-secret").domain(base_url).build()
cards = client.im.v2.feed_card


def group(feed_card_id, user_ids):
    body = PatchFeedCardRequestBody.builder().time_sensitive(time_sensitive).user_ids(user_ids).build()
    request = PatchFeedCardRequest.builder().feed_card_id(feed_card_id).user_id_type("open_id").request_body(body).build()
    return asyncio.run(cards.apatch(request)) if mode == "async" else cards.patch(request)


def bot(user_ids):
    body = BotTimeSentiveFeedCardRequestBody.builder().time_sensitive(time_sensitive).user_ids(user_ids).build()
    request = BotTimeSentiveFeedCardRequest.builder().user_id_type("open_id").request_body(body).build()
    return asyncio.run(cards.abot_time_sentive(request)) if mode == "async" else cards.bot_time_sentive(request)


def said(response):
    reasons = (response.data and response.data.failed_user_reasons) or []
    # get_log_id() knows one spelling of the header's name, and the client's asynchronous half lowers it.
    log_id = response.raw.headers.get("x-tt-logid") if mode == "async" else response.get_log_id()
    return {
        "code": response.code,
        "msg": response.msg,
        "failed": [[reason.error_code, reason.error_message, reason.user_id] for reason in reasons],
        "has_log_id": bool(log_id),
    }


print(
    json.dumps(
        {
            "partial_failure": said(group(GROUP, [MEMBER, OUTSIDER])),
            "bot": said(bot([MEMBER])),
            "bot_not_in_chat": said(group(WITHOUT_BOT, [MEMBER])),
        }
    )
)
