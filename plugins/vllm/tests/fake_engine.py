"""vLLM's real scheduler classes without a model: outputs are made up, and time is what a step would have taken."""

import math
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.engine.arg_utils import EngineArgs
from vllm.lora.request import LoRARequest
from vllm.multimodal.inputs import MultiModalFeatureSpec
from vllm.utils.hashing import get_hash_fn_by_name
from vllm.v1.core.encoder_cache_manager import EncoderCacheManager
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.kv_cache_interface import (
    FullAttentionSpec,
    KVCacheConfig,
    KVCacheGroupSpec,
    KVCacheSpec,
    MambaSpec,
    SlidingWindowSpec,
)
from vllm.v1.outputs import DraftTokenIds, ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus
from vllm.v1.structured_output import StructuredOutputManager

from slos_serve_vllm.scheduler import PlannedScheduler, SloAsyncScheduler, SloScheduler

from .tiny_model import write_tiny_model

BLOCK_TOKENS = 16
STOP_TOKEN = 2


class Clock:
    """µs that pass only when they are told to."""

    now_us = 1_000_000

    def __call__(self) -> int:
        return self.now_us


CLOCK = Clock()


class VirtualScheduler(SloScheduler):
    clock_us = staticmethod(CLOCK)


class VirtualAsyncScheduler(SloAsyncScheduler):
    clock_us = staticmethod(CLOCK)


def engine_config(folder: Path, is_async: bool, drafts: int, in_air: int, **more: Any) -> VllmConfig:
    """As an engine would have it, for a processor."""
    drafter: dict[str, Any] = {"method": "ngram", "prompt_lookup_max": 3}
    if more.pop("has_draft_model", False):
        drafter = {"method": "draft_model", "model": write_tiny_model(folder / "drafter")}
    loras, is_v2 = more.pop("max_loras", 0), more.pop("is_v2", False)
    arguments = EngineArgs(
        model=write_tiny_model(folder / "model"),
        load_format="dummy",
        skip_tokenizer_init=True,
        dtype="float32",
        enforce_eager=True,
        block_size=BLOCK_TOKENS,
        max_model_len=1024,
        max_num_seqs=more.pop("max_num_seqs", 16),
        max_num_batched_tokens=more.pop("batch_tokens", 512),
        enable_prefix_caching=more.pop("prefixes", True),
        speculative_config={**drafter, "num_speculative_tokens": drafts} if drafts else None,
        **({"enable_lora": True, "max_loras": loras, "max_lora_rank": 8} if loras else {}),
        **more,
    )
    config = arguments.create_engine_config()
    # A processor's platform turns it off.
    config.scheduler_config.async_scheduling = is_async
    # More steps are in the air with the stages of a pipeline.
    stages = max(1, in_air - 1 if is_async else in_air)
    config.parallel_config.pipeline_parallel_size = stages
    if is_v2 or (is_async and stages > 1):
        # As where Triton is, on GPUs.
        config.__class__ = type("WithRunnerV2", (type(config),), {"use_v2_model_runner": True})
    assert in_air == 1 or config.max_concurrent_batches == in_air
    return config


LAYERS: dict[str, KVCacheSpec] = {
    "full": FullAttentionSpec(block_size=BLOCK_TOKENS, num_kv_heads=1, head_size=32, dtype=torch.float32),
    "window": SlidingWindowSpec(
        block_size=BLOCK_TOKENS, num_kv_heads=1, head_size=32, dtype=torch.float32, sliding_window=40
    ),
    "states": MambaSpec(
        block_size=BLOCK_TOKENS, shapes=((1024,),), dtypes=(torch.float32,), mamba_cache_mode="align"
    ),
    # One for a whole request, where no other is to begin with it.
    "states of their own": MambaSpec(block_size=1024, shapes=((1024,),), dtypes=(torch.float32,)),
}
"""Kinds of layers that keep KV, each a group of its own."""


def make_scheduler(
    config: VllmConfig,
    blocks: int,
    settings: dict[str, Any],
    kind: Any = None,
    layers: Sequence[str] = ("full",),
) -> PlannedScheduler:
    """The scheduler alone, with so many KV blocks; of virtual time, if not of another `kind`."""
    config.additional_config = {"slos_serve": settings}
    config.cache_config.num_gpu_blocks = blocks
    if "states" in layers:
        config.cache_config.mamba_cache_mode = "align"
    groups = [KVCacheGroupSpec([kind], LAYERS[kind]) for kind in layers]
    # As vLLM has it: a multiple of each group's.
    block = math.lcm(*(LAYERS[kind].block_size for kind in layers))
    kv = KVCacheConfig(num_blocks=blocks, kv_cache_tensors=[], kv_cache_groups=groups)
    virtual = VirtualAsyncScheduler if config.scheduler_config.async_scheduling else VirtualScheduler
    return (kind or virtual)(
        vllm_config=config,
        kv_cache_config=kv,
        structured_output_manager=StructuredOutputManager(config),
        block_size=block,
        hash_block_size=block,
    )


