"""The core that this thread is on."""

import os
import sys

import pytest

from slos_serve_vllm import cores


@pytest.mark.skipif(sys.platform != "linux", reason="cores are Linux's")
def test_is_the_core_that_the_thread_is_held_to() -> None:
    before = os.sched_getaffinity(0)
    try:
        for core in sorted(before)[:3]:
            os.sched_setaffinity(0, {core})
            assert cores.current_core() == core
    finally:
        os.sched_setaffinity(0, before)


def test_is_none_where_the_system_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "_read", None)
    assert cores.current_core() is None
    monkeypatch.setattr(cores, "_read", lambda: -1)
    assert cores.current_core() is None
