"""Loads cases. `tests/README.md` describes their keys; an unknown key is an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from feishu_feed_card._native import CLIENT_OPTIONS

CASES = Path(__file__).parents[3] / "tests"

_OPTIONS = {*CLIENT_OPTIONS} - {"quota"}

_OUTCOME = {"ok", "failed_user_reasons", "log_id", "log_ids", "requests", "users"}

_ERROR = {
    "kind", "platform_code", "http_status", "retryable", "attempts", "station", "reason", "field",
    "message_contains", "hint_contains", "log_id", "users", "retry_after", "field_violations",
    "permission_violations",
}  # fmt: skip

_USERS = {"reached", "failed", "unknown", "not_attempted"}

_MANY = {"requests", "concurrency", "total_timeout", "take", "collect", "items", "raises", "report"}

_REPORT = {"taken", "succeeded", "failed", "not_read", "failures", "unread", "unfinished", "text"}

_ARGUMENTS = {
    "set_time_sensitive": {"feed_card_id", "user_ids", "time_sensitive", "user_id_type", "timeout"},
    "set_bot_time_sensitive": {"user_ids", "time_sensitive", "user_id_type", "timeout"},
    "set_app_ticket": {"app_ticket"},
    "close": {"timeout"},
}


class BrokenCaseError(Exception):
    """A case that is not valid."""


def load() -> list[dict[str, Any]]:
    """Loads and checks all cases, sorted by file."""
    cases: list[dict[str, Any]] = []
    for path in sorted((CASES / "cases").glob("*.json")):
        for case in json.loads(path.read_text(encoding="utf-8")):
            check(case)
            cases.append(case)
    names = [case["name"] for case in cases]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise BrokenCaseError(f"names used twice: {twice}")
    return cases


def load_broken() -> list[dict[str, Any]]:
    """Loads the cases that must fail, each with a text that the message must contain."""
    broken: list[dict[str, Any]] = json.loads((CASES / "broken.json").read_text(encoding="utf-8"))
    return broken


def check(case: dict[str, Any]) -> None:
    """Raises `BrokenCaseError` if a key is unknown or a step has no expectation."""
    _known(case, {"name", "source", "world", "client", "https", "faults", "steps", "seen"}, "the case")
    _known(case.get("world", {}), {"apps", "users", "chats", "switches", "seed"}, "world")
    _known(case.get("client", {}), _OPTIONS, "client")
    seen = case.get("seen", {})
    _known(seen, {"requests", "calls", "token_fetches", "refused_tokens", "pinned", "bot_pinned"}, "seen")
    if not (isinstance(case.get("name"), str) and isinstance(case.get("source"), str)):
        raise BrokenCaseError("name and source must be strings")
    steps = case.get("steps")
    if not isinstance(steps, list) or not steps:
        raise BrokenCaseError("steps must be a list with at least one step")
    for step in steps:
        _check_step(step, alone=len(steps) == 1)


def _check_step(step: dict[str, Any], *, alone: bool) -> None:
    if "call" in step:
        _check_call(step)
    elif step.keys() == {"together"}:
        for call in step["together"]:
            _check_call(call)
    elif step.keys() == {"many"}:
        _check_many(step["many"])
    elif step.keys() == {"new_client"}:
        if not alone or step["new_client"].keys() != {"raises"}:
            raise BrokenCaseError("new_client must be the only step, with nothing but raises")
        _check_expected(step["new_client"])
    elif step.keys() != {"control"}:
        raise BrokenCaseError(f"unknown step: {step}")


def _check_many(many: dict[str, Any]) -> None:
    _known(many, _MANY, "many")
    for request in many["requests"]:
        _known(request, {*_ARGUMENTS["set_time_sensitive"], "tag"}, "a request")
    if "raises" in many:
        _check_expected({"raises": many["raises"]})
    for item in many["items"]:
        _known(item, {"index", "tag", "returns", "raises"}, "an item")
        if not isinstance(item.get("index"), int):
            raise BrokenCaseError("an item must have an index")
        _check_expected(item)
    _known(many.get("report", {}), _REPORT, "report")


def _check_call(step: dict[str, Any]) -> None:
    _known(step, {"call", "args", "returns", "raises"}, "a call step")
    args = _ARGUMENTS.get(step["call"])
    if args is None:
        raise BrokenCaseError(f"unknown call: {step['call']}")
    _known(step["args"], args, "args")
    _check_expected(step)


def _check_expected(step: dict[str, Any]) -> None:
    if ("returns" in step) == ("raises" in step):
        raise BrokenCaseError("a step must have either returns or raises")
    if "raises" in step:
        _known(step["raises"], _ERROR, "raises")
    expected = step.get("raises") or step.get("returns") or {}
    if "returns" in step:
        _known(expected, _OUTCOME, "returns")
    if expected.get("users") is not None:
        _known(expected["users"], _USERS, "users")


def _known(given: dict[str, Any], known: set[str], where: str) -> None:
    unknown = given.keys() - known
    if unknown:
        raise BrokenCaseError(f"{where}: unknown keys {sorted(unknown)}")
