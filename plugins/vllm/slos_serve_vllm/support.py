"""What of vLLM's features works with planned steps: the others are refused at the start, each with what to do."""

import logging
from typing import TYPE_CHECKING

from .config import ConfigError

if TYPE_CHECKING:
    from vllm.config import VllmConfig

    from .scheduler import PlannedScheduler

_log = logging.getLogger("vllm.slos_serve")


def refusal_of(config: "VllmConfig") -> str | None:
    """Why steps cannot be planned for this engine, or None."""
    scheduling, model = config.scheduler_config, config.model_config
    if model.runner_type != "generate":
        return f"a model that does not generate ({model.runner_type}) has no tokens to plan: start it without --scheduler-cls"
    if model.is_encoder_decoder:
        return "encoder-decoder models are not supported: start without --scheduler-cls"
    if config.kv_transfer_config is not None:
        return "KV connectors load KV at times that no plan knows of: start without --kv-transfer-config or --scheduler-cls"
    if config.ec_transfer_config is not None:
        return "encoder-cache connectors are not supported: start without --ec-transfer-config or --scheduler-cls"
    if scheduling.policy != "fcfs":
        return f"the planner decides the order: leave --scheduling-policy at fcfs, not {scheduling.policy}"
    if not scheduling.enable_chunked_prefill:
        return "the planner cuts prompts into chunks: start without --no-enable-chunked-prefill"
    if scheduling.long_prefill_token_threshold > 0:
        return "the planner decides how long chunks are: start without --long-prefill-token-threshold"
    if getattr(scheduling, "prefill_schedule_interval", 1) > 1:
        return "the planner decides when prompts run: start without --prefill-schedule-interval"
    return None


def check_support(scheduler: "PlannedScheduler") -> None:
    """Raises ConfigError for what cannot be planned, and says what was not tested."""
    if (refusal := refusal_of(scheduler.vllm_config)) is not None:
        raise ConfigError(f"slos-serve: {refusal}")
    if getattr(scheduler, "num_sampled_tokens_per_step", 1) != 1:
        raise ConfigError("slos-serve: models that sample several tokens a step are not supported")
    if scheduler.kv_shape.blocks > 1:
        _log.warning(
            "slos-serve: the model keeps KV in several groups (windows, states); plans count each as if it kept everything, and "
            "use less of the KV than there is"
        )
    untested = {
        "context parallelism": scheduler.dcp_world_size * scheduler.pcp_world_size > 1,
        "prefixes whose last window is computed anew": getattr(scheduler, "prefix_replay_tokens", 0) > 0,
    }
    for what, is_used in untested.items():
        if is_used:
            _log.warning(
                "slos-serve: untested: %s. Steps that differ from the plan are told to the planner.", what
            )
