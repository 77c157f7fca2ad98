"""What vLLM may give a request in a step."""

from types import SimpleNamespace
from typing import Any

from slos_serve_vllm.caps import capped


def test_a_request_gets_no_more_than_its_cap_and_none_without_one_but_for_the_unplanned() -> None:
    unplanned: set[str] = set()
    reserve, tell = capped(unplanned)

    def given(name: str, wants: int) -> int:
        request: Any = SimpleNamespace(request_id=name)
        return reserve(request, 0, wants)

    assert given("a", 9) == 9
    caps = {"a": 4}
    tell(caps)
    assert [given("a", 3), given("a", 9), given("b", 9)] == [3, 4, 0]
    # What is cached may cut it while vLLM schedules, and others come and go.
    caps["a"] = 2
    unplanned.add("b")
    assert [given("a", 9), given("b", 9)] == [2, 9]
    tell(None)
    assert given("c", 9) == 9
