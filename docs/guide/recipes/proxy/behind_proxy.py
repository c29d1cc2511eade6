import os
import sys

from feishu_feed_card import Client, ConnectionFailedError

chat, user = sys.argv[1:]
# http://user:password@proxy.example.com:3128, and the authority's certificate as a PEM file.
client = Client.from_env(proxy=os.environ["CORPORATE_PROXY"], ca_certs=os.environ["CORPORATE_CA"])
try:
    print(client.set_time_sensitive(chat, [user], True).ok)
except ConnectionFailedError as error:
    print(error.reason, error.hint)
    sys.exit(1)
