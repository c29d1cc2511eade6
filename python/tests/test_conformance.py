"""The conformance cases in `tests/`, on which all languages must agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from conformance.case import BrokenCaseError, load, load_broken
from conformance.play import CaseFailedError, play_async, play_blocking

if TYPE_CHECKING:
    from collections.abc import Callable

CASES = load()
BROKEN = load_broken()

PLAYERS = pytest.mark.parametrize(
    "play", [pytest.param(play_blocking, id="Client"), pytest.param(play_async, id="AsyncClient")]
)


def test_cases_are_found():
    assert len(CASES) > 200
    assert len(BROKEN) > 15


@PLAYERS
@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_case(play: Callable[[dict[str, Any]], None], case: dict[str, Any]):
    try:
        play(case)
    except CaseFailedError as error:
        pytest.fail(f"{case['name']}\n{error}", pytrace=False)


@PLAYERS
@pytest.mark.parametrize("broken", BROKEN, ids=[broken["case"]["name"] for broken in BROKEN])
def test_broken_case_fails(play: Callable[[dict[str, Any]], None], broken: dict[str, Any]):
    with pytest.raises((CaseFailedError, BrokenCaseError)) as caught:
        play(broken["case"])
    assert broken["must_mention"] in str(caught.value)
