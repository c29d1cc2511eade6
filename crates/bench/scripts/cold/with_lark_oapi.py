import sys

import lark_oapi
from lark_oapi.api.im.v2 import PatchFeedCardRequest, PatchFeedCardRequestBody

base_url, chat = sys.argv[1:]
builder = lark_oapi.Client.builder().app_id("cli_bench").app_secret("benchmarks0000000000000000000000")
client = builder.domain(base_url).build()
body = PatchFeedCardRequestBody.builder().time_sensitive(True).user_ids(["ou_bench"]).build()
request = PatchFeedCardRequest.builder().feed_card_id(chat).user_id_type("open_id").request_body(body).build()
answer = client.im.v2.feed_card.patch(request)
if answer.code != 0:
    sys.exit(answer.msg)
