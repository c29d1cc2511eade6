import asyncio
import sys

import aiohttp

base_url, chat, *ca = sys.argv[1:]


async def main():
    if ca:
        import ssl

        connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=ca[0]))
    else:
        connector = None
    async with aiohttp.ClientSession(connector=connector) as session:

        async def call(method, path, body, headers):
            async with session.request(method, base_url + path, json=body, headers=headers) as response:
                answer = await response.json()
            if answer["code"] != 0:
                sys.exit(answer["msg"])
            return answer

        app = {"app_id": "cli_bench", "app_secret": "benchmarks0000000000000000000000"}
        granted = await call("POST", "/open-apis/auth/v3/tenant_access_token/internal", app, {})
        path = f"/open-apis/im/v2/feed_cards/{chat}?user_id_type=open_id"
        headers = {"Authorization": f"Bearer {granted['tenant_access_token']}"}
        await call("PATCH", path, {"time_sensitive": True, "user_ids": ["ou_bench"]}, headers)


asyncio.run(main())
