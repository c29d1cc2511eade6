import http.client
import json
import sys

base_url, chat, *ca = sys.argv[1:]
host = base_url.split("//")[1]
if ca:
    import ssl

    connection = http.client.HTTPSConnection(host, context=ssl.create_default_context(cafile=ca[0]))
else:
    connection = http.client.HTTPConnection(host)


def call(method, path, body, headers):
    connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"} | headers)
    answer = json.loads(connection.getresponse().read())
    if answer["code"] != 0:
        sys.exit(answer["msg"])
    return answer


app = {"app_id": "cli_bench", "app_secret": "benchmarks0000000000000000000000"}
token = call("POST", "/open-apis/auth/v3/tenant_access_token/internal", app, {})["tenant_access_token"]
path = f"/open-apis/im/v2/feed_cards/{chat}?user_id_type=open_id"
call("PATCH", path, {"time_sensitive": True, "user_ids": ["ou_bench"]}, {"Authorization": f"Bearer {token}"})
