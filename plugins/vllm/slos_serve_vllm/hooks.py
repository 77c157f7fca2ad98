"""What of vLLM's inside the plug-in holds on to: found missing at the start, by name, rather than in the middle of a step."""

import inspect
import logging
from typing import TYPE_CHECKING, Any

from .config import ConfigError

if TYPE_CHECKING:
    from .scheduler import PlannedScheduler

TESTED_VERSIONS = ("0.32", "0.33")
_log = logging.getLogger("vllm.slos_serve")

METHODS: dict[str, tuple[str, ...]] = {
    "add_request": ("request",),
    "schedule": (),
    "update_from_output": ("scheduler_output", "model_runner_output"),
    "_reserve_prefill_lookahead": ("request", "num_computed_tokens", "num_new_tokens"),
    "_get_local_prefix_cache_hit": ("request",),
    "_try_schedule_encoder_inputs": ("request", "num_computed_tokens", "num_new_tokens"),
    "_mamba_block_aligned_split": ("request", "num_new_tokens"),
    "_preempt_request": ("request", "timestamp"),
    "_is_blocked_waiting_status": ("status",),
}
"""Methods of vLLM's scheduler that are overridden or called, and the arguments that they must take."""

ATTRIBUTES = (
    "requests",
    "lora_config",
    "running",
    "waiting",
    "policy",
    "kv_cache_manager",
    "prev_step_scheduled_req_ids",
    "scheduler_reserve_full_isl",
    "hash_block_size",
    "num_prefill_lookahead",
    "need_mamba_block_aligned_split",
    "max_num_active_reqs",
    "max_num_scheduled_tokens",
)


def check_hooks(scheduler: "PlannedScheduler", version: str) -> None:
    """Raises ConfigError that names the first hook that this vLLM does not have; warns of a version that is not tested."""
    for name, arguments in METHODS.items():
        method = _of_vllm(scheduler, name)
        if method is None:
            raise _missing(f"Scheduler.{name}", version)
        takes = inspect.signature(method).parameters
        for argument in arguments:
            if argument not in takes:
                raise _missing(f"Scheduler.{name}({argument})", version)
    for name in ATTRIBUTES:
        if not hasattr(scheduler, name):
            raise _missing(f"Scheduler.{name}", version)
    for name in ("coordinator", "create_kv_cache_blocks", "watermark_blocks"):
        if not hasattr(scheduler.kv_cache_manager, name):
            raise _missing(f"KVCacheManager.{name}", version)
    if not hasattr(scheduler.kv_cache_manager.coordinator, "single_type_managers"):
        raise _missing("KVCacheCoordinator.single_type_managers", version)
    if not version.startswith(tuple(f"{tested}." for tested in TESTED_VERSIONS)):
        _log.warning(
            "slos-serve: not tested with vLLM %s, only with %s. All that it needs is there; each step is checked.",
            version,
            " and ".join(TESTED_VERSIONS),
        )


def _of_vllm(scheduler: object, name: str) -> Any:
    """The method as vLLM has it, not as it is overridden here."""
    for kind in type(scheduler).__mro__:
        if kind.__module__.startswith("vllm.") and name in vars(kind):
            return getattr(kind, name)
    return None


def _missing(what: str, version: str) -> ConfigError:
    return ConfigError(
        f"slos-serve: vLLM {version} has no {what}, which planning needs: use vLLM {' or '.join(TESTED_VERSIONS)}, or start "
        "without --scheduler-cls"
    )
