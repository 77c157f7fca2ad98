/** First come, first served, as today's engines do it: vLLM v1 (decodes first, chunked prefill within a fixed
 * token budget), vLLM v0 (whole prompts first), Sarathi-Serve (chunks sized to the tightest TPOT). SLO-blind but
 * for Sarathi's budget; under KV pressure the latest arrival is preempted and recomputed. */

import type { PolicyOptions } from "../options.ts"
import type { BatchBuilder } from "../planner/batch-builder.ts"
import type { LiveRequest } from "../request.ts"
import type { Policy } from "./policy.ts"

/** vLLM v1: one token budget per step; running requests first, each what it owes, then waiting ones. */
export function vllm(options: PolicyOptions): Policy {
  return {
    name: "vllm",
    decide(requests, batch) {
      const running = requests.filter((r) => batch.context.kv.holds(r.id))
      addDecodes(running, batch, options.fixedDraft)
      for (const request of [...running, ...requests.filter((r) => !batch.context.kv.holds(r.id))]) {
        const left = options.tokenBudget - batch.tokens
        if (left < 1) break
        // What finds no place for its adapter is passed over.
        if (!batch.adapters.allow(request)) continue
        if (!request.decoding && !batch.has(request) && !addChunk(request, left, running, batch)) break
      }
    },
  }
}

/** vLLM v0: as soon as prompts wait and fit, a batch of prompts alone; else all decodes. */
export function vllmPrefillFirst(options: PolicyOptions): Policy {
  return {
    name: "vllm-prefill-first",
    decide(requests, batch) {
      for (const request of requests) {
        if (request.decoding || !batch.adapters.allow(request)) continue
        const left = options.tokenBudget - batch.tokens
        // A prompt longer than the budget cannot go whole; it goes in budget-sized pieces, alone.
        const whole = request.known - batch.context.startOf(request) <= left || batch.items.length === 0
        if (left < 1 || !whole || batch.prefill(request, left) === 0) break
      }
      if (batch.items.length === 0)
        addDecodes(
          requests.filter((r) => r.decoding),
          batch,
          options.fixedDraft,
        )
      if (batch.items.length === 0) addFirst(requests, batch)
    },
  }
}

/** Sarathi-Serve: decodes never stall, prefill chunks fill the batch up to the tightest TPOT. */
export function sarathi(options: PolicyOptions): Policy {
  return {
    name: "sarathi",
    decide(requests, batch) {
      const running = requests.filter((r) => batch.context.kv.holds(r.id))
      addDecodes(running, batch, options.fixedDraft)
      let tightestUs = options.maxBatchUs * 4
      for (const request of running) if (request.decoding) tightestUs = Math.min(tightestUs, request.tpotUs)
      for (const request of [...running, ...requests.filter((r) => !batch.context.kv.holds(r.id))]) {
        if (request.decoding || batch.has(request) || !batch.adapters.allow(request)) continue
        if (batch.prefillWithin(request, tightestUs) === 0) break
      }
      if (batch.items.length === 0) addFirst(requests, batch)
    },
  }
}

/** All decodes in order of arrival; when KV runs out the latest running request gives way. */
function addDecodes(running: readonly LiveRequest[], batch: BatchBuilder, drafted: number): void {
  let left = running.reduce((n, request) => n + (request.decoding ? 1 : 0), 0)
  for (const request of running) {
    // Those still to come must find room for a token.
    if (request.decoding) batch.decode(request, running, Math.min(drafted, batch.tokensLeft - left--))
  }
}

function addChunk(
  request: LiveRequest,
  most: number,
  running: readonly LiveRequest[],
  batch: BatchBuilder,
): boolean {
  const spare = batch.context.kv.holds(request.id) ? running : undefined
  return batch.prefill(request, most, spare) > 0
}

/** A least chunk outlasts the budget: one request must go on all the same. */
export function addFirst(requests: readonly LiveRequest[], batch: BatchBuilder): void {
  for (const request of requests) {
    if (
      request.decoding
        ? batch.decode(request, requests)
        : batch.prefill(request, batch.context.limits.minChunkTokens + 1, requests) > 0
    )
      return
  }
}
