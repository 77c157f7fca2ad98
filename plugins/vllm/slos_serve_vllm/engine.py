"""What the planner is told of this engine, once."""

import importlib.metadata
from typing import TYPE_CHECKING

from vllm.platforms import current_platform

from .blocks import kv_tokens
from .client import Message
from .config import Config
from .pieces import keeps_states

if TYPE_CHECKING:
    from .scheduler import PlannedScheduler

_LEAST_CHUNK_TOKENS = 16


def engine_message(
    scheduler: "PlannedScheduler", config: Config, vllm_version: str, tells_thinking: bool
) -> Message:
    """`engine`: sizes, what step times depend on, and versions."""
    vllm = scheduler.vllm_config
    parallel, compilation = vllm.parallel_config, vllm.compilation_config
    rank = parallel.data_parallel_index
    batch_tokens = step_tokens(scheduler)
    chunk_tokens = scheduler.cache_config.block_size if keeps_states(scheduler) else _LEAST_CHUNK_TOKENS
    adapters = most_adapters(scheduler)
    name = config.name or vllm.model_config.served_model_name or vllm.model_config.model
    return {
        "type": "engine",
        "name": f"{name if isinstance(name, str) else name[0]}-{rank}"[-128:],
        "limits": {
            "kvTokens": kv_tokens(scheduler),
            "blockTokens": scheduler.kv_shape.block_tokens,
            "maxSequences": scheduler.max_num_active_reqs,
            "maxBatchTokens": batch_tokens,
            "contextTokens": scheduler.max_model_len,
            "minChunkTokens": min(chunk_tokens, batch_tokens),
            **({} if adapters is None else {"maxAdapters": adapters}),
        },
        "depth": depth_of(scheduler),
        "tokenLag": token_lag(scheduler),
        "prefixCaching": bool(scheduler.cache_config.enable_prefix_caching),
        "maxDrafts": scheduler.num_spec_tokens,
        "tellsThinking": tells_thinking,
        "model": str(vllm.model_config.model),
        "device": device_name(),
        "dtype": str(vllm.model_config.dtype).removeprefix("torch."),
        "tensorParallel": parallel.tensor_parallel_size,
        "pipelineParallel": parallel.pipeline_parallel_size,
        "dataRank": rank,
        "captureSizes": []
        if vllm.model_config.enforce_eager
        else sorted(compilation.cudagraph_capture_sizes or []),
        "graphMode": "NONE" if compilation.cudagraph_mode is None else compilation.cudagraph_mode.name,
        "eager": bool(vllm.model_config.enforce_eager),
        "vllmVersion": vllm_version,
        "pluginVersion": plugin_version(),
    }


def step_tokens(scheduler: "PlannedScheduler") -> int:
    """Most that a plan may compute in a step. A prompt of one token is padded with drafts, and does not begin where they find no
    place: no plan takes it. Some drafters take tokens of each request's step for themselves."""
    most, vllm = int(scheduler.max_num_scheduled_tokens), scheduler.vllm_config
    each = getattr(vllm.speculative_config, "max_num_new_slots_for_drafting", 0)
    beside = int(vllm.scheduler_config.max_num_batched_tokens) - most
    drafter = max(0, int(each) * int(scheduler.max_num_running_reqs) - beside)
    # Where that is most of a step, it may fall short of its plan rather than stay empty.
    return max(1, most - int(scheduler.num_spec_tokens) - min(drafter, most // 2))


def most_adapters(scheduler: "PlannedScheduler") -> int | None:
    """Most different LoRAs in one step; None: it knows none."""
    config = scheduler.lora_config
    return None if config is None else int(config.max_loras)


def depth_of(scheduler: "PlannedScheduler") -> int:
    """Steps that are planned or computing at once: the next plan is made while vLLM's own are in the air."""
    in_air = scheduler.vllm_config.max_concurrent_batches
    return in_air + 1


def token_lag(scheduler: "PlannedScheduler") -> int:
    """Steps in the air whose requests vLLM does not schedule again: with stages of a pipeline it must know their tokens, or,
    where workers hand these on, goes round the stages."""
    config = scheduler.vllm_config
    if not config.scheduler_config.async_scheduling:
        return int(config.max_concurrent_batches) - 1
    return int(getattr(scheduler, "decode_stagger", 1)) - 1 if config.use_v2_model_runner else 0


def device_name() -> str:
    """As the driver names it; "cpu" for processors."""
    return "cpu" if current_platform.is_cpu() else str(current_platform.get_device_name())


def plugin_version() -> str:
    """Of this package; "source" where it runs from a checkout."""
    try:
        return importlib.metadata.version("slos-serve-vllm")
    except importlib.metadata.PackageNotFoundError:
        return "source"
