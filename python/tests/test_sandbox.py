"""The sandbox, and the pytest fixture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from feishu_feed_card import Client, ConnectionFailedError, PermissionDeniedError, RejectedError
from feishu_feed_card.sandbox import Sandbox

if TYPE_CHECKING:
    from feishu_feed_card.sandbox import World


def test_constants_name_the_example_world():
    world = Sandbox.example_world()
    assert [app["app_id"] for app in world["apps"]] == [Sandbox.APP_ID, Sandbox.STORE_APP_ID]
    assert {app["app_secret"] for app in world["apps"]} == {Sandbox.APP_SECRET}
    assert world["apps"][1]["tenant_key"] == Sandbox.TENANT_KEY
    assert [user["open_id"] for user in world["users"]] == [Sandbox.USER, Sandbox.OUTSIDER]
    assert [chat["feed_card_id"] for chat in world["chats"]] == [Sandbox.CHAT]
    assert world["chats"][0]["members"] == [Sandbox.USER]


def test_a_world_replaces_parts_of_the_example():
    world: World = {
        "chats": [{"feed_card_id": "oc_1", "members": ["ou_amy"]}],
        "switches": {"success_msg": "ok"},
    }
    with Sandbox(world) as sandbox, sandbox.client() as client:
        assert client.set_time_sensitive("oc_1", ["ou_amy"], True).ok
        with pytest.raises(RejectedError):
            client.set_time_sensitive(sandbox.CHAT, [sandbox.USER], True)
        assert sandbox.switches()["success_msg"] == "ok"
        assert sandbox.switches()["per_second"] == 50


def test_every_control_works():
    with Sandbox() as sandbox, sandbox.client() as client:
        client.set_time_sensitive(sandbox.CHAT, [sandbox.USER], True)
        client.set_bot_time_sensitive([sandbox.USER], True)
        assert sandbox.pinned(sandbox.USER) == [sandbox.CHAT]
        assert sandbox.pinned_users(sandbox.CHAT) == [sandbox.USER]
        assert sandbox.bot_pinned(sandbox.USER) == [sandbox.APP_ID]
        assert sandbox.bot_pinned_users(sandbox.APP_ID) == [sandbox.USER]
        state = sandbox.state()
        assert state["pinned"][sandbox.CHAT] == [sandbox.USER]
        assert state["request_count"] == sandbox.request_count() == 3
        assert state["token_fetches"] == sandbox.token_fetches() == 1
        request = sandbox.requests()[1]
        assert (request["method"], request["code"]) == ("PATCH", 0)
        assert request["body"] == {"time_sensitive": True, "user_ids": [sandbox.USER]}
        assert sandbox.max_in_window("group", 1) == sandbox.max_in_window("bot", 0.5) == 1
        sandbox.clear_record()
        assert sandbox.request_count() == 0
        before = sandbox.now()
        sandbox.advance(7200)
        assert 7200 <= sandbox.now() - before < 7260
        sandbox.revoke_tokens()
        ticket = sandbox.app_ticket(sandbox.STORE_APP_ID)
        assert ticket
        assert sandbox.rotate_app_ticket(sandbox.STORE_APP_ID) != ticket
        assert sandbox.app_ticket("cli_nobody") is None
        sandbox.faults([{"on": "call", "code": 230001}, {"on": "token", "times": 3}])
        assert sandbox.faults_left() == 2
        sandbox.clear_faults()
        assert sandbox.faults_left() == 0
        sandbox.set_switches(per_second=5)
        sandbox.set_switches(per_minute=7)
        assert (sandbox.switches()["per_second"], sandbox.switches()["per_minute"]) == (5, 7)
        sandbox.put_app({"app_id": "cli_2", "app_secret": "s", "ip_allowed": False})
        sandbox.put_user({"open_id": "ou_2", "user_id": "two"})
        sandbox.put_chat({"feed_card_id": "oc_2", "members": ["ou_2"]})
        with Client("cli_2", "s", base_url=sandbox.base_url) as other, pytest.raises(PermissionDeniedError):
            other.set_time_sensitive("oc_2", ["ou_2"], True)
        assert client.set_time_sensitive("oc_2", ["two"], True, user_id_type="user_id").ok
        sandbox.pause_listening()
        sandbox.close_connections()
        # Windows tries a refused connection for two seconds.
        with sandbox.client(max_retries=0) as other, pytest.raises(ConnectionFailedError):
            other.set_time_sensitive("oc_2", ["ou_2"], True)
        sandbox.resume_listening()
        assert client.set_time_sensitive("oc_2", ["ou_2"], True).ok


def test_every_control_has_a_method():
    with (
        Sandbox() as sandbox,
        pytest.raises(ValueError, match="invalid control: unknown variant `nothing`") as caught,
    ):
        sandbox.control("nothing")
    known = set(str(caught.value).split("`")[3::2])
    assert len(known) > 20
    assert [name for name in known if not hasattr(sandbox, name)] == []


def test_script_returns_the_remaining_faults():
    with Sandbox() as sandbox, sandbox.client(max_retries=0) as client:
        sandbox.faults([{"on": "call", "times": 2, "code": 230001}])
        with pytest.raises(RejectedError):
            client.set_bot_time_sensitive([sandbox.USER], True)
        assert [(step["times"], step["code"]) for step in sandbox.script()] == [(1, 230001)]
        assert sandbox.state()["over_limit"] == 0


def test_an_unknown_key_in_a_world_or_a_fault_is_named():
    with pytest.raises(ValueError, match="invalid world: unknown field `chat`"):
        Sandbox({"chat": []})  # type: ignore[typeddict-unknown-key]
    with Sandbox() as sandbox, pytest.raises(ValueError, match="unknown field `statsu`"):
        sandbox.faults([{"on": "call", "statsu": 502}])  # type: ignore[typeddict-unknown-key]


def test_a_port_in_use_is_an_os_error():
    with Sandbox() as sandbox:
        port = int(sandbox.base_url.rpartition(":")[2])
        with pytest.raises(OSError, match="os error"):
            Sandbox(port=port)


def test_a_closed_sandbox_refuses_controls_and_connections():
    sandbox = Sandbox()
    client = sandbox.client(max_retries=0)
    sandbox.close()
    sandbox.close()
    with pytest.raises(RuntimeError, match="this sandbox is closed"):
        sandbox.state()
    with pytest.raises(ConnectionFailedError):
        client.set_time_sensitive(sandbox.CHAT, [sandbox.USER], True)
    assert repr(sandbox) == f"<feishu_feed_card.sandbox.Sandbox at {sandbox.base_url}>"


def test_https_needs_the_sandboxs_certificate(tmp_path: Path):
    with Sandbox(https=True) as sandbox:
        ca = tmp_path / "ca.pem"
        ca.write_text(sandbox.ca_pem or "", encoding="utf-8")
        assert sandbox.https_base_url is not None
        with sandbox.client(base_url=sandbox.https_base_url, ca_certs=ca) as client:
            assert client.set_time_sensitive(sandbox.CHAT, [sandbox.USER], True).ok
        with sandbox.client(base_url=sandbox.https_base_url, max_retries=0) as client:
            with pytest.raises(ConnectionFailedError, match="certificate"):
                client.set_time_sensitive(sandbox.CHAT, [sandbox.USER], True)
    with Sandbox() as sandbox:
        assert sandbox.https_base_url is None
        assert sandbox.ca_pem is None


pytest_plugins = ["pytester"]


def test_the_fixture_is_new_for_each_test(pytester: pytest.Pytester):
    pytester.makepyfile("""
        def test_one(feishu_sandbox):
            with feishu_sandbox.client() as client:
                client.set_time_sensitive(feishu_sandbox.CHAT, [feishu_sandbox.USER], True)
            assert feishu_sandbox.pinned(feishu_sandbox.USER) == [feishu_sandbox.CHAT]

        def test_another_has_its_own(feishu_sandbox):
            assert feishu_sandbox.request_count() == 0
    """)
    pytester.runpytest_subprocess("-q", timeout=30).assert_outcomes(passed=2)
    shown = pytester.runpytest_subprocess("--fixtures", timeout=30).stdout.str()
    assert "A local stand-in for the Feishu platform, new for each test." in shown
