"""The client against planners that misbehave: it says so, never waits for long, and comes back."""

import logging
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from slos_serve_vllm import client as client_module
from slos_serve_vllm.client import Client
from slos_serve_vllm.frames import column, encode_frame

from .fake_planner import HELLO, READY, FakePlanner, Peer, Script
from .waits import LONG_S, wait_until

ENGINE = {"type": "engine", "name": "test-0"}
SHORT_S = 0.3
"""For what never comes."""
STEP = {"type": "step", "seq": 1, "nowUs": 0, "ran": None, "landed": [], "arrived": []}


class Bench:
    """A client and the planner that it meets."""

    def __init__(self, path: Path, *scripts: Script, hang_s: float = LONG_S) -> None:
        self.planner = FakePlanner(path, *scripts)
        self.client = Client(path, ENGINE, hang_s)


@pytest.fixture
def meet(tmp_path: Path) -> Iterator[type[Bench]]:
    benches: list[Bench] = []

    class Here(Bench):
        def __init__(self, *scripts: Script, hang_s: float = LONG_S) -> None:
            super().__init__(tmp_path / f"{len(benches)}.sock", *scripts, hang_s=hang_s)
            benches.append(self)

    yield Here  # type: ignore[misc]
    for bench in benches:
        bench.client.close()
        bench.planner.close()


def serves(peer: Peer) -> None:
    """As it should be: each step is answered."""
    peer.greet()
    while (message := peer.hear()) is not None:
        peer.say({"type": "plan", "seq": message["seq"], "batch": 1, "predictedUs": 1, "ids": column([1])})


def test_asks_and_is_answered(meet: type[Bench]) -> None:
    bench = meet(serves)
    assert bench.client.wait_until_ready(LONG_S)
    assert bench.client.planner["policy"] == "slos-serve"
    assert bench.client.send(STEP)
    answer = bench.client.receive(LONG_S)
    assert answer is not None
    assert answer["seq"] == 1


def says(message: object) -> Script:
    return lambda peer: (peer.say(message), peer.hear(), peer.hear(), peer.hear())[0]


def greets_then(message: object) -> Script:
    def script(peer: Peer) -> None:
        peer.say(HELLO)
        peer.hear(), peer.hear()
        peer.say(message)
        peer.hear()

    return script


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (says({**HELLO, "version": 99}), "speaks version 99 .* update one of them"),
        (says({**HELLO, "protocol": "redis"}), "no planner .*redis"),
        (says({"type": "plan"}), "no planner"),
        (says(["no", "map"]), "a message is no map"),
        (
            lambda peer: peer.connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
            "header is not what was sent",
        ),
        (lambda peer: None, "closed the connection"),
        (lambda peer: peer.hear() and peer.hear() and peer.hear(), "did not greet"),
        (greets_then({"type": "refused", "message": "no KV"}), "refuses this engine: no KV"),
        (greets_then({"type": "plan", "seq": 1}), "before it was ready"),
    ],
)
def test_says_why_it_is_not_ready(
    meet: type[Bench], script: Script, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "vllm.slos_serve")
    bench = meet(script, hang_s=SHORT_S if told == "did not greet" else LONG_S)

    def is_told() -> bool:
        assert not bench.client.wait_until_ready(0.1)
        # Each reason may come with another try, after longer and longer pauses.
        is_told = any(re.search(told, record.getMessage()) for record in caplog.records)
        return is_told and bench.planner.connections >= 2

    wait_until(is_told)
    # One line for each reason, however often it was tried.
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == len(set(lines)) <= 3


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([{**HELLO, "version": 99}], "speaks version 99"),
        ([HELLO, {"type": "refused", "message": "no KV"}], "refuses this engine: no KV"),
        ([], "it closed the connection"),
    ],
)
def test_reads_the_last_words_of_one_that_closed_before_it_was_greeted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, words: list[object], told: str
) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    client = Client(tmp_path / "none.sock", ENGINE, LONG_S)
    client._socket = ours
    client._began_s = time.monotonic()
    for message in words:
        theirs.sendall(encode_frame(message))
    theirs.close()
    assert not client.send(ENGINE)
    for _ in range(3):
        client.tick()
    assert [told in record.getMessage() for record in caplog.records] == [True]


