import sys

from feishu_feed_card import Client

base_url, chat, *ca = sys.argv[1:]
secret = "benchmarks0000000000000000000000"
with Client("cli_bench", secret, base_url=base_url, ca_certs=ca[0] if ca else None) as client:
    client.set_time_sensitive(chat, ["ou_bench"], True).raise_for_failed()
