"""What cannot be planned is refused when vLLM starts, with what to do; a hook that is missing is named."""

from pathlib import Path
from typing import Any

import pytest
from vllm.v1.core.kv_cache_manager import KVCacheManager
from vllm.v1.core.sched.scheduler import Scheduler

from slos_serve_vllm import Scheduler as Chosen
from slos_serve_vllm import hooks
from slos_serve_vllm.config import ConfigError
from slos_serve_vllm.scheduler import SloAsyncScheduler, SloScheduler

from .fake_engine import engine_config, make_scheduler

ALONE = {"start": False, "start_seconds": 0.01}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda config: setattr(config.scheduler_config, "policy", "priority"),
            "--scheduling-policy at fcfs",
        ),
        (lambda config: setattr(config.scheduler_config, "enable_chunked_prefill", False), "chunked-prefill"),
        (
            lambda config: setattr(config.scheduler_config, "long_prefill_token_threshold", 64),
            "how long chunks are",
        ),
        (
            lambda config: setattr(config.scheduler_config, "prefill_schedule_interval", 4),
            "when prompts run",
        ),
        (lambda config: setattr(config.model_config, "runner_type", "pooling"), "pooling"),
    ],
)
def test_refuses_what_cannot_be_planned(folder: Path, change: Any, told: str) -> None:
    config = engine_config(folder, False, 0, 1)
    change(config)
    with pytest.raises(ConfigError, match=told):
        make_scheduler(config, 100, ALONE)


@pytest.mark.parametrize(
    ("owner", "name"),
    [(Scheduler, "_reserve_prefill_lookahead"), (KVCacheManager, "create_kv_cache_blocks")],
)
def test_names_the_hook_that_is_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    monkeypatch.delattr(owner, name)
    with pytest.raises(ConfigError, match=rf"has no {owner.__name__}\.{name}, which planning needs"):
        make_scheduler(engine_config(folder, False, 0, 1), 100, ALONE)


def test_warns_of_a_version_that_it_was_not_tested_with(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler = make_scheduler(engine_config(folder, False, 0, 1), 100, ALONE)
    caplog.clear()
    hooks.check_hooks(scheduler, "0.33.1")
    assert not caplog.records
    hooks.check_hooks(scheduler, "0.99.0")
    assert "not tested with vLLM 0.99.0" in caplog.text


def test_one_name_chooses_between_the_two(folder: Path) -> None:
    for is_async, kind in ((False, SloScheduler), (True, SloAsyncScheduler)):
        config = engine_config(folder, is_async, 0, 2 if is_async else 1)
        scheduler = make_scheduler(config, 100, ALONE, Chosen)
        assert type(scheduler) is kind


def test_refuses_a_setting_that_does_not_exist(folder: Path) -> None:
    with pytest.raises(ConfigError, match="dead_line"):
        make_scheduler(engine_config(folder, False, 0, 1), 100, {**ALONE, "dead_line": 3})
