/** vLLM: says which tokens came, takes priorities (--scheduling-policy priority), goes on with a message, hands
 * SLOs on to a planner inside it. */
import { ENGINE_RULES } from "../engine-rules.ts"
import { vllmForm } from "./form.ts"
import type { BackendKind } from "./kind.ts"

export const vllm: BackendKind = {
  name: "vllm",
  rules: ENGINE_RULES.vllm,
  withPriority: ENGINE_RULES["vllm-priority"],
  takesSloArgs: true,
  takesBadWords: true,
  prior: {},
  healthPath: "/health",
  fields: {
    return_token_ids: true,
    stream_options: { include_usage: true, continuous_usage_stats: true },
  },
  form: vllmForm,
  ...{ repeatPenalty: "repetition_penalty", takesTemplateVariables: true, clampsLength: false },
  goOn: { continue_final_message: true, add_generation_prompt: false },
  load(gauges) {
    const running = gauges.of("vllm:num_requests_running")
    const waiting = gauges.of("vllm:num_requests_waiting")
    if (running === null || waiting === null) return null
    const used = gauges.of("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
    const blocks = gauges.label("vllm:cache_config_info", "num_gpu_blocks")
    const blockTokens = gauges.label("vllm:cache_config_info", "block_size")
    const kvTokens = blocks !== null && blockTokens !== null ? blocks * blockTokens : null
    const kvUsedTokens = used !== null && kvTokens !== null ? used * kvTokens : null
    return {
      load: { running, waiting, ...(kvUsedTokens !== null && { kvUsedTokens }) },
      ...(kvTokens !== null && { rules: { kvTokens } }),
    }
  },
  probe: null,
}
