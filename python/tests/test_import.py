"""Importing the package loads few modules."""

from __future__ import annotations

from scripts import run

HEAVY = ("asyncio", "collections.abc", "contextlib", "dataclasses", "enum", "functools", "inspect", "json",
         "logging", "re", "threading", "typing", "warnings")  # fmt: skip


def loaded(source: str) -> set[str]:
    """Modules that a script loads, without those that the interpreter loads at its start."""
    ended = run(f"import sys; before = set(sys.modules)\n{source}\nprint(*set(sys.modules) - before)")
    assert (ended.code, ended.err) == (0, ""), ended
    return set(ended.out.split())


def test_the_import_loads_few_modules():
    modules = loaded("import feishu_feed_card")
    assert len(modules) <= 8, modules
    assert not modules & set(HEAVY)


def test_a_blocking_call_loads_no_module():
    modules = loaded("""
import feishu_feed_card
before |= set(sys.modules)
client = feishu_feed_card.Client("cli_1", "secret", base_url="http://127.0.0.1:9", max_retries=0)
try:
    client.set_time_sensitive("oc_1", ["ou_1"], True)
except ConnectionError:
    pass
""")
    assert modules == set()


def test_types_are_created_on_first_use():
    assert loaded("from feishu_feed_card import UserIdType, UserIds, ClientOptions") >= {"typing"}
    assert loaded("import feishu_feed_card; assert 'UserIdType' in dir(feishu_feed_card)").isdisjoint(
        {"typing"}
    )
    ended = run("from feishu_feed_card import Nothing")
    assert "cannot import name 'Nothing'" in ended.err


def test_the_pytest_plugin_loads_few_modules():
    modules = loaded("import pytest\nbefore |= set(sys.modules)\nimport feishu_feed_card._pytest")
    assert not modules & set(HEAVY)
