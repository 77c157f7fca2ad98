/** vLLM v1 as an operator can configure it for deadlines today: `--scheduling-policy priority`, each request's absolute
 * first-token deadline as its priority, a tuned token budget. Deadlines order what starts and what gives way when KV is
 * full; they neither size batches nor turn requests down. */
import type { PolicyOptions } from "../options.ts"
import type { BatchBuilder } from "../planner/batch-builder.ts"
import type { LiveRequest } from "../request.ts"
import type { Policy } from "./policy.ts"
import { addFirst } from "./vllm.ts"

export function vllmPriority(options: PolicyOptions): Policy {
  return {
    name: "vllm-priority",
    decide(requests, batch) {
      const running = requests.filter((r) => batch.context.kv.holds(r.id)).sort(byDeadline)
      // vLLM starts no request in a step in which one gave way: it would take the KV that was just made free.
      if (addRunning(running, batch, options)) {
        const waiting = requests.filter((r) => !batch.context.kv.holds(r.id)).sort(byDeadline)
        for (const request of waiting) {
          const left = options.tokenBudget - batch.tokens
          if (!batch.adapters.allow(request)) continue
          if (left < 1 || batch.prefill(request, left) === 0) break
        }
      }
      if (batch.items.length === 0) addFirst(requests, batch)
    },
  }
}

/** Every running request what it owes, within the budget. Answers whether all of them found KV. */
function addRunning(running: readonly LiveRequest[], batch: BatchBuilder, options: PolicyOptions): boolean {
  const { fixedDraft, tokenBudget } = options
  /** Those of worse priority, the worst last: they give way, never the other way round. */
  const worse = [...running]
  let decodesToCome = running.reduce((n, request) => n + (request.decoding ? 1 : 0), 0)
  let found = true
  for (const request of running) {
    worse.shift()
    if (!batch.adapters.allow(request)) {
      if (request.decoding) decodesToCome--
      continue
    }
    if (!batch.context.kv.holds(request.id)) found = false
    else if (request.decoding) {
      decodesToCome--
      found =
        batch.decode(request, worse, Math.min(fixedDraft, batch.tokensLeft - 1 - decodesToCome)) && found
    } else {
      // vLLM lists them in the order in which they began: decodes come before the chunk of a later prompt.
      const left = Math.min(tokenBudget - batch.tokens, batch.tokensLeft) - decodesToCome * (1 + fixedDraft)
      if (left >= 1) found = batch.prefill(request, left, worse) > 0 && found
    }
  }
  return found
}

/** vLLM's order: priority, then arrival. */
function byDeadline(a: LiveRequest, b: LiveRequest): number {
  return a.deadlineUs - b.deadlineUs || a.order - b.order
}
