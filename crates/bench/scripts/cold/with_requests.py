import sys

import requests

base_url, chat, *ca = sys.argv[1:]
session = requests.Session()
session.trust_env = False
session.verify = ca[0] if ca else True


def call(method, path, body, headers):
    answer = session.request(method, base_url + path, json=body, headers=headers).json()
    if answer["code"] != 0:
        sys.exit(answer["msg"])
    return answer


app = {"app_id": "cli_bench", "app_secret": "benchmarks0000000000000000000000"}
token = call("POST", "/open-apis/auth/v3/tenant_access_token/internal", app, {})["tenant_access_token"]
path = f"/open-apis/im/v2/feed_cards/{chat}?user_id_type=open_id"
call("PATCH", path, {"time_sensitive": True, "user_ids": ["ou_bench"]}, {"Authorization": f"Bearer {token}"})