def give_encoder(scheduler: PlannedScheduler, tokens: int) -> None:
    """Pictures can be encoded, so many tokens a step, and as many are kept until pieces of prompts have passed them."""
    scheduler.max_num_encoder_input_tokens = tokens
    scheduler.encoder_cache_manager = EncoderCacheManager(cache_size=tokens)


@dataclass
class Flying:
    output: SchedulerOutput
    samples: list[str]
    """Requests that yield tokens in this step."""


class FakeEngine:
    """Steps a scheduler as vLLM's engine core does, with so many steps in the air."""

    def __init__(
        self, scheduler: PlannedScheduler, in_air: int, seed: int, stop: float = 0.0, accept: float = 0.6
    ) -> None:
        self.scheduler = scheduler
        self.tokens: dict[str, list[int]] = {}
        """What came out, by request."""
        self.ended: set[str] = set()
        self.ran: list[dict[str, int]] = []
        """What each step computed."""
        self.watch: Callable[[PlannedScheduler, SchedulerOutput], None] = lambda _scheduler, _output: None
        """Sees each step once it is scheduled."""
        self._in_air = in_air
        self._random = random.Random(seed)
        self._stop = stop
        self._accept = accept
        self._flying: deque[Flying] = deque()
        self._is_async = scheduler.vllm_config.scheduler_config.async_scheduling

    def add(self, request: Request) -> None:
        self.tokens[request.request_id] = []
        self.scheduler.add_request(request)

    def abort(self, name: str) -> None:
        self.scheduler.finish_requests(name, RequestStatus.FINISHED_ABORTED)
        self.ended.add(name)

    def step(self) -> None:
        """One turn of the engine core: schedules while there is room in the air, then waits for the oldest step."""
        output = self.scheduler.schedule()
        self.watch(self.scheduler, output)
        count = output.total_num_scheduled_tokens
        if count > 0:
            self.ran.append(dict(output.num_scheduled_tokens))
            requests = self.scheduler.requests
            samples = [name for name in output.num_scheduled_tokens if not requests[name].is_prefill_chunk]
            self._flying.append(Flying(output, samples))
        CLOCK.now_us += 3_000 + 20 * count if count else 1_000
        if self._flying and (len(self._flying) >= self._in_air or count == 0):
            self._land()

    def run_until_idle(self, most_steps: int = 20_000) -> None:
        for _ in range(most_steps):
            if not self.scheduler.has_requests() and not self._flying:
                return
            self.step()
        raise AssertionError(f"requests are left over: {list(self.scheduler.requests)}")

    def _land(self) -> None:
        flying = self._flying.popleft()
        names = list(flying.output.num_scheduled_tokens)
        sampled = [self._sample(name, flying) if name in flying.samples else [] for name in names]
        outputs = self.scheduler.update_from_output(
            flying.output,
            ModelRunnerOutput(
                req_ids=names,
                req_id_to_index={name: place for place, name in enumerate(names)},
                sampled_token_ids=sampled,
            ),
        )
        for group in outputs.values():
            for one in group.outputs:
                self.tokens[one.request_id] += one.new_token_ids
                if one.finish_reason is not None:
                    self.ended.add(one.request_id)
        if self.scheduler.num_spec_tokens and not self._is_async:
            drafts = [[7] * self._random.randint(0, self.scheduler.num_spec_tokens) for _ in names]
            self.scheduler.update_draft_token_ids(DraftTokenIds(names, drafts))

    def _sample(self, name: str, flying: Flying) -> list[int]:
        drafted = flying.output.scheduled_spec_decode_tokens.get(name, [])
        accepted = 0
        while accepted < len(drafted) and self._random.random() < self._accept:
            accepted += 1
        return [STOP_TOKEN if self._random.random() < self._stop else 7 for _ in range(accepted + 1)]


class RequestMaker:
    """Requests as the engine core makes them of what the API sends."""

    def __init__(self, config: VllmConfig) -> None:
        hash_fn = get_hash_fn_by_name(config.cache_config.prefix_caching_hash_algo)
        init_none_hash(hash_fn)
        caches = config.cache_config.enable_prefix_caching
        self._hasher = get_request_block_hasher(BLOCK_TOKENS, hash_fn) if caches else None

    def __call__(
        self,
        name: str,
        prompt: list[int],
        most: int,
        adapter: int = 0,
        prompt_logprobs: int | None = None,
        pictures: Sequence[MultiModalFeatureSpec] = (),
        **arguments: Any,
    ) -> Request:
        stops = SamplingParams(
            max_tokens=most,
            ignore_eos=True,
            stop_token_ids=[STOP_TOKEN],
            extra_args=arguments,
            prompt_logprobs=prompt_logprobs,
        )
        return Request(
            request_id=name,
            prompt_token_ids=prompt,
            sampling_params=stops,
            pooling_params=None,
            arrival_time=time.time(),
            block_hasher=self._hasher,
            mm_features=list(pictures),
            lora_request=LoRARequest(f"adapter-{adapter}", adapter, "nowhere") if adapter else None,
        )
