/** SGLang: prompts before decodes, by default not in one step. */
import { ENGINE_RULES } from "../engine-rules.ts"
import { sglangForm } from "./form.ts"
import type { BackendKind } from "./kind.ts"

export const sglang: BackendKind = {
  name: "sglang",
  rules: ENGINE_RULES.sglang,
  withPriority: { ...ENGINE_RULES.sglang, order: "deadline" },
  takesSloArgs: false,
  takesBadWords: false,
  prior: {},
  healthPath: "/health",
  fields: { stream_options: { include_usage: true, continuous_usage_stats: true } },
  form: sglangForm,
  ...{ repeatPenalty: "repetition_penalty", takesTemplateVariables: true, clampsLength: false },
  goOn: { continue_final_message: true },
  load(gauges) {
    const running = gauges.of("sglang:num_running_reqs")
    const waiting = gauges.of("sglang:num_queue_reqs")
    if (running === null || waiting === null) return null
    const kvUsedTokens = gauges.of("sglang:num_used_tokens")
    const kvTokens = gauges.of("sglang:max_total_num_tokens")
    return {
      load: { running, waiting, ...(kvUsedTokens !== null && { kvUsedTokens }) },
      ...(kvTokens !== null && kvTokens > 0 && { rules: { kvTokens } }),
    }
  },
  probe: {
    path: "/get_server_info",
    learn(answer) {
      const { chunked_prefill_size, max_running_requests, max_total_num_tokens, enable_mixed_chunk } =
        answer as Record<string, unknown>
      return {
        rules: {
          ...(isCount(chunked_prefill_size) && { tokenBudget: chunked_prefill_size }),
          ...(isCount(max_running_requests) && { maxSequences: max_running_requests }),
          ...(isCount(max_total_num_tokens) && { kvTokens: max_total_num_tokens }),
          ...(enable_mixed_chunk === true && { mixed: true }),
        },
      }
    },
  },
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && value > 0
}
