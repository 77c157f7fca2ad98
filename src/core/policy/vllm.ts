/** First come, first served, as today's engines do it: vLLM v1 (decodes first, chunked prefill within a fixed
 * token budget), vLLM v0 (whole prompts first), Sarathi-Serve (chunks sized to the tightest TPOT). SLO-blind but
 * for Sarathi's budget; under KV pressure the latest arrival is preempted and recomputed. */

import type { PolicyOptions } from "../options.ts"
import type { Draft } from "../planner/batch-builder.ts"
import type { LiveRequest } from "../request.ts"
import type { Policy } from "./policy.ts"

/** vLLM v1: one token budget per step; running requests first, each what it owes, then waiting ones. */
export function vllm(options: PolicyOptions): Policy {
  return {
    name: "vllm",
    decide(requests, draft) {
      const running = requests.filter((r) => draft.kv.holds(r.id))
      addDecodes(running, draft, options.fixedDraft)
      for (const request of [...running, ...requests.filter((r) => !draft.kv.holds(r.id))]) {
        const left = options.tokenBudget - draft.tokens
        if (left < 1) break
        if (!request.decoding && !draft.has(request) && !addChunk(request, left, running, draft)) break
      }
    },
  }
}

/** vLLM v0: as soon as prompts wait and fit, a batch of prompts alone; else all decodes. */
export function vllmPrefillFirst(options: PolicyOptions): Policy {
  return {
    name: "vllm-prefill-first",
    decide(requests, draft) {
      for (const request of requests) {
        if (request.decoding) continue
        const left = options.tokenBudget - draft.tokens
        // A prompt longer than the budget cannot go whole; it goes in budget-sized pieces, alone.
        const whole = request.known - draft.startOf(request) <= left || draft.items.length === 0
        if (left < 1 || !whole || draft.prefill(request, left) === 0) break
      }
      if (draft.items.length === 0)
        addDecodes(
          requests.filter((r) => r.decoding),
          draft,
          options.fixedDraft,
        )
      if (draft.items.length === 0) addFirst(requests, draft)
    },
  }
}

/** Sarathi-Serve: decodes never stall, prefill chunks fill the batch up to the tightest TPOT. */
export function sarathi(options: PolicyOptions): Policy {
  return {
    name: "sarathi",
    decide(requests, draft) {
      const running = requests.filter((r) => draft.kv.holds(r.id))
      addDecodes(running, draft, options.fixedDraft)
      let tightestUs = options.maxBatchUs * 4
      for (const request of running) if (request.decoding) tightestUs = Math.min(tightestUs, request.tpotUs)
      for (const request of [...running, ...requests.filter((r) => !draft.kv.holds(r.id))]) {
        if (request.decoding || draft.has(request)) continue
        if (draft.prefillWithin(request, tightestUs, options.margin) === 0) break
      }
      if (draft.items.length === 0) addFirst(requests, draft)
    },
  }
}

/** All decodes in order of arrival; when KV runs out the latest running request gives way. */
function addDecodes(running: readonly LiveRequest[], draft: Draft, drafted: number): void {
  let left = running.reduce((n, request) => n + (request.decoding ? 1 : 0), 0)
  for (const request of running) {
    // Whoever is still to come must find room for a token.
    if (request.decoding) draft.decode(request, running, Math.min(drafted, draft.tokensLeft - left--))
  }
}

function addChunk(
  request: LiveRequest,
  most: number,
  running: readonly LiveRequest[],
  draft: Draft,
): boolean {
  const spare = draft.kv.holds(request.id) ? running : undefined
  return draft.prefill(request, most, spare) > 0
}

/** A least chunk outlasts the budget: someone must go on all the same. */
function addFirst(requests: readonly LiveRequest[], draft: Draft): void {
  for (const request of requests) {
    if (
      request.decoding
        ? draft.decode(request, requests)
        : draft.prefill(request, draft.limits.minChunkTokens + 1, requests) > 0
    )
      return
  }
}
