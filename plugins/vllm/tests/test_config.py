"""Settings: what is none is refused, with a list of those there are."""

from pathlib import Path

import pytest

from slos_serve_vllm.config import Config, ConfigError, read_config, socket_of


def test_reads_what_is_given_and_leaves_the_rest() -> None:
    assert read_config({}) == Config()
    assert read_config(None) == Config()
    given = read_config(
        {"slos_serve": {"socket": "/run/p.sock", "deadline_ms": 3, "start": False}, "other": 1}
    )
    assert (given.socket, given.deadline_ms, given.start) == ("/run/p.sock", 3.0, False)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"sokcet": "x"}, "sokcet"),
        ({"deadline_ms": 0}, "deadline_ms"),
        ({"deadline_ms": "3"}, "deadline_ms"),
        ({"start": "yes"}, "start"),
        ({"command": "slos-serve"}, "command"),
        ([], "slos_serve"),
    ],
)
def test_refuses_what_is_none(wrong: object, named: str) -> None:
    with pytest.raises(ConfigError, match=named) as refusal:
        read_config({"slos_serve": wrong})
    assert "hang_seconds" in str(refusal.value)


def test_the_ranks_of_one_vllm_share_a_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert socket_of(Config(), "abc") == socket_of(Config(), "abc") != socket_of(Config(), "abd")
    assert str(socket_of(Config(), "abc")).startswith("/run/user/7/")
    assert socket_of(Config(socket="/a/b.sock"), "abc") == Path("/a/b.sock")