def test_says_each_reason_once_though_they_take_turns(
    meet: type[Bench], caplog: pytest.LogCaptureFixture
) -> None:
    other = says({**HELLO, "version": 99})
    bench = meet(*[says({"type": "plan"}), other] * 3, serves)
    assert bench.client.wait_until_ready(LONG_S)
    told = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) <= 3  # the two, and a connection closed before its words were read
    bench.client.lose("it closed the connection")
    bench.client.lose("it closed the connection")
    again = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(again) - len(told) == 1, "what was told before it was ready is news again after it"


def test_a_planner_with_ever_new_reasons_does_not_fill_the_log(
    meet: type[Bench], caplog: pytest.LogCaptureFixture
) -> None:
    bench = meet(serves)
    for number in range(100):
        bench.client.lose(f"reason {number}")
    assert len(caplog.records) == 20


def test_comes_back_after_a_planner_that_was_no_good(meet: type[Bench]) -> None:
    bench = meet(says({**HELLO, "version": 99}), lambda peer: None, serves)
    assert bench.client.wait_until_ready(LONG_S)
    assert bench.planner.connections == 3
    assert bench.client.opened == 1


def test_a_planner_that_goes_is_noticed_where_it_is_needed(meet: type[Bench]) -> None:
    bench = meet(lambda peer: (peer.greet(), peer.hear())[0], serves)
    assert bench.client.wait_until_ready(LONG_S)
    bench.client.send(STEP)
    assert bench.client.receive(LONG_S) is None
    assert not bench.client.ready
    assert bench.client.wait_until_ready(LONG_S)
    assert bench.client.opened == 2


def test_a_planner_that_does_not_answer_costs_the_deadline_and_no_more(meet: type[Bench]) -> None:
    bench = meet(lambda peer: (peer.greet(), [None for _ in iter(peer.hear, None)])[0])
    assert bench.client.wait_until_ready(LONG_S)
    bench.client.send(STEP)
    began_s = time.monotonic()
    assert bench.client.receive(0.02) is None
    assert bench.client.ready
    assert time.monotonic() - began_s > 0.019


def test_a_planner_that_does_not_read_is_lost(meet: type[Bench], caplog: pytest.LogCaptureFixture) -> None:
    is_over = threading.Event()
    bench = meet(lambda peer: (peer.greet(), is_over.wait())[0])
    assert bench.client.wait_until_ready(LONG_S)
    for _ in range(1000):
        if not bench.client.send({**STEP, "arrived": "x" * 10_000}):
            break
    is_over.set()
    assert not bench.client.ready
    assert "it does not read what it is told" in caplog.text


def test_nothing_listens(tmp_path: Path) -> None:
    client = Client(tmp_path / "none.sock", ENGINE, SHORT_S)
    assert not client.wait_until_ready(0.2)
    assert not client.send(STEP)
    assert client.receive(0.0) is None
    assert READY["type"] == "ready"


def test_a_planner_of_another_user_is_not_obeyed(
    meet: type[Bench], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(client_module, "_stranger", lambda connection: 1234)
    bench = meet(serves)
    bench.client.tick()
    assert not bench.client.ready
    assert "it is another user's (uid 1234)" in caplog.text


def test_whose_the_planner_is(tmp_path: Path) -> None:
    planner = FakePlanner(tmp_path / "p.sock", serves)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(tmp_path / "p.sock"))
        assert client_module._stranger(connection) is None
        with pytest.MonkeyPatch.context() as patch:
            # As another user sees it, where this one is not root.
            patch.setattr(os, "getuid", lambda: os.geteuid() + 1)
            assert client_module._stranger(connection) == (os.geteuid() or None)
    planner.close()
